"""Held-out evaluation: each prompt answered once greedily and once by sampling.

Where the environment is solved, what the policy is worth is computed besides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.vector import VectorEnv

from textgym.errors import ConfigError
from textgym.seeding import Purpose, derive_seed, stream
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.envs import make_envs
from textgym_agents.lm.exact import ExactTask
from textgym_agents.lm.rollout import collect
from textgym_agents.lm.transcript import Rollout, Transcript

WITH_SPLITS = ("TextGen-v0", "TextGenTools-v0", "QueryRewrite-v0")
"""Environments that hold prompts out for evaluation."""


class HeldOut(NamedTuple):
    """The environments of an evaluation, and the options that fix their prompts."""

    envs: VectorEnv[Any, Any, Any]
    options: dict[str, Any] | None
    exact: ExactTask | None = None
    arguments: Mapping[str, str] = MappingProxyType({})
    """What the environments were made with besides the configuration."""


class EvaluationResult(NamedTuple):
    """The two passes of one evaluation."""

    greedy: Rollout
    sampled: Rollout
    exact: dict[str, float]
    """What `ExactTask.metrics` computed; empty where nothing can be computed."""

    def metrics(self) -> dict[str, float]:
        """Return success, nan where no reward tells it from failure, and the rest of both passes.

        Where the prompts are of several tasks, success and reward of each are there as well.
        """
        rows = {**self.exact, "evaluation/num_episodes": float(len(self.greedy.transcripts))}
        for name, rollout in (("greedy", self.greedy), ("sampled", self.sampled)):
            measured = rollout.metrics()
            rows[f"evaluation/{name}"] = measured["rollout/success"]
            rows[f"evaluation/{name}_reward"] = measured["rollout/reward"]
            rows[f"evaluation/{name}_reward_std"] = measured["rollout/reward_std"]
            rows[f"evaluation/{name}_length"] = measured["rollout/length"]
            rows[f"evaluation/{name}_failed"] = measured["rollout/num_failed"]
            for key, value in measured.items():
                if key.startswith("rollout/parts/"):
                    rows[key.replace("rollout/", f"evaluation/{name}_", 1)] = value
            for task, part in by_task(rollout).items():
                measured = part.metrics()
                rows[f"evaluation/{name}/{task}"] = measured["rollout/success"]
                rows[f"evaluation/{name}_reward/{task}"] = measured["rollout/reward"]
        return rows


def by_task(rollout: Rollout) -> dict[str, Rollout]:
    """Return the episodes of each task, `metadata["task"]` of the prompt; empty for a single one.

    Prompts that name none are of the task `other`. Where the prompts have levels of a curriculum,
    those are tasks: `level_0` and so on.
    """
    parts: defaultdict[str, list[Transcript]] = defaultdict(list)
    for transcript in rollout.transcripts:
        metadata = transcript.task.metadata if transcript.task is not None else {}
        level = metadata.get("curriculum_level")
        name = metadata.get("task", "other") if level is None else f"level_{level}"
        parts[str(name)].append(transcript)
    return {task: Rollout(parts[task]) for task in sorted(parts)} if len(parts) > 1 else {}


def make_held_out(agent: PPOAgent) -> HeldOut:
    """Make the environments of held-out prompts: every prompt once, or a fixed random subset.

    The subset has of each prompt source as much as its weight asks for. Several processes divide
    the prompts among themselves.

    Raises:
        ConfigError: there are fewer prompts than processes.
    """
    config, seed, processes = agent.config, agent.config.seed, agent.processes
    kwargs = {"split": "evaluation"} if _has_splits(agent) else {}
    wanted = config.evaluation.num_episodes
    probe = make_envs(config.env, 1, **kwargs)
    indices = _chosen(probe.unwrapped, wanted, stream(seed, Purpose.EVALUATION))
    probe.close()
    number = wanted if indices is None else len(indices)
    if number < processes.size:
        raise ConfigError(
            f"evaluation.num_episodes: {number} held-out prompts are too few for "
            f"{processes.size} processes; take at least one for each"
        )
    share = range(processes.rank, number, processes.size)
    envs = make_envs(config.env, len(share), **kwargs)
    options = None if indices is None else {"prompt_index": [indices[i] for i in share]}
    return HeldOut(envs, options, _find_exact(envs, agent), kwargs)


def _chosen(env: Any, wanted: int, rng: np.random.Generator) -> list[int] | None:
    """Return the prompts to answer, None where the environment does not number its own."""
    spread = getattr(getattr(env, "pool", None), "spread", None)
    if spread is not None:
        return list(spread(wanted, rng))
    available = getattr(env, "num_prompts", None)
    if available is None:
        return None
    return sorted(int(i) for i in rng.permutation(int(available))[:wanted])


def _find_exact(envs: VectorEnv[Any, Any, Any], agent: PPOAgent) -> ExactTask | None:
    """Return the solved environment, or None where the policy's value cannot be computed.

    Its rollouts must be the environment's token mode: no other ids may be sampled, and turns and
    sequences must be as long.
    """
    legal_ids, rollout = agent.network.config.legal_ids, agent.config.rollout
    if legal_ids is None:
        return None
    try:
        task = ExactTask.of(envs, agent.network.tokenizer)
    except ConfigError:  # not solved, too large, or in other tokens: sampling is left
        return None
    if task.solution.num_states > agent.config.evaluation.exact_states:
        return None
    limits = task.limits()
    is_same = (
        set(legal_ids) == set(task.symbols.actions)
        and rollout.max_new_tokens == limits["rollout"]["max_new_tokens"]
        and rollout.max_length >= limits["rollout"]["max_length"]
    )
    return task if is_same else None


def _has_splits(agent: PPOAgent) -> bool:
    env = agent.config.env
    return env.id.endswith(WITH_SPLITS) and "split" not in env.kwargs


def evaluate(agent: PPOAgent, held_out: HeldOut) -> EvaluationResult:
    """Answer every held-out prompt; the same prompts and the same random numbers every time."""
    processes = agent.processes
    seed = derive_seed(agent.config.seed, Purpose.EVALUATION, processes.rank)

    def answer(temperature: float) -> Rollout:
        with processes.together():
            own = collect(
                held_out.envs,
                agent.engine,
                agent.network,
                agent.config.rollout,
                seed=seed,
                generator=torch.Generator(agent.network.device).manual_seed(seed),
                temperature=temperature,
                options=held_out.options,
            )
        return Rollout([t for share in processes.gather(own) for t in share.transcripts])

    task = held_out.exact
    exact = {} if task is None else processes.from_main(lambda: task.metrics(agent.network))
    return EvaluationResult(answer(0.0), answer(agent.config.rollout.temperature), exact)
