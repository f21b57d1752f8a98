"""From completions to outcomes: what is scored, what the reward of a step is, what info says.

The one place that decides this for the scalar and the vector environment and for both action
modes. The rewards themselves run behind `textgym.Scorer`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from textgym import Message, Prompt, Rubric, Sample, Score, Scorer, Step, WeightedReward
from textgym.errors import UnknownRewardError
from textgym.rubric import success_value
from textgym.sample import FinishReason

TEXT_KEYS = (
    "completion", "finish_reason", "status", "label", "reason", "extracted", "verifier_error",
)  # fmt: skip
"""The keys of the final info whose values are text, in the order of `Outcome.texts`."""


class Attempt(NamedTuple):
    """One finished completion."""

    prompt: Prompt
    completion: str
    token_ids: tuple[int, ...] | None
    finish_reason: FinishReason
    num_tokens: int
    turns: tuple[Message, ...] = ()
    """The dialogue after the prompt, in environments that have one."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attempt: the reward of the step and what its info says."""

    reward: float
    """The score, or 0.0 where there is none."""
    score: float
    """nan where the attempt was not scored."""
    is_success: bool
    """Whether the rewards call the score a success; see `Judge.knows_success`."""
    num_tokens: int
    texts: tuple[str, ...]
    """The values of `TEXT_KEYS`."""
    parts: tuple[float, ...]
    """One value per component of the rubric; nan where a component gave none."""
    is_repeatable: bool
    """Whether the same completion of the same prompt will have this outcome again."""
    steps: tuple[Step, ...] = ()
    """Where in the completion the reward was earned, where the rewards say so."""

    def named_texts(self) -> dict[str, str]:
        """Return the values of `TEXT_KEYS` by key."""
        return dict(zip(TEXT_KEYS, self.texts, strict=True))

    def info(
        self, part_names: Sequence[str], num_prompt_tokens: int, *, knows_success: bool = True
    ) -> dict[str, Any]:
        """Return the final info, sharing nothing with any other."""
        info: dict[str, Any] = dict(zip(TEXT_KEYS, self.texts, strict=False))
        if knows_success:
            info["is_success"] = self.is_success
        info["score"] = self.score
        info["reward_parts"] = dict(zip(part_names, self.parts, strict=True))
        info["n_prompt_tokens"] = num_prompt_tokens
        info["n_completion_tokens"] = self.num_tokens
        return info


class _Route(NamedTuple):
    """What the rewards of a prompt declare."""

    components: tuple[WeightedReward, ...] | None
    """None where nothing scores it."""
    is_deterministic: bool
    is_dense: bool
    cut_off: Score
    """The score of a completion that is cut off."""


class Judge:
    """Scores attempts with a rubric; failures become outcomes, never exceptions."""

    def __init__(self, rubric: Rubric, scorer: Scorer, *, score_length_cut: bool) -> None:
        self.rubric = rubric
        self._scorer = scorer
        self._score_length_cut = score_length_cut
        self._routes: dict[str | None, _Route] = {}
        self.part_names = rubric.part_names
        """The keys of `reward_parts`; none where each prompt names its own reward."""

    def is_scored(self, finish_reason: FinishReason) -> bool:
        """Return whether the reward is asked about a completion that ended in this way."""
        return finish_reason != "abort" and (finish_reason != "length" or self._score_length_cut)

    def check(self, prompt: Prompt) -> None:
        """Raise where no reward would score a prompt."""
        self._scorer.check_routes([prompt])

    def knows_success(self, prompt: Prompt) -> bool:
        """Return whether the rewards of a prompt tell success from failure.

        A plain function, or a reward model, does not: then nothing is said of success.
        """
        return math.isfinite(self._success_value(prompt))

    def is_dense(self, prompts: Iterable[Prompt]) -> bool:
        """Return whether rewards give values to steps of the completions of these prompts."""
        if self.part_names:
            return self.rubric.dense
        return any(self._route(prompt).is_dense for prompt in prompts)

    def prefix_values(self, attempts: Sequence[Attempt]) -> list[float]:
        """Return the value of each completion as far as it goes; 0.0 where it has none.

        The rewards of steps are differences of these values, so they sum up to the last one
        whatever a prefix was worth.
        """
        samples = [Sample(a.prompt, a.completion, a.token_ids, "length") for a in attempts]
        scores = self._scorer.score_batch(samples)
        return [score.value if score.is_scored else 0.0 for score in scores]

    def judge(self, attempts: Sequence[Attempt]) -> list[Outcome]:
        """Return one outcome per attempt, scoring all that are to be scored in one batch."""
        samples = [
            Sample(a.prompt, a.completion, a.token_ids, a.finish_reason, a.turns)
            for a in attempts
            if self.is_scored(a.finish_reason)
        ]
        scores = iter(self._scorer.score_batch(samples) if samples else ())
        return [
            self._outcome(a, next(scores)) if self.is_scored(a.finish_reason) else self._unasked(a)
            for a in attempts
        ]

    def failure(self, attempt: Attempt, score: Score) -> Outcome:
        """Return the outcome of an attempt that failed before it could be scored."""
        return self._outcome(attempt, score)

    def _unasked(self, attempt: Attempt) -> Outcome:
        """Return the outcome of an attempt that no reward is asked about."""
        if attempt.finish_reason == "abort":
            return self._outcome(attempt, _ABORTED)
        score = self._route(attempt.prompt).cut_off
        outcome = self._outcome(attempt, score)
        return replace(outcome, is_success=False, is_repeatable=score.is_scored)

    def _outcome(self, attempt: Attempt, score: Score) -> Outcome:
        route, needed = self._route(attempt.prompt), self._success_value(attempt.prompt)
        is_scored = score.status == "scored"
        return Outcome(
            reward=float(score.value) if is_scored else 0.0,
            score=float(score.value),
            is_success=is_scored and bool(score.value >= needed),
            num_tokens=attempt.num_tokens,
            texts=(
                str(attempt.completion),
                attempt.finish_reason,
                score.status,
                score.label or "",
                score.reason,
                score.extracted or "",
                f"{score.kind}: {score.reason}" if score.kind else "",
            ),
            parts=tuple([self._part(score, name) for name in self.part_names]),
            is_repeatable=route.is_deterministic and score.status != "failed",
            steps=score.steps,
        )

    def _route(self, prompt: Prompt) -> _Route:
        route = self._routes.get(prompt.reward)
        if route is None:
            route = self._routes[prompt.reward] = _declared(self._scorer, prompt)
        return route

    def _success_value(self, prompt: Prompt) -> float:
        components = self._route(prompt).components
        return math.inf if components is None else success_value(components, prompt)

    def _part(self, score: Score, name: str) -> float:
        part = score.parts.get(name)
        return math.nan if part is None else float(part.value)


_ABORTED = Score.failed("unavailable", "the generation was aborted")


def _declared(scorer: Scorer, prompt: Prompt) -> _Route:
    cut_off = scorer.cut_off(prompt)
    try:
        components = scorer.components(prompt)
    except UnknownRewardError:  # the scorer fails these samples and says why
        return _Route(None, is_deterministic=False, is_dense=False, cut_off=cut_off)
    rubric = Rubric(rewards=components)
    return _Route(components, rubric.deterministic, rubric.dense, cut_off)
