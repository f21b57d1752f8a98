"""Collect episodes from a text-mode vector environment: token in, token out.

An observation is encoded once, when it arrives. A completion is decoded for the environment and
never encoded again: the ids that are trained on are the ids that were sampled. An episode of
several turns is one sequence, in which the environment's messages are masked out.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from textgym.errors import ConfigError, TextGymError
from textgym.prompt import Prompt
from textgym.sample import Completion
from textgym_agents.core.buffer import Episode
from textgym_agents.lm.clock import Clock
from textgym_agents.lm.config import EnvConfig, RolloutConfig
from textgym_agents.lm.engine import Generation, GenerationEngine
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.step_rewards import add_rewards, place_steps

INFO_KEYS = (
    "prompt_id", "finish_reason", "is_success", "score", "reward_parts", "status", "label",
    "reason", "extracted", "verifier_error", "reward_steps", "answer",
)  # fmt: skip


def make_envs(config: EnvConfig, num_envs: int, **kwargs: Any) -> VectorEnv[Any, Any, Any]:
    """Make the text-mode vector environment of a configuration; it is reset by the caller alone."""
    env_id, spec = _find_spec(config.id)
    settings = {**config.kwargs, **kwargs, "action_mode": "text"}
    settings |= {k: v for k in ("prompts", "reward") if (v := getattr(config, k)) is not None}
    if spec.vector_entry_point is not None:
        settings["autoreset_mode"] = "disabled"
    else:
        settings["vectorization_mode"] = "sync"
        settings["vector_kwargs"] = {"autoreset_mode": AutoresetMode.DISABLED}
    try:
        return gymnasium.make_vec(env_id, num_envs, **settings)
    except (TypeError, gymnasium.error.Error) as error:  # it does not take these arguments
        raise ConfigError(
            f"env.id: '{config.id}' cannot be made as a text environment (action_mode='text'): "
            f"{error}"
        ) from error


def _find_spec(full_id: str) -> tuple[str, EnvSpec]:
    module, _, env_id = full_id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        return env_id, gymnasium.spec(env_id)
    except (ImportError, gymnasium.error.Error) as error:
        raise ConfigError(f"env.id: cannot find '{full_id}': {error}") from error


@dataclass
class Transcript:
    """One episode while it is being written."""

    prompt: str
    ids: list[int]
    """Prompt, sampled tokens and the environment's messages."""
    info: dict[str, Any] = field(default_factory=dict)
    task: Prompt | None = None
    """What the rewards know of the prompt, where the environment says."""
    is_action: list[bool] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    completions: list[str] = field(default_factory=list)
    num_turn_tokens: int = 0
    """Tokens of the newest completion, the last ones of `ids` until the environment answers."""
    steps: list[dict[str, Any]] = field(default_factory=list)
    """What the steps of the completions earned, where the rewards say so."""
    finish_reason: str = ""
    terminated: bool = False
    truncated: bool = False
    failure: str | None = None
    """Why the episode cannot be trained on, the kind of a failed score for one; None if it can."""
    group: int | None = None
    """Number of the prompt within the rollout, where several samples of it are compared."""
    is_dropped: bool = False
    """Nobody learns from its group, whose scores are all equal."""
    is_selected: bool = True
    """Whether the policy learns from it; if not, it may count in the statistics of its group."""
    length_penalty: float = 0.0
    """What its length takes off the score, 0 or less."""
    policy_version: int | None = None
    """Updates that the policy had seen that sampled it; None before the first token."""

    def __post_init__(self) -> None:
        self._append(self.ids, is_action=False)

    @property
    def is_live(self) -> bool:
        """Whether the policy is to act."""
        return not (self.terminated or self.truncated or self.failure)

    @property
    def is_cut(self) -> bool:
        """Whether a limit ended the episode and not the policy or the task."""
        return self.truncated or self.finish_reason == "length"

    @property
    def score(self) -> float:
        """What the rewards gave in all; nan where they could not judge."""
        return math.nan if self.failure is not None else sum(self.rewards)

    @property
    def domain(self) -> str:
        """What the prompt is of, for statistics by domain: its task, or its reward's name."""
        if self.task is None:
            return ""
        return str(self.task.metadata.get("task") or self.task.reward or "")

    def add_generation(self, generation: Generation) -> None:
        """Append the tokens of one turn.

        Raises:
            TextGymError: the engine did not say the log-probability of each token; 0 would pass for
                certainty.
        """
        if len(generation.logprobs) != len(generation.token_ids):
            raise TextGymError(
                f"the engine returned {len(generation.token_ids)} tokens, but log-probabilities "
                f"of {len(generation.logprobs)}; it must return one for each"
            )
        self.ids.extend(generation.token_ids)
        self._append(generation.token_ids, is_action=True)
        self.logprobs[len(self.logprobs) - len(generation.logprobs) :] = generation.logprobs
        self.finish_reason = generation.finish_reason
        self.policy_version = generation.policy_version
        self.num_turn_tokens = len(generation.token_ids)

    def add_observation(self, ids: Sequence[int]) -> None:
        """Append a message of the environment."""
        self.ids.extend(ids)
        self._append(ids, is_action=False)

    def _append(self, ids: Sequence[int], *, is_action: bool) -> None:
        self.is_action.extend([is_action] * len(ids))
        self.logprobs.extend([0.0] * len(ids))
        self.rewards.extend([0.0] * len(ids))

    def episode(self, *, terminal_reward: float | None = None) -> Episode:
        """Return the episode as tensors.

        Args:
            terminal_reward: in place of all rewards, on the last action.
        """
        rewards, mask = torch.tensor(self.rewards), torch.tensor(self.is_action)
        if terminal_reward is not None:
            rewards = torch.zeros_like(rewards)
        last = terminal_reward if terminal_reward is not None else self.length_penalty
        if last:
            rewards[mask.nonzero()[-1]] += last
        return Episode(
            input_ids=torch.tensor(self.ids),
            action_mask=mask,
            rewards=rewards,
            terminated=self.terminated,
            truncated=self.truncated,
            engine_logprobs=torch.tensor(self.logprobs),
            teaches_policy=self.is_selected,
        )

    def record(self) -> dict[str, Any]:
        """Return the episode for rollouts/*.jsonl; `textgym score` can score it again."""
        total = None if self.failure else sum(self.rewards)
        return {
            "prompt": self.prompt,
            "completion": "".join(self.completions),
            "turns": len(self.completions),
            "reward": total,
            "num_tokens": sum(self.is_action),
            "failure": self.failure,
            **self._group_record(),
            "policy_version": self.policy_version,
            **self.info,
            **({"reward_steps": self.steps} if self.steps else {}),
            **self._task_record(),
        }

    def _group_record(self) -> dict[str, Any]:
        shaped = {"length_penalty": self.length_penalty} if self.length_penalty else {}
        if self.group is None:
            return shaped
        is_selected = self.is_selected and not self.is_dropped and self.failure is None
        return {"group": self.group, "is_selected": is_selected, **shaped}

    def _task_record(self) -> dict[str, Any]:
        if self.task is None:
            return {}
        known = {"id", "reward"}  # `prompt_id` of the info; what it was rewarded with
        return self.task.model_dump(mode="json", exclude_defaults=True, exclude=known)


