"""Environments and tasks of other packages, where these are installed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import gymnasium
from pydantic import JsonValue, ValidationError

from textgym.errors import PromptError
from textgym.prompt import Prompt

GEM_ID = "Gem-v0"
PLUMBING = {
    "idx", "id", "name", "description", "prompt", "system_prompt", "image", "workdir", "agent_user",
    "skills", "network_allow", "network_block", "artifacts", "artifact_max_bytes", "timeout",
    "resources",
}  # fmt: skip
"""Fields that every task of verifiers has."""


def gem_env(env: str, **arguments: JsonValue) -> gymnasium.Env[str, str]:
    """Return an environment of gem, by its id there, as one of Gymnasium.

    The same is `gymnasium.make("textgym:Gem-v0", env=..., arguments={...})`, which trainers take.

    Args:
        env: such as `game:GuessTheNumber-v0-easy`.
        **arguments: of gem's environment.

    Raises:
        ConfigError: gem is not installed, or has no such environment.
    """
    return gymnasium.make(GEM_ID, env=env, arguments=arguments)


def verifiers_prompts(
    tasks: Iterable[Any], *, target: str = "answer", reward: str | None = None
) -> Iterator[Prompt]:
    """Yield the tasks of a taskset of verifiers as prompts.

    A system prompt becomes the first message, `target` the target, and what else the data of the
    task hold their metadata. `textgym.prompt_files.write_prompts` writes them to a file, which
    every environment and trainer here takes.

    Args:
        tasks: a `Taskset`, or any of its views; one without an end needs `take(n)`.
        target: the field of the task's data that holds the target.
        reward: name of the reward that judges the prompts.

    Raises:
        PromptError: a task has no prompt, which its environment begins otherwise.
    """
    for number, task in enumerate(tasks):
        data = task.data
        name = str(data.id or data.name or number)
        if data.prompt is None:
            raise PromptError(f"the task '{name}' has no prompt: its user opens the conversation")
        values = data.model_dump(mode="json")
        said = [{"role": "user", "content": data.prompt}]
        if not isinstance(data.prompt, str):
            said = [{"role": m["role"], "content": m["content"]} for m in values["prompt"]]
        if data.system_prompt:
            said = [{"role": "system", "content": data.system_prompt}, *said]
        metadata = {k: v for k, v in values.items() if k not in PLUMBING and k != target}
        try:
            yield Prompt.model_validate(
                {
                    "id": name,
                    "messages": said,
                    "target": values.get(target),
                    "reward": reward,
                    "metadata": metadata,
                }
            )
        except ValidationError as error:
            raise PromptError(f"the task '{name}' is no prompt of text: {error}") from None
