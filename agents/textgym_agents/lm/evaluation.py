"""Held-out evaluation: each prompt answered once greedily and once by sampling.

Where the environment is solved, what the policy is worth is computed besides.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from gymnasium.vector import VectorEnv

from textgym.errors import ConfigError
from textgym.seeding import Purpose, derive_seed, stream
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.exact import ExactTask
from textgym_agents.lm.rollout import Rollout, collect, make_envs


class HeldOut(NamedTuple):
    """The environments of an evaluation, and the options that fix their prompts."""

    envs: VectorEnv[Any, Any, Any]
    options: dict[str, Any] | None
    exact: ExactTask | None = None


class EvaluationResult(NamedTuple):
    """The two passes of one evaluation."""

    greedy: Rollout
    sampled: Rollout
    exact: dict[str, float]
    """What `ExactTask.metrics` computed; empty where nothing can be computed."""

    def metrics(self) -> dict[str, float]:
        """Return success, nan where the rewards declare no best value, and the rest of both."""
        rows = dict(self.exact)
        for name, rollout in (("greedy", self.greedy), ("sampled", self.sampled)):
            measured = rollout.metrics()
            rows[f"evaluation/{name}"] = measured["rollout/success"]
            rows[f"evaluation/{name}_reward"] = measured["rollout/reward"]
            rows[f"evaluation/{name}_length"] = measured["rollout/length"]
            rows[f"evaluation/{name}_failed"] = measured["rollout/num_failed"]
        return rows


def make_held_out(agent: PPOAgent) -> HeldOut:
    """Make the environments of held-out prompts: every prompt once, or a fixed random subset."""
    config, seed = agent.config, agent.config.seed
    kwargs = {"split": "evaluation"} if _has_splits(agent) else {}
    wanted = config.evaluation.num_episodes
    probe = make_envs(config.env, 1, **kwargs)
    available = getattr(probe.unwrapped, "num_prompts", None)
    probe.close()
    if available is None:
        envs = make_envs(config.env, wanted, **kwargs)
        return HeldOut(envs, None, _find_exact(envs, agent))
    number = min(wanted, int(available))
    order = stream(seed, Purpose.EVALUATION).permutation(int(available))
    indices = sorted(int(i) for i in order[:number])
    envs = make_envs(config.env, number, **kwargs)
    return HeldOut(envs, {"prompt_index": indices}, _find_exact(envs, agent))


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
    return agent.config.env.id.endswith("TextGen-v0") and "split" not in agent.config.env.kwargs


def evaluate(agent: PPOAgent, held_out: HeldOut) -> EvaluationResult:
    """Answer every held-out prompt; the same prompts and the same random numbers every time."""
    seed = derive_seed(agent.config.seed, Purpose.EVALUATION)

    def answer(temperature: float) -> Rollout:
        return collect(
            held_out.envs,
            agent.engine,
            agent.network,
            agent.config.rollout,
            seed=seed,
            generator=torch.Generator(agent.network.device).manual_seed(seed),
            temperature=temperature,
            options=held_out.options,
        )

    exact = {} if held_out.exact is None else held_out.exact.metrics(agent.network)
    return EvaluationResult(answer(0.0), answer(agent.config.rollout.temperature), exact)