class Rollout(NamedTuple):
    """What one pass through the environments gave."""

    transcripts: list[Transcript]
    """The samples of a prompt one after another; those of dropped groups are among them."""
    group_size: int = 1
    """Samples of each prompt."""

    def scored(self) -> list[Transcript]:
        """Return the episodes that have a reward."""
        return [t for t in self.transcripts if t.failure is None]

    def metrics(self) -> dict[str, float]:
        """Return the statistics of section `rollout/`; rewards over scored episodes only."""
        scored = self.scored()
        rewards = torch.tensor([sum(t.rewards) for t in scored], dtype=torch.float64)
        lengths = torch.tensor([sum(t.is_action) for t in scored], dtype=torch.float64)
        cut = [t.is_cut for t in scored]
        failures = Counter(t.failure for t in self.transcripts if t.failure is not None)
        n = max(len(scored), 1)
        return {
            "rollout/reward": _mean(rewards),
            "rollout/reward_std": float(rewards.std(correction=0)) if len(scored) else math.nan,
            "rollout/success": _mean_success(scored),
            "rollout/length": _mean(lengths),
            "rollout/cut_share": sum(cut) / n,
            "rollout/stop_share": sum(t.finish_reason == "stop" for t in scored) / n,
            "rollout/num_scored": float(len(scored)),
            "rollout/num_failed": float(failures.total()),
            **{f"rollout/failed/{kind}": float(count) for kind, count in failures.items()},
        }


def _mean(x: torch.Tensor) -> float:
    return float(x.mean()) if len(x) else math.nan


def _mean_success(transcripts: Sequence[Transcript]) -> float:
    known = [t.info["is_success"] for t in transcripts if "is_success" in t.info]
    return sum(known) / len(known) if known else math.nan


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


def encode(network: PolicyValueNetwork, texts: Sequence[str]) -> list[list[int]]:
    """Return token ids of rendered text; special tokens are those that the text spells out."""
    ids: list[list[int]] = network.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return ids


def decode(network: PolicyValueNetwork, ids: Sequence[int]) -> str:
    """Return the text of ids as a reward sees it."""
    return str(network.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def completion_text(network: PolicyValueNetwork, generation: Generation) -> str:
    """Return the text of a completion without the token that ended it."""
    ids = generation.token_ids
    return decode(network, ids[:-1] if generation.finish_reason == "stop" else ids)


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
