"""Episodes as they are written: one as a transcript, those of an iteration as a rollout."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from textgym.errors import TextGymError
from textgym.prompt import Prompt
from textgym_agents.core.buffer import Episode
from textgym_agents.lm.engine import Generation

if TYPE_CHECKING:
    from textgym_agents.lm.token_records import TokenMeasures


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
    measures: TokenMeasures | None = None
    """What the update knows of its tokens, where the episode is written down."""
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
            **{f"rollout/parts/{name}": value for name, value in _mean_parts(scored).items()},
            **_tool_metrics(scored),
        }


def _mean(x: torch.Tensor) -> float:
    return float(x.mean()) if len(x) else math.nan


def _mean_parts(transcripts: Sequence[Transcript]) -> dict[str, float]:
    """Return the mean of each component of the reward, over the episodes that have it."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    for transcript in transcripts:
        for name, value in transcript.info.get("reward_parts", {}).items():
            if value is not None and math.isfinite(value):  # None: another route scored it
                values[name].append(value)
    return {name: sum(each) / len(each) for name, each in values.items()}


def _tool_metrics(transcripts: Sequence[Transcript]) -> dict[str, float]:
    """Return the mean number of turns and calls, where the environment has tools."""
    known = [t for t in transcripts if "tool_calls" in t.info]
    if not known:
        return {}
    n = len(known)
    return {
        "rollout/turns": sum(len(t.completions) for t in known) / n,
        "rollout/tool_calls": sum(t.info["tool_calls"] for t in known) / n,
        "rollout/tool_errors": sum(t.info["tool_errors"] for t in known) / n,
    }


def _mean_success(transcripts: Sequence[Transcript]) -> float:
    known = [t.info["is_success"] for t in transcripts if "is_success" in t.info]
    return sum(known) / len(known) if known else math.nan
