"""Held-out evaluation: each prompt answered once greedily and once by sampling."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from gymnasium.vector import VectorEnv

from textgym.errors import ConfigError
from textgym.seeding import Purpose, derive_seed, stream
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.rollout import Rollout, collect, make_envs


class HeldOut(NamedTuple):
    """The environments of an evaluation, and the options that fix their prompts."""

    envs: VectorEnv[Any, Any, Any]
    options: dict[str, Any] | None


class EvaluationResult(NamedTuple):
    """The two passes of one evaluation."""

    greedy: Rollout
    sampled: Rollout

    def metrics(self) -> dict[str, float]:
        """Return success, nan where the rewards declare no best value, and the rest of both."""
        rows = {}
        for name, rollout in self._asdict().items():
            measured = rollout.metrics()
            rows[f"evaluation/{name}"] = measured["rollout/success"]
            rows[f"evaluation/{name}_reward"] = measured["rollout/reward"]
            rows[f"evaluation/{name}_length"] = measured["rollout/length"]
            rows[f"evaluation/{name}_failed"] = measured["rollout/num_failed"]
        return rows


def make_held_out(agent: PPOAgent) -> HeldOut:
    """Make the environments of held-out prompts: every prompt once, or a fixed random subset.

    Several processes divide the prompts among themselves.
    """
    config, seed, processes = agent.config, agent.config.seed, agent.processes
    kwargs = {"split": "evaluation"} if _has_splits(agent) else {}
    wanted = config.evaluation.num_episodes
    probe = make_envs(config.env, 1, **kwargs)
    available = getattr(probe.unwrapped, "num_prompts", None)
    probe.close()
    number = wanted if available is None else min(wanted, int(available))
    if number < processes.size:
        raise ConfigError(
            f"evaluation.num_episodes: {number} held-out prompts are too few for "
            f"{processes.size} processes; take at least one for each"
        )
    if available is None:
        share = len(range(processes.rank, number, processes.size))
        return HeldOut(make_envs(config.env, share, **kwargs), None)
    order = stream(seed, Purpose.EVALUATION).permutation(int(available))
    indices = sorted(int(i) for i in order[:number])[processes.rank :: processes.size]
    return HeldOut(make_envs(config.env, len(indices), **kwargs), {"prompt_index": indices})


def _has_splits(agent: PPOAgent) -> bool:
    return agent.config.env.id.endswith("TextGen-v0") and "split" not in agent.config.env.kwargs


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

    return EvaluationResult(answer(0.0), answer(agent.config.rollout.temperature))
