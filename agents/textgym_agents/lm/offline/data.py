"""From files and prompt sources to token ids, rendered and encoded as rollouts are.

A prompt goes through the environment: its template, its system message, its split. Prompt and
completion are encoded one by one, and the completion gets the end token, so that the policy learns
on the ids that it will be sampled with.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from textgym.errors import ConfigError, PromptError
from textgym.jsonl import LineError, PromptProblem
from textgym.prompt import Prompt
from textgym.prompt_files import write_prompts
from textgym.prompt_source import Demonstrations
from textgym.sample import Sample
from textgym.training_rows import (
    Row,
    parse_completion,
    parse_preference,
    parse_prompt,
    read_usable,
    require,
    spread_pairs,
)
from textgym.validation import shown
from textgym_agents.lm.envs import make_envs
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.offline.config import DPORunConfig, TuningConfig
from textgym_agents.lm.texts import encode

SPLITS = ("train", "evaluation")
PREFERENCE = ("chosen", "rejected")
NO_REWARD = f"{__name__}:no_reward"
Encoded = dict[str, list[int]]


def no_reward(sample: Sample) -> None:
    """Judge nothing: environments want a reward, but here no completion is scored."""


class Text(NamedTuple):
    """A prompt as the environment renders it, and its completions by name."""

    prompt: str
    completions: dict[str, str]


@dataclass
class Examples:
    """What is learnt from and what is held out, in token ids."""

    train: list[Encoded] = field(default_factory=list)
    evaluation: list[Encoded] = field(default_factory=list)
    num_truncated: int = 0
    """Rows that lost the end of a completion."""
    problems: list[str] = field(default_factory=list)
    """Lines and prompts that cannot be used, each with what is wrong."""

    def summary(self) -> str:
        """Return one line on the data, and one on each of the first problems."""
        counts = f"{len(self.train)} rows to learn from, {len(self.evaluation)} held out"
        if self.num_truncated:
            counts += f", {self.num_truncated} cut at max_length"
        if not self.problems:
            return counts
        listed = "\n  ".join(self.problems[:5])
        rest = f"\n  and {len(self.problems) - 5} more" if len(self.problems) > 5 else ""
        return f"{counts}, {len(self.problems)} left out:\n  {listed}{rest}"


def read_examples(network: PolicyValueNetwork, config: TuningConfig) -> Examples:
    """Read, render, encode and split what a configuration names.

    Raises:
        ConfigError: nothing of it can be learnt from.
        PromptError: a file that cannot be read, or has no usable line.
    """
    examples = Examples()
    for split in SPLITS:
        texts = list(_texts(config, split, examples))
        if split != SPLITS[0]:
            texts = _spread(texts, config.evaluation_rows)
        for text in texts:
            row = _encode(network, text, config.max_length, examples)
            if row is not None:
                getattr(examples, split).append(row)
    if not examples.train:
        raise ConfigError(f"there is nothing to learn from: {examples.summary()}")
    return examples


def _spread(texts: list[Text], most: int) -> list[Text]:
    """Return up to `most` of the texts, spread over all of them."""
    step = max(1.0, len(texts) / most)
    return [texts[int(i * step)] for i in range(min(most, len(texts)))]


def _texts(config: TuningConfig, split: str, examples: Examples) -> Iterator[Text]:
    env = config.env.model_copy(update={"reward": NO_REWARD})
    path = config.data.file
    with tempfile.TemporaryDirectory() as folder:
        if path is not None:
            prompts, problems = _read_file(path, is_preference=isinstance(config, DPORunConfig))
            write_prompts(Path(folder) / "rows.jsonl", prompts)
            env = env.model_copy(update={"prompts": str(Path(folder) / "rows.jsonl")})
            if split == SPLITS[0] and problems:
                examples.problems += [str(problem) for problem in problems]
        try:
            envs = make_envs(env, 1, split=split)
        except PromptError:
            if split == SPLITS[0]:
                raise
            return  # what there is to learn from is there, so nothing is held out
        try:
            yield from _rendered(envs.unwrapped, config, examples)
        finally:
            envs.close()


def _rendered(env: Any, config: TuningConfig, examples: Examples) -> Iterator[Text]:
    pool = getattr(env, "pool", None)
    if pool is None:
        raise ConfigError(f"env.id: {config.env.id} has no prompts to learn from; give data.file")
    data = config.data
    place = "target" if data.file is not None else data.completion
    for index in range(len(pool)):
        prompt = pool.prompt(index)
        try:
            if place is None:
                rows = _demonstrated(pool.demonstrations(index), config)
            else:
                rows = [_completions(prompt, place, config)]
        except LineError as error:
            examples.problems.append(f"prompt '{prompt.id}': {error}")
        else:
            yield from (Text(pool.render(index, config.seed, 0), row) for row in rows)


def _demonstrated(shown: Demonstrations, config: TuningConfig) -> list[dict[str, str]]:
    """Return rows of what a source demonstrates of a prompt."""
    right = [text for text in shown.right if text.strip()]
    most = config.data.per_prompt
    if isinstance(config, DPORunConfig):
        pairs = spread_pairs(right, filter(str.strip, shown.wrong), most)
        rows = [dict(zip(PREFERENCE, pair, strict=True)) for pair in pairs]
    else:
        rows = [{"completion": text} for text in right[:most]]
    if not rows:
        wanted = "right and wrong completion" if isinstance(config, DPORunConfig) else "completion"
        raise LineError("demonstrations", f"its source demonstrates no {wanted}; give data.file")
    return rows


def _completions(prompt: Prompt, place: str, config: TuningConfig) -> dict[str, str]:
    value: Any = prompt.model_dump()
    for name in place.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    names = PREFERENCE if isinstance(config, DPORunConfig) else ("completion",)
    found = value if isinstance(config, DPORunConfig) else {"completion": value}
    texts = {name: found.get(name) if isinstance(found, Mapping) else None for name in names}
    for name, text in texts.items():
        if isinstance(text, bool) or not isinstance(text, str | int | float) or text == "":
            raise LineError(place, f"its {place} is {shown(value)}, which is no {name} to learn")
    return {name: str(text) for name, text in texts.items()}


def _read_file(
    path: str, *, is_preference: bool
) -> tuple[Sequence[Prompt], Sequence[PromptProblem]]:
    """Return rows as prompts whose targets are the completions."""
    if is_preference:
        return read_usable(path, _preference, what="preference")
    return read_usable(path, _demonstration, what="demonstration")


def _preference(row: Row, name: str) -> Prompt:
    prompt, chosen, rejected = parse_preference(row, name)
    return prompt.model_copy(update={"target": {"chosen": chosen, "rejected": rejected}})


def _demonstration(row: Row, name: str) -> Prompt:
    if "messages" in row and "completion" not in row:
        chat = parse_prompt(row["messages"], name, field="messages")
        if len(chat.messages) < 2 or chat.messages[-1].role != "assistant":
            raise LineError("messages", "expected a chat that ends with the assistant's message")
        completion = parse_completion({"messages": [chat.messages[-1].model_dump()]}, "messages")
        return chat.model_copy(update={"messages": chat.messages[:-1], "target": completion})
    require(row, "prompt", "completion")
    prompt = parse_prompt(row["prompt"], name)
    return prompt.model_copy(update={"target": parse_completion(row, "completion")})


def _encode(
    network: PolicyValueNetwork, text: Text, max_length: int, examples: Examples
) -> Encoded | None:
    """Return the ids of a row, `prompt` and each completion; None if nothing of one is left."""
    prompt, *answers = encode(network, [text.prompt, *text.completions.values()])
    room = max_length - len(prompt)
    if room < 1 or not prompt:
        examples.problems.append(
            f"a prompt of {len(prompt)} tokens leaves no room within max_length {max_length}"
        )
        return None
    ended = [[*answer, network.tokenizer.eos_token_id] for answer in answers]
    examples.num_truncated += any(len(answer) > room for answer in ended)
    cut = [answer[:room] for answer in ended]
    if len(cut) > 1 and cut[0] == cut[1]:
        examples.problems.append("a pair whose difference lies beyond max_length")
        return None
    return {"prompt": prompt, **dict(zip(text.completions, cut, strict=True))}
