"""Collect episodes from a text-mode vector environment: token in, token out.

An observation is encoded once, when it arrives. A completion is decoded for the environment and
never encoded again: the ids that are trained on are the ids that were sampled. An episode of
several turns is one sequence, in which the environment's messages are masked out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv, VectorEnv

from textgym.sample import Completion
from textgym_agents.lm.clock import Clock
from textgym_agents.lm.config import RolloutConfig
from textgym_agents.lm.engine import Generation, GenerationEngine
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.step_rewards import add_rewards, place_steps
from textgym_agents.lm.texts import completion_text, decode, encode
from textgym_agents.lm.transcript import Rollout, Transcript

INFO_KEYS = (
    "prompt_id", "finish_reason", "is_success", "score", "reward_parts", "status", "label",
    "reason", "extracted", "verifier_error", "reward_steps", "answer", "completion", "dialogue",
    "tool_calls", "tool_errors",
)  # fmt: skip


class Episodes:
    """One episode in every sub-environment, while they are being written.

    The sub-environments are touched in `reset` and `step` alone, which may run in another thread;
    tokens and transcripts in the other methods alone.

    Args:
        envs: text-mode vector environment with autoreset disabled.
        network: its tokenizer encodes observations and decodes completions.
        config: limits of length.
        clock: of the time that the environments take.
    """

    def __init__(
        self,
        envs: VectorEnv[Any, Any, Any],
        network: PolicyValueNetwork,
        config: RolloutConfig,
        clock: Clock,
    ) -> None:
        self.envs = envs
        self.network = network
        self.config = config
        self.clock = clock
        self.transcripts: list[Transcript] = []
        self._live: list[int] = []

    def reset(self, seed: int | list[int], options: dict[str, Any] | None = None) -> Reset:
        """Reset the sub-environments; a list of seeds plays as many of the first ones."""
        with self.clock.phase("environment"):
            return Reset(*_reset(self.envs, seed, options))

    def begin(self, reset: Reset) -> None:
        """Begin a transcript for each prompt."""
        observations, infos = reset
        encoded = encode(self.network, observations)
        num_rows = self.envs.num_envs
        tasks = getattr(self.envs.unwrapped, "current_prompts", [None] * num_rows)[: len(encoded)]
        self.transcripts = [
            Transcript(prompt, ids, _row(infos, i), task)
            for i, (prompt, ids, task) in enumerate(zip(observations, encoded, tasks, strict=True))
        ]

    def sample(
        self, engine: GenerationEngine, temperature: float, generator: torch.Generator
    ) -> list[str] | None:
        """Return what the policy says in each sub-environment, or None if all episodes are over."""
        _end_too_long(self.transcripts, self.config.max_length)
        self._live = [i for i, transcript in enumerate(self.transcripts) if transcript.is_live]
        if not self._live:
            return None
        with self.clock.phase("generation"):
            generations = engine.generate(
                [self.transcripts[i].ids for i in self._live],
                max_new_tokens=[_budget(self.transcripts[i], self.config) for i in self._live],
                temperature=temperature,
                generator=generator,
            )
        actions: list[str] = [""] * self.envs.num_envs
        for i, generation in zip(self._live, generations, strict=True):
            actions[i] = _act(self.transcripts[i], generation, self.network)
        return actions

    def step(self, actions: list[str]) -> Step:
        """Act in the sub-environments, which score what is to be scored."""
        with self.clock.phase("environment"):
            step = self.envs.step(actions)
            _restart_ended(self.envs, step[2] | step[3])
        return Step(*step)

    def observe(self, step: Step) -> None:
        """Write what the environments answered into the transcripts."""
        _observe(self.transcripts, self._live, step, self.network)


class Reset(NamedTuple):
    """What a vector environment returns from `reset`."""

    observations: Sequence[str]
    infos: dict[str, Any]


class Step(NamedTuple):
    """What a vector environment returns from `step`."""

    observations: Sequence[str]
    rewards: Any
    terminated: Any
    truncated: Any
    infos: dict[str, Any]


def collect(
    envs: VectorEnv[Any, Any, Any],
    engine: GenerationEngine,
    network: PolicyValueNetwork,
    config: RolloutConfig,
    *,
    seed: int | list[int],
    generator: torch.Generator,
    temperature: float | None = None,
    options: dict[str, Any] | None = None,
    clock: Clock | None = None,
) -> Rollout:
    """Run one episode in every sub-environment, or in as many of the first ones as have a seed.

    Args:
        envs: text-mode vector environment with autoreset disabled.
        engine: samples the completions.
        network: its tokenizer encodes observations and decodes completions.
        config: limits of length, and the temperature.
        seed: of the environments; it fixes the prompts. Row i is reset with `seed + i`, or with its
            entry of a list: rows of one seed have one prompt, rendered alike.
        generator: of the sampling.
        temperature: 0 for greedy evaluation; None takes the configuration's.
        options: handed to `reset`.
        clock: is told what took how long.
    """
    episodes = Episodes(envs, network, config, clock or Clock())
    episodes.begin(episodes.reset(seed, options))
    tau = config.temperature if temperature is None else temperature
    while (actions := episodes.sample(engine, tau, generator)) is not None:
        episodes.observe(episodes.step(actions))
    drop_stale(episodes.transcripts, engine.policy_version)
    return Rollout(episodes.transcripts)


def drop_stale(transcripts: Sequence[Transcript], policy_version: int) -> None:
    """Fail the episodes that another policy has sampled than the one that is to learn from them."""
    for transcript in transcripts:
        if transcript.policy_version not in (None, policy_version) and not transcript.failure:
            transcript.failure = "stale_policy"


def _reset(
    envs: VectorEnv[Any, Any, Any], seed: int | list[int], options: dict[str, Any] | None
) -> tuple[Sequence[str], dict[str, Any]]:
    """Reset the rows that are to play and return their observations.

    The other rows stay as they ended, where the environment lets them.
    """
    seeds: Any = seed  # Gymnasium's type is narrower than what its environments take
    num_played = envs.num_envs if isinstance(seed, int) else len(seed)
    if num_played < envs.num_envs:
        seeds = [*seeds, *[None] * (envs.num_envs - num_played)]
        if not isinstance(envs.unwrapped, SyncVectorEnv):  # of which an ended row cannot idle
            options = {**(options or {}), "reset_mask": np.arange(envs.num_envs) < num_played}
    observations, infos = envs.reset(seed=seeds, options=options)
    return observations[:num_played], infos


def _end_too_long(transcripts: Sequence[Transcript], max_length: int) -> None:
    """End episodes that have no room for a token: the limit of length belongs to the task.

    A prompt that leaves no room at all is left out of training.
    """
    for transcript in transcripts:
        if not transcript.is_live or 0 < len(transcript.ids) < max_length:
            continue
        if transcript.completions:
            transcript.terminated, transcript.finish_reason = True, "length"
        else:
            transcript.failure = "too_long" if transcript.ids else "empty_prompt"


def _restart_ended(envs: VectorEnv[Any, Any, Any], is_over: Any) -> None:
    """Reset ended rows where stepping them is an error; the native environments let them idle."""
    if isinstance(envs.unwrapped, SyncVectorEnv) and is_over.any() and not is_over.all():
        envs.reset(options={"reset_mask": is_over.copy()})


def _budget(transcript: Transcript, config: RolloutConfig) -> int:
    return min(config.max_new_tokens, config.max_length - len(transcript.ids))


def _act(transcript: Transcript, generation: Generation, network: PolicyValueNetwork) -> Completion:
    """Write a completion into its episode; one that the engine could not give ends the episode."""
    if generation.failure is not None:
        transcript.failure, _, reason = generation.failure.partition(": ")
        transcript.info["reason"] = reason
        return Completion("", finish_reason="abort")
    text = completion_text(network, generation)
    transcript.add_generation(generation)
    transcript.completions.append(text)
    return Completion(text, token_ids=generation.token_ids, finish_reason=generation.finish_reason)


def _observe(
    transcripts: Sequence[Transcript],
    live: Sequence[int],
    step: Step,
    network: PolicyValueNetwork,
) -> None:
    observations, rewards, terminated, truncated, infos = step
    going_on = []
    for i in live:
        transcript = transcripts[i]
        if transcript.failure is not None:
            continue
        transcript.info |= _row(infos, i)
        transcript.terminated = bool(terminated[i])
        transcript.truncated = bool(truncated[i]) and not transcript.terminated
        transcript.failure = _failure(float(rewards[i]), transcript.info)
        if transcript.failure is None:
            _reward(transcript, float(rewards[i]), network)
        if transcript.is_live:
            going_on.append(i)
    messages = encode(network, [observations[i] for i in going_on]) if going_on else []
    for i, ids in zip(going_on, messages, strict=True):
        transcripts[i].add_observation(ids)


def _reward(transcript: Transcript, reward: float, network: PolicyValueNetwork) -> None:
    """Put the reward of a turn on its last token, or where the steps of the score belong."""
    steps = transcript.info.pop("reward_steps", ())
    if steps:
        ids = transcript.ids[-transcript.num_turn_tokens :]
        placed = place_steps(steps, ids, functools.partial(decode, network))
        transcript.steps += [asdict(step) for step in steps]
    add_rewards(transcript.rewards, reward, placed if steps else ())


def _failure(reward: float, info: Mapping[str, Any]) -> str | None:
    status = str(info.get("status", "scored"))
    if status == "failed":  # `verifier_error` is "kind: what happened"
        return str(info.get("verifier_error", "")).partition(":")[0] or status
    if status == "abstained":
        return status
    return None if math.isfinite(reward) else "not_finite"


def _row(infos: Mapping[str, Any], i: int) -> dict[str, Any]:
    """Return sub-environment i's entries of a vector environment's infos, as JSON types."""
    row: dict[str, Any] = {}
    for key in INFO_KEYS:
        if key in infos and bool(infos.get(f"_{key}", [True] * (i + 1))[i]):
            row[key] = _plain(infos[key], i)
    return row


def _plain(value: Any, i: int) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v, i) for k, v in value.items() if not k.startswith("_")}
    item = value[i]
    item = item.item() if hasattr(item, "item") else item
    return None if isinstance(item, float) and not math.isfinite(item) else item
