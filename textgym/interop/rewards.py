"""A rubric, or any reward, as the function that another trainer calls.

What a function is given becomes prompts and samples; the scorer does the rest, so a reward that
raises, hangs or crashes is contained as it is in our own trainer. Where there is no score there is
no number: TRL is told `None`, which it leaves out; the others have no word for it, so they get an
error. It is never 0.0, which would train the policy on a failure.

Every function is a callable object that can be pickled, with the rubric's name as its `__name__`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from textgym.errors import ConfigError, PromptError, TextGymError
from textgym.make import RubricSpec
from textgym.prompt import Prompt
from textgym.sample import Sample
from textgym.score import Score
from textgym.scoring import Scorer

PROMPT_FIELDS = ("reward", "passages", "answerable", "metadata")


class NoScoreError(TextGymError):
    """A completion has no score, and the trainer that asked takes nothing but numbers."""


class _RewardFunction:
    """What all have in common.

    Args:
        rubric: what `make_rubric` takes: a rubric, a reward, its name, a function, a list of them.
        num_workers: worker processes of rewards that need isolation.
        name: what trainers log; None takes that of the rubric's rewards.
    """

    def __init__(
        self, rubric: RubricSpec, *, num_workers: int = 1, name: str | None = None
    ) -> None:
        self.scorer = Scorer(rubric, num_workers=num_workers)
        names = [component.name for component in self.scorer.rubric.rewards]
        self.__name__ = name or "_".join(names) or "rubric"

    def close(self) -> None:
        """End the worker processes."""
        self.scorer.close()

    def _numbers(self, samples: Sequence[Sample]) -> list[float]:
        """Return a number for each sample.

        Raises:
            NoScoreError: one has none.
        """
        scores = self.scorer.score_batch(samples)
        for sample, score in zip(samples, scores, strict=True):
            if not score.is_scored:
                raise NoScoreError(
                    f"'{self.__name__}' has no score for a completion of the prompt "
                    f"'{sample.prompt.id}': {score.status}: {score.reason}"
                )
        return [score.value for score in scores]


class TRLReward(_RewardFunction):
    """One of TRL's `reward_funcs`: called with columns, it returns a float or None per completion.

    Args:
        rubric: what `make_rubric` takes.
        target: the column of the data set that holds the targets; without it they are None.
        num_workers: worker processes of rewards that need isolation.
        name: what TRL logs the reward as.

    The columns `reward`, `passages`, `answerable` and `metadata` are those fields of the prompts;
    other columns are ignored.
    """

    def __init__(
        self,
        rubric: RubricSpec,
        *,
        target: str = "target",
        num_workers: int = 1,
        name: str | None = None,
    ) -> None:
        super().__init__(rubric, num_workers=num_workers, name=name)
        self.target = target

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        """Return the value of each completion, None where it has no score."""
        ids = columns.get("completion_ids")
        samples = [
            make_sample(
                prompt,
                completion,
                target=_cell(columns, self.target, i),
                token_ids=None if ids is None else tuple(ids[i]),
                **{name: _cell(columns, name, i) for name in PROMPT_FIELDS if name in columns},
            )
            for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
        ]
        return [_value(score) for score in self.scorer.score_batch(samples)]


class VerifiersReward(_RewardFunction):
    """A reward of verifiers: of a task and its trace, or of columns as before version 0.2.

    Args:
        rubric: what `make_rubric` takes.
        target: the field of the task's data that holds the target.
        num_workers: worker processes of rewards that need isolation.
        name: what verifiers logs the reward as.
    """

    def __init__(
        self,
        rubric: RubricSpec,
        *,
        target: str = "answer",
        num_workers: int = 1,
        name: str | None = None,
    ) -> None:
        super().__init__(rubric, num_workers=num_workers, name=name)
        self.target = target

    async def __call__(
        self,
        task: Any = None,
        trace: Any = None,
        prompt: Any = None,
        completion: Any = None,
        answer: Any = None,
    ) -> float:
        """Return the value of the trace's last reply, or of the completion.

        Raises:
            NoScoreError: it has none.
        """
        import asyncio

        if trace is not None:
            given = task.prompt if task.prompt is not None else ""
            target = getattr(task, self.target, None)
            sample = make_sample(_messages(given), trace.last_reply, target=target)
        else:
            sample = make_sample(prompt, completion, target=answer)
        (value,) = await asyncio.to_thread(self._numbers, [sample])
        return value


class VerlScore(_RewardFunction):
    """verl's `compute_score(data_source, solution_str, ground_truth, extra_info)`."""

    def __call__(
        self,
        data_source: str,
        solution_str: str,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None,
        **_: Any,  # verl hands on what its configuration holds
    ) -> float:
        """Return the value of a solution.

        Args:
            data_source: name of the data set; it names the prompt in messages of errors.
            solution_str: the completion.
            ground_truth: the target.
            extra_info: `question`, where the reward reads the prompt.

        Raises:
            NoScoreError: it has none.
        """
        prompt = str((extra_info or {}).get("question") or data_source)
        (value,) = self._numbers([make_sample(prompt, solution_str, target=ground_truth)])
        return value


