"""The reward `judge`: a rubric, a model that applies it, and honesty about when it did not.

Nothing that goes wrong becomes a number. A judge that cannot be reached fails the sample; a judge
that answers without a readable verdict abstains. It runs in the caller's process (`inline`): what
can hang here is the network, and every request has its own deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import ClassVar, TypeVar

from pydantic import Field

from textgym import Reward, Sample, Score
from textgym.background_loop import background_loop
from textgym.chat_endpoint import CHAT_PATH, ChatReply, read_reply
from textgym.http_calls import CallError
from textgym.reward import Isolation
from textgym_plugins.judge.endpoint import Endpoint, Usage
from textgym_plugins.judge.instructions import (
    DEFAULT_RUBRIC,
    Absolute,
    Labels,
    Mode,
    Pairwise,
    Question,
    absolute_schema,
    as_text,
    ask_absolute,
    ask_labels,
    ask_pairwise,
    labels_schema,
    pairwise_schema,
)
from textgym_plugins.judge.verdict import (
    UnreadableError,
    Verdict,
    read_choice,
    read_label,
    read_number,
    read_verdict,
)
from textgym_plugins.rules.text import Part, part_of

T = TypeVar("T")

_PURPOSE = "the reward 'judge'"
_VALUES = {"A": 1.0, "tie": 0.5, "B": 0.0}
_LABELS = {1.0: "win", 0.75: "win", 0.5: "tie", 0.25: "loss", 0.0: "loss"}
_USAGE: dict[str, Usage] = {}
"""By configuration: a frozen reward keeps nothing itself."""


class _AbstainError(Exception):
    """The judge gave no verdict on this sample."""


class JudgeReward(Reward):
    """How good another model finds the completion."""

    name: ClassVar[str] = "judge"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    deterministic: ClassVar[bool] = False
    isolation: ClassVar[Isolation] = "inline"
    time_limit: ClassVar[float] = 600.0  # what a check waits for; requests have their own

    endpoint: Endpoint
    """The judge."""
    rubric: str = Field(default=DEFAULT_RUBRIC, min_length=1)
    """What the judge goes by, in words."""
    mode: Mode = Absolute()
    """One answer on a scale, one against another, or one under a label."""
    part: Part = "answer"
    """What is judged: the answer after the thinking, or the whole completion."""
    max_characters: int = Field(default=50_000, ge=100)
    """Of each text that the judge sees; the middle of a longer one is left out, and it is told."""
    answer_retries: int = Field(default=1, ge=0, le=10)
    """How often the judge is asked again after an answer without a readable verdict."""
    checks_code: bool = True
    """Whether a verdict must repeat the code of its request, which a completion cannot know. Turn
    it off only for a judge that cannot copy eight characters."""

    def score(self, sample: Sample) -> Score:
        """Return the judge's score of one sample."""
        [score] = self.score_batch([sample])
        return score

    def score_batch(self, samples: Sequence[Sample]) -> list[Score]:
        """Return the judge's scores; as many requests run at once as the endpoint allows."""
        return background_loop().run(self._score_all(samples))

    @property
    def usage(self) -> Usage:
        """What judging with this configuration has taken so far in this process."""
        return _USAGE.get(self.model_dump_json(), Usage())

    async def _score_all(self, samples: Sequence[Sample]) -> list[Score]:
        scores = await asyncio.gather(*(self._score(sample) for sample in samples))
        key = self.model_dump_json()
        counts = self.endpoint.caller(_PURPOSE).counts
        _USAGE[key] = _USAGE.get(key, Usage()).with_counts(counts)
        return scores

    async def _score(self, sample: Sample) -> Score:
        started = perf_counter()
        answer = part_of(sample.completion, self.part)
        try:
            if isinstance(self.mode, Absolute):
                score = await self._score_absolute(self.mode, sample, answer)
            elif isinstance(self.mode, Labels):
                score = await self._score_labels(self.mode, sample, answer)
            else:
                score = await self._score_pairwise(self.mode, sample, answer)
        except CallError as error:
            score = Score.failed(error.kind, str(error))
        except _AbstainError as error:
            score = Score.unscored(str(error))
        return replace(score, seconds=perf_counter() - started)

    async def _score_absolute(self, mode: Absolute, sample: Sample, answer: str) -> Score:
        question = ask_absolute(self.rubric, mode, sample, answer, limit=self.max_characters)

        def read(reply: str) -> tuple[float, Verdict]:
            verdict = self._verdict(reply, "score", question)
            return read_number(verdict.value, mode.low, mode.high), verdict

        number, verdict = await self._ask(question, absolute_schema(), read)
        value = (number - mode.low) / (mode.high - mode.low)
        return Score(value, reason=verdict.reason, extracted=f"{number:g}")

    async def _score_labels(self, mode: Labels, sample: Sample, answer: str) -> Score:
        question = ask_labels(self.rubric, mode, sample, answer, limit=self.max_characters)

        def read(reply: str) -> tuple[str, Verdict]:
            verdict = self._verdict(reply, "label", question)
            return read_label(verdict.value, mode.values), verdict

        label, verdict = await self._ask(question, labels_schema(mode), read)
        return Score(mode.values[label], label=label, reason=verdict.reason, extracted=label)

    async def _score_pairwise(self, mode: Pairwise, sample: Sample, answer: str) -> Score:
        if mode.opponent == "target":
            other, where = sample.prompt.target, "target"
        else:
            name = mode.baseline_field
            other, where = sample.prompt.metadata.get(name), f"metadata['{name}']"
        if other is None:
            raise _AbstainError(f"the prompt '{sample.prompt.id}' has no {where} to compare with")
        opponent = as_text(other)
        asked = [self._compare(sample, answer, opponent, is_first=True)]
        if mode.both_orders:
            asked.append(self._compare(sample, answer, opponent, is_first=False))
        # One order alone would carry the position bias that the other is there to cancel.
        results = await asyncio.gather(*asked, return_exceptions=True)
        scores: list[Score] = []
        for result in results:
            if isinstance(result, BaseException):
                raise result
            scores.append(result)
        return _mean(scores)

    async def _compare(
        self, sample: Sample, answer: str, opponent: str, *, is_first: bool
    ) -> Score:
        """Return 1.0 where the judge prefers the completion, shown first or second."""
        pair = (answer, opponent) if is_first else (opponent, answer)
        question = ask_pairwise(self.rubric, sample, *pair, limit=self.max_characters)

        def read(reply: str) -> tuple[str, Verdict]:
            verdict = self._verdict(reply, "verdict", question)
            return read_choice(verdict.value), verdict

        choice, verdict = await self._ask(question, pairwise_schema(), read)
        value = _VALUES[choice] if is_first else 1.0 - _VALUES[choice]
        return Score(value, label=_LABELS[value], reason=verdict.reason, extracted=choice)

    def _verdict(self, reply: str, name: str, question: Question) -> Verdict:
        return read_verdict(reply, name, code=question.code if self.checks_code else None)

    async def _ask(
        self, question: Question, schema: dict[str, object], read: Callable[[str], T]
    ) -> T:
        """Return what `read` makes of the judge's text, asked again where it can make nothing."""
        caller = self.endpoint.caller(_PURPOSE)
        request = self.endpoint.request(question.system, question.user, schema=schema)
        problem = ""
        for _ in range(1 + self.answer_retries):
            started = perf_counter()
            reply = await caller.post(CHAT_PATH, request, read_reply)
            self._count(reply, perf_counter() - started)
            try:
                return read(reply.text)
            except UnreadableError as error:
                problem = _why_unreadable(reply, error, self.endpoint.max_tokens)
        raise _AbstainError(f"the judge gave no verdict: {problem}")

    def _count(self, reply: ChatReply, seconds: float) -> None:
        key = self.model_dump_json()
        _USAGE[key] = _USAGE.get(key, Usage()).plus(reply, seconds, self.endpoint.prices)


def _why_unreadable(reply: ChatReply, error: UnreadableError, max_tokens: int) -> str:
    if reply.refusal:
        return f"it refused: {reply.refusal[:200]}"
    if reply.finish_reason == "content_filter":
        return "the endpoint's content filter stopped it"
    if reply.finish_reason == "length":
        return f"it was cut off after {max_tokens} tokens (endpoint.max_tokens)"
    return str(error)


def _mean(scores: Sequence[Score]) -> Score:
    """Return the mean of the verdicts of one or two orders, each kept in the parts."""
    values = [score.value for score in scores]
    value = sum(values) / len(values)
    label = "inconsistent" if max(values) - min(values) == 1.0 else _LABELS[value]
    parts = dict(zip(("shown_first", "shown_second"), scores, strict=False))
    reasons = dict.fromkeys(score.reason for score in scores if score.reason)
    extracted = " ".join(score.extracted or "" for score in scores)
    return Score(value, label=label, reason="; ".join(reasons), extracted=extracted, parts=parts)
