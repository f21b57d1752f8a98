"""What a rewritten query is worth: the score of the answer that a downstream generator gives to it.

The prompt's rewards score that answer as if the policy had written it. With `improvement` the score
of the answer to the prompt's own query is taken off, so a rewrite earns what it adds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from textgym import Prompt, Rubric, Sample, Score, Scorer
from textgym_envs.config import TextGenConfig
from textgym_envs.downstream import Answer, Downstream
from textgym_envs.judging import Attempt, Judge, Outcome
from textgym_envs.world import TextGenWorld

REWRITTEN, ORIGINAL = "rewritten_query", "original_query"
"""The parts of the score: what the answers to the two queries are worth."""
_THOUGHT_END = "</think>"


class QueryRewriteConfig(TextGenConfig):
    """Arguments of `gym.make("QueryRewrite-v0", ...)`: those of TextGen-v0 and these."""

    env_id: ClassVar[str] = "QueryRewrite-v0"

    action_mode: Literal["token", "text"] = "text"
    """`text`: one query per step. `token`: one token id of it per step."""
    downstream: Downstream
    """Who answers: `{"kind": "endpoint", "url": ..., "model": ...}` or `{"kind": "function",
    "function": "module:function"}`."""
    improvement: bool = False
    """Take the score of the answer to the original query off, and clip to -1 to 1."""
    penalty: float = Field(default=0.2, ge=0, allow_inf_nan=False)
    """What an empty, cut-off or overlong rewrite costs; nobody is asked to answer it."""
    max_query_characters: PositiveInt | None = None
    """Length from which a rewrite is overlong; None sets no limit beside that of the tokens."""


@dataclass(frozen=True, slots=True)
class RewriteOutcome(Outcome):
    """The outcome of a rewritten query."""

    answer: str = ""
    """The downstream answer; empty where there is none."""


class RewriteJudge(Judge):
    """Has rewritten queries answered, and scores the answers.

    The answer to a prompt's own query is asked for once per process, unless that fails.
    """

    def __init__(self, rubric: Rubric, scorer: Scorer, config: QueryRewriteConfig) -> None:
        super().__init__(rubric, scorer, score_length_cut=config.score_length_cut)
        self._config = config
        self._originals: dict[tuple[str, str], Score] = {}
        added = (REWRITTEN, ORIGINAL) if config.improvement else (REWRITTEN,)
        self.part_names = (*rubric.part_names, *added)

    def is_dense(self, prompts: Iterable[Prompt]) -> bool:
        """Return False: an unfinished query has no answer."""
        return False

    def judge(self, attempts: Sequence[Attempt]) -> list[Outcome]:
        """Return one outcome per attempt; all that are to be answered are, in one batch."""
        refused = {i: why for i, each in enumerate(attempts) if (why := self._why_refused(each))}
        asked = [each for i, each in enumerate(attempts) if i not in refused]
        new = self._new_originals(asked)
        prompts = [*(each.prompt for each in asked), *new.values()]
        queries = [*map(query_of, asked), *(prompt.text for prompt in new.values())]
        answers = self._config.downstream.answer(queries) if queries else []
        scores = self._score(prompts, answers)
        self._originals |= dict(zip(new, scores[len(asked) :], strict=True))
        answered = zip(answers, scores, strict=True)
        outcomes: list[Outcome] = [
            self._refusal(each, refused[i]) if i in refused else self._result(each, *next(answered))
            for i, each in enumerate(attempts)
        ]
        for key in new:
            if self._originals[key].status == "failed":
                del self._originals[key]
        return outcomes

    def _why_refused(self, attempt: Attempt) -> str:
        """Return why nobody is asked to answer a query; empty where somebody is."""
        longest = self._config.max_query_characters
        query = query_of(attempt)
        if not self.is_scored(attempt.finish_reason):
            return "the query was cut off before its end token"
        if not query:
            return "the query is empty"
        if longest is not None and len(query) > longest:
            return f"the query has {len(query)} characters; max_query_characters is {longest}"
        return ""

    def _new_originals(self, attempts: Iterable[Attempt]) -> dict[tuple[str, str], Prompt]:
        """Return the prompts whose own queries were not answered yet."""
        if not self._config.improvement:
            return {}
        prompts = {_key(each.prompt): each.prompt for each in attempts}
        return {key: prompt for key, prompt in prompts.items() if key not in self._originals}

    def _score(self, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> list[Score]:
        samples = [
            Sample(prompt, answer)
            for prompt, answer in zip(prompts, answers, strict=True)
            if isinstance(answer, str)
        ]
        scores = iter(self._scorer.score_batch(samples) if samples else ())
        return [next(scores) if isinstance(answer, str) else answer for answer in answers]

    def _refusal(self, attempt: Attempt, why: str) -> RewriteOutcome:
        if attempt.finish_reason == "abort":
            (outcome,) = super().judge([attempt])
            return _with_answer(outcome, "")
        parts = {name: Score(0.0) for name in self.part_names}  # as of any completion that is cut
        score = Score(-self._config.penalty, label="invalid", reason=why, parts=parts)
        outcome = replace(self._outcome(attempt, score), is_success=False, is_repeatable=True)
        return _with_answer(outcome, "")

    def _result(self, attempt: Attempt, answer: Answer, score: Score) -> RewriteOutcome:
        raw = self._outcome(attempt, score)  # success is that of the answer, whatever it adds
        parts = {**score.parts, REWRITTEN: score}
        final = score
        if self._config.improvement:
            parts[ORIGINAL] = original = self._originals[_key(attempt.prompt)]
            final = _difference(score, original)
        outcome = self._outcome(attempt, replace(final, parts=parts, steps=()))
        is_success = raw.is_success and final.is_scored
        outcome = replace(outcome, is_success=is_success, is_repeatable=False)
        return _with_answer(outcome, answer if isinstance(answer, str) else "")


class RewriteWorld(TextGenWorld):
    """What the QueryRewrite environments of one configuration share."""

    config: QueryRewriteConfig

    def _make_judge(self, rubric: Rubric, scorer: Scorer) -> Judge:
        return RewriteJudge(rubric, scorer, self.config)


def query_of(attempt: Attempt) -> str:
    """Return the query of a completion: what follows the thought, nothing while it is open."""
    _, end, after = attempt.completion.rpartition(_THOUGHT_END)
    is_open = not end and "<think>" in attempt.completion
    return "" if is_open else after.strip()


def _key(prompt: Prompt) -> tuple[str, str]:
    return prompt.id, prompt.text


def _difference(rewritten: Score, original: Score) -> Score:
    """Return what a rewrite adds, -1 to 1, or the score that is none."""
    if not rewritten.is_scored:
        return rewritten
    if not original.is_scored:
        return replace(original, reason=f"original query: {original.reason}")
    value = min(1.0, max(-1.0, rewritten.value - original.value))
    reason = f"{rewritten.value:g} against {original.value:g}; {rewritten.reason}"
    return replace(rewritten, value=value, reason=reason)


def _with_answer(outcome: Outcome, answer: str) -> RewriteOutcome:
    values = {field.name: getattr(outcome, field.name) for field in fields(Outcome)}
    return RewriteOutcome(**values, answer=answer)