class OpenRLHFReward(_RewardFunction):
    """OpenRLHF's `reward_func(queries, prompts, labels)`; a query is prompt and completion."""

    def __call__(
        self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **_: Any
    ) -> dict[str, Any]:
        """Return `rewards` and `scores`, tensors (B,), and nothing to log besides.

        Raises:
            NoScoreError: a completion has no score.
            ConfigError: a query does not begin with its prompt.
        """
        import torch

        samples = []
        for query, prompt, label in zip(queries, prompts, labels, strict=True):
            if not query.startswith(prompt):
                raise ConfigError(
                    f"a query does not begin with its prompt, so where the completion begins is "
                    f"unknown: {query[:80]!r} against {prompt[:80]!r}"
                )
            samples.append(make_sample(prompt, query[len(prompt) :], target=label))
        values = torch.tensor(self._numbers(samples))
        return {"rewards": values, "scores": values, "extra_logs": {}}


def make_sample(
    prompt: Any,
    completion: Any,
    *,
    target: Any = None,
    token_ids: tuple[int, ...] | None = None,
    **fields: Any,
) -> Sample:
    """Return a sample of a prompt and a completion, each a text or a list of messages.

    Raises:
        PromptError: the prompt is neither, or a field does not fit.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        asked = Prompt(id=_name(prompt), messages=_messages(prompt), target=target, **given)
    except ValueError as error:
        raise PromptError(f"a prompt that cannot be used: {error}") from None
    return Sample(prompt=asked, completion=_text(completion), token_ids=token_ids)


def _name(prompt: Any) -> str:
    """Return what to call a prompt in messages: the beginning of what is asked last."""
    text = prompt if isinstance(prompt, str) else _content(prompt[-1]) if prompt else ""
    return " ".join(text.split())[:60] or "empty"


def _messages(prompt: Any) -> Any:
    if isinstance(prompt, str):
        return prompt
    return [{"role": _role(message), "content": _content(message)} for message in prompt]


def _text(completion: Any) -> str:
    """Return a completion as text: that of the last message of the assistant."""
    if isinstance(completion, str):
        return completion
    said = [_content(message) for message in completion if _role(message) == "assistant"]
    return said[-1] if said else ""


def _role(message: Any) -> str:
    return str(message["role"] if isinstance(message, Mapping) else message.role)


def _content(message: Any) -> str:
    """Return the text of a message, of its text parts where it has parts."""
    content = message["content"] if isinstance(message, Mapping) else message.content
    if content is None or isinstance(content, str):
        return content or ""
    parts = [part if isinstance(part, Mapping) else part.model_dump() for part in content]
    return "".join(str(part.get("text", "")) for part in parts)


def _cell(columns: Mapping[str, Any], name: str, row: int) -> Any:
    column = columns.get(name)
    return None if column is None else column[row]


def _value(score: Score) -> float | None:
    return score.value if score.is_scored else None
