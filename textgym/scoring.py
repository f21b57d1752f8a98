"""Score samples with a rubric: route each, evaluate gates and rewards in batches, combine.

Every reward is called through its own `Boundary`, so an inline component never waits for a worker
of another, and a crash is blamed on the reward whose worker it was.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from textgym.boundary import Boundary
from textgym.errors import TextGymError, UnknownRewardError
from textgym.make import RubricSpec, make_reward, make_rubric
from textgym.prompt import Prompt
from textgym.reward import Reward
from textgym.rubric import Rubric, WeightedReward, success_value, value_range
from textgym.sample import Sample
from textgym.score import Score

if TYPE_CHECKING:
    from textgym.score_cache import ScoreCache

Components = tuple[WeightedReward, ...]


class Scorer:
    """Turns samples into scores; whatever a reward does, nothing raises and nothing hangs.

    Args:
        rubric: a rubric, a reward, or whatever else `make_rubric` takes.
        num_workers: worker processes of each reward that needs isolation. They start when first
            needed.
        cache: keeps the scores of deterministic rewards; a path is opened as a `ScoreCache`.
    """

    def __init__(
        self,
        rubric: RubricSpec,
        *,
        num_workers: int = 1,
        cache: ScoreCache | str | os.PathLike[str] | None = None,
    ) -> None:
        self.rubric: Rubric = make_rubric(rubric)
        self.cache: ScoreCache | None = _open_cache(cache)
        """The cache with its counts of hits and misses; None scores every sample afresh."""
        self.counts: Counter[str] = Counter()
        """Samples so far by outcome: `scored`, `abstained`, and `failed/KIND`."""
        self._num_workers = num_workers
        self._boundaries: dict[int, tuple[Reward, Boundary]] = {}
        self._named: dict[str, Components] = {}

    def score_batch(self, samples: Sequence[Sample]) -> list[Score]:
        """Return one score per sample, in order, each with its components in `parts`."""
        scores: list[Score] = [_UNROUTED] * len(samples)
        routes: dict[int, tuple[Components, list[int]]] = {}
        for index, sample in enumerate(samples):
            try:
                components = self.components(sample.prompt)
            except TextGymError as error:
                scores[index] = Score.failed("unavailable", str(error))
            else:
                routes.setdefault(id(components), (components, []))[1].append(index)
        for components, indices in routes.values():
            routed = self._score_route(components, [samples[i] for i in indices])
            for index, score in zip(indices, routed, strict=True):
                scores[index] = score
        for score in scores:
            self.counts[score.status if score.kind is None else f"failed/{score.kind}"] += 1
        return scores

    def check_routes(self, prompts: Iterable[Prompt]) -> None:
        """See that there is a reward for every prompt, before any of them is used.

        Raises:
            UnknownRewardError: a prompt names a reward that does not exist, or names none where
                the rubric has none of its own.
        """
        seen: set[str | None] = set()
        for prompt in prompts:
            if prompt.reward not in seen:
                seen.add(prompt.reward)
                self.components(prompt)

    def is_success(self, prompt: Prompt, score: Score) -> bool | None:
        """Return whether a score of `score_batch` is a success.

        None where the prompt has no score, or no reward tells success from failure.
        """
        if not score.is_scored:
            return None
        needed = success_value(self.components(prompt), prompt)
        return bool(score.value >= needed) if math.isfinite(needed) else None

    def cut_off(self, prompt: Prompt) -> Score:
        """Return the score of a completion that was cut off, without asking any reward.

        It is the lowest value that its rewards can give, so no answer is worth less than none; 0.0
        where that is positive or, as for a plain function, not known. It is never a success. Where
        nothing scores the prompt it fails, as in `score_batch`.
        """
        try:
            components = self.components(prompt)
        except TextGymError as error:
            return Score.failed("unavailable", str(error))
        parts = {each.name: Score(_at_most_0(each.worst), reason=_CUT_OFF) for each in components}
        return Score(_at_most_0(value_range(components)[0]), reason=_CUT_OFF, parts=parts)

    def close(self) -> None:
        """End the workers and close the cache; both are started again when needed."""
        for _, boundary in self._boundaries.values():
            boundary.close()
        if self.cache is not None:
            self.cache.close()

    def __enter__(self) -> Scorer:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        return _make_scorer, (self.rubric, self._num_workers, self.cache)

    def components(self, prompt: Prompt) -> Components:
        """Return what scores a prompt.

        Raises:
            UnknownRewardError: nothing does: the rubric has no reward for it, and it names none
                that can be made.
        """
        components = self.rubric.route(prompt)
        if components is not None:
            return components
        if prompt.reward is None:
            raise UnknownRewardError(
                f"the prompt '{prompt.id}' names no reward and the rubric has none of its own; "
                "set 'reward' in the prompt or name a default"
            )
        return self._named.get(prompt.reward) or self._make_named(prompt.reward, prompt)

    def _make_named(self, name: str, prompt: Prompt) -> Components:
        if ":" in name:
            raise UnknownRewardError(
                f"the prompt '{prompt.id}' names the function '{name}' as its reward; prompts are "
                "data and may only name installed rewards. Put the function into the rubric"
            )
        try:
            reward = make_reward(name)
        except TextGymError as error:
            raise UnknownRewardError(f"the prompt '{prompt.id}': {error}") from error
        self._named[name] = (WeightedReward(reward=reward),)
        return self._named[name]

    def _score_route(self, components: Components, samples: list[Sample]) -> list[Score]:
        if len(components) == 1 and components[0].gate is None and components[0].weight == 1.0:
            name = components[0].name
            return [_wrap(name, s) for s in self._score_component(components[0], samples)]
        parts: list[dict[str, Score]] = [{} for _ in samples]
        open_indices = list(range(len(samples)))
        for component in components:
            scored = [samples[i] for i in open_indices]
            scores = self._score_component(component, scored) if scored else []
            for index, score in zip(open_indices, scores, strict=True):
                parts[index][component.name] = score
            if component.gate is not None:
                threshold = component.gate.threshold
                open_indices = [
                    i for i, s in zip(open_indices, scores, strict=True) if s.value >= threshold
                ]
        return [_combine(components, each) for each in parts]

    def _score_component(self, component: WeightedReward, samples: list[Sample]) -> list[Score]:
        boundary = self._boundary(component)
        if self.cache is None:
            return boundary.score_batch(samples)
        return self.cache.score_batch(component.reward, samples, boundary.score_batch)

    def _boundary(self, component: WeightedReward) -> Boundary:
        reward = component.reward
        found = self._boundaries.get(id(reward))
        if found is None:  # the reward is kept too: an id names it only while it lives
            found = reward, Boundary(reward, num_workers=self._num_workers)
            self._boundaries[id(reward)] = found
        return found[1]


_UNROUTED = Score.failed("unavailable", "not scored")
_CUT_OFF = "the completion was cut off before its end token"


def _at_most_0(value: float) -> float:
    return min(value, 0.0) if math.isfinite(value) else 0.0


def _make_scorer(rubric: Rubric, num_workers: int, cache: ScoreCache | None) -> Scorer:
    return Scorer(rubric, num_workers=num_workers, cache=cache)


def _open_cache(cache: ScoreCache | str | os.PathLike[str] | None) -> ScoreCache | None:
    if isinstance(cache, str | os.PathLike):
        from textgym.score_cache import ScoreCache  # SQLite, for those who use it

        return ScoreCache(cache)
    return cache


def _wrap(name: str, score: Score) -> Score:
    return Score(
        score.value, score.status, score.label, score.reason, score.extracted, score.seconds,
        score.kind, {name: score}, score.steps,
    )  # fmt: skip


def _combine(components: Components, parts: dict[str, Score]) -> Score:
    """Return the score of a sample from the components that were evaluated for it."""
    seconds = sum(part.seconds for part in parts.values())
    counted = [(c, parts[c.name]) for c in components if c.counts and c.name in parts]
    for status in ("failed", "abstained"):
        for _, part in counted:
            if part.status == status:
                return Score(
                    math.nan, part.status, reason=part.reason, seconds=seconds, kind=part.kind,
                    parts=parts,
                )  # fmt: skip
    for component, part in counted:
        if component.gate is not None and part.value < component.gate.threshold:
            reason = f"'{component.name}' is {part.value:g}, below {component.gate.threshold:g}"
            reason = f"{reason}: {part.reason}" if part.reason else reason
            value = component.gate.otherwise
            return Score(value, reason=reason, seconds=seconds, parts=parts)
    weighted = [(c.weight, part) for c, part in counted if c.weight]
    value = sum((weight * part.value for weight, part in weighted), 0.0)
    if not math.isfinite(value):
        reason = f"the weighted sum of the rewards is {value}; lower their weights"
        return Score(math.nan, "failed", None, reason, None, seconds, "not_finite", parts)
    judges = [part for _, part in weighted]
    are_dense = any(part.steps for part in judges)
    return Score(
        value,
        label=next((part.label for part in judges if part.label is not None), None),
        reason="; ".join(part.reason for part in judges if part.reason),
        extracted=next((part.extracted for part in judges if part.extracted is not None), None),
        seconds=seconds,
        parts=parts,
        steps=sum((part.weighted_steps(weight) for weight, part in weighted if are_dense), ()),
    )
