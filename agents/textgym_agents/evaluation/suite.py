"""One suite: ask, score, write down; what was answered before is not asked again."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
from pydantic import JsonValue

from textgym.benchmark import Benchmark
from textgym.errors import ConfigError, TextGymError
from textgym.item_files import (
    SUITE,
    open_items,
    read_items,
    read_json,
    read_metrics,
    write_items,
    write_json,
    write_metrics,
)
from textgym.items import Item, Metric
from textgym.prompt import Prompt
from textgym.sample import Sample
from textgym.score import Score
from textgym.scoring import Scorer
from textgym.seeding import Purpose, derive_seed, stream
from textgym_agents.evaluation.answerers import Answer, Answerer, Question
from textgym_agents.run.progress import Progress, SilentProgress


class Asked(NamedTuple):
    """Everything that the items of a suite depend on."""

    benchmark: Benchmark
    samples: int
    temperature: float
    limit: int | None
    seed: int
    max_new_tokens: int
    data: Path | None

    def settings(self, answerer: Answerer, env: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """Return it as JSON."""
        return {
            "suite": self.benchmark.name,
            "answerer": answerer.describe(),
            "env": dict(env),
            "samples": self.samples,
            "temperature": self.temperature,
            "limit": self.limit,
            "seed": self.seed,
            "max_new_tokens": self.max_new_tokens,
            "score_length_cut": self.benchmark.score_length_cut,
        }


def evaluate_suite(
    answerer: Answerer,
    benchmark: Benchmark,
    path: Path,
    *,
    samples: int = 1,
    temperature: float = 0.0,
    limit: int | None = None,
    seed: int = 0,
    max_new_tokens: int | None = None,
    data: Path | None = None,
    num_workers: int = 1,
    progress: Progress | None = None,
) -> dict[str, Metric]:
    """Answer the prompts of a suite and return its metrics.

    `path/items.jsonl` gets one line per prompt and sample, `path/metrics.json` the metrics,
    `path/suite.json` what both depend on. What stands there is not answered again.

    Args:
        answerer: who answers.
        benchmark: the suite.
        path: folder of the answers.
        samples: answers per prompt.
        temperature: of the answers; several of them need one above 0.
        limit: answer this many prompts, a fixed random choice; None answers all.
        seed: of the choice of prompts and of the samples.
        max_new_tokens: longest answer; None is the suite's own limit.
        data: the suite's file, where it needs one.
        num_workers: worker processes of rewards that need isolation.
        progress: is told what happens.

    Raises:
        ConfigError: the folder holds answers of other settings, or a setting cannot be used.
        TextGymError: answers could not be had; those that could are written.
    """
    if temperature < 0:
        raise ConfigError(f"temperature={temperature} is below 0")
    if samples > 1 and temperature == 0:
        raise ConfigError(
            f"samples={samples} with temperature=0 would give the same answer {samples} times; "
            "set a temperature"
        )
    asked = Asked(
        benchmark, samples, temperature, limit, seed,
        max_new_tokens or benchmark.max_new_tokens, data,
    )  # fmt: skip
    run = _SuiteRun(asked, answerer, path, progress or SilentProgress(), num_workers)
    return run.metrics()


class _SuiteRun:
    """One suite while it is being answered."""

    def __init__(
        self, asked: Asked, answerer: Answerer, path: Path, progress: Progress, num_workers: int
    ) -> None:
        self.asked = asked
        self.answerer = answerer
        self.path = path
        self.progress = progress
        self.num_workers = num_workers
        benchmark = asked.benchmark
        self.env: dict[str, JsonValue] = {
            "prompts": benchmark.sources(asked.data),
            "reward": benchmark.reward,
            "split": benchmark.split,
            **answerer.rendering(benchmark),
        }

    def metrics(self) -> dict[str, Metric]:
        """Return the metrics, answering what has no answer yet."""
        settings = self.asked.settings(self.answerer, self.env)
        check_settings(self.path, settings)
        known = read_metrics(self.path)
        if known is not None:
            return known
        write_json(self.path / SUITE, settings)
        items = self._complete(read_items(self.path))
        metrics = self.asked.benchmark.metrics(items)
        write_metrics(self.path, metrics)
        return metrics

    def _complete(self, items: list[Item]) -> list[Item]:
        """Return all items, answering and writing those that are missing."""
        done = {(item.index, item.sample) for item in items}
        batches = self._batches()
        num_done = sum((q.index, q.sample) in done for batch in batches for q in batch)
        total = sum(map(len, batches))
        self.progress.start_phase(self.asked.benchmark.name, total, num_done, unit="answers")
        with open_items(self.path) as file, closing(self._scorer()) as scorer:
            for number, batch in enumerate(batches):
                left = [q for q in batch if (q.index, q.sample) not in done]
                if not left:
                    continue
                started = time.perf_counter()
                answers = self._ask(left, number)
                new = list(self._score(left, answers, scorer))
                write_items(file, new)
                items += new
                _check_answered(answers, self.path)
                speed = len(left) / (time.perf_counter() - started)
                self.progress.advance({}, speed, num_steps=len(left))
        return sorted(items, key=lambda item: (item.index, item.sample))

    def _scorer(self) -> Scorer:
        reward: Any = self.asked.benchmark.reward  # JSON, which `make_rubric` checks
        return Scorer(reward, num_workers=self.num_workers)

    def _batches(self) -> list[list[Question]]:
        """Return the questions, short prompts first, in batches that are the same every time."""
        with closing(_make_env(self.env)) as env:
            pool = env.unwrapped.pool
            indices = range(len(pool))
            if self.asked.limit is not None:
                indices = pool.spread(self.asked.limit, stream(self.asked.seed, Purpose.EVALUATION))
            asked = [(pool.prompt(i), pool.render(i, 0, 0), i) for i in indices]
        asked.sort(key=lambda each: (len(each[1]), each[2]))
        questions = [
            Question(*each, s, functools.partial(pool.demonstrations, each[2]))
            for each in asked
            for s in range(self.asked.samples)
        ]
        size = self.answerer.batch_size
        return [questions[i : i + size] for i in range(0, len(questions), size)]

    def _ask(self, questions: Sequence[Question], batch: int) -> list[Answer]:
        return self.answerer.answer(
            questions,
            max_new_tokens=self.asked.max_new_tokens,
            temperature=self.asked.temperature,
            seed=derive_seed(self.asked.seed, Purpose.EVALUATION, batch),
        )

    def _score(
        self, questions: Sequence[Question], answers: Sequence[Answer], scorer: Scorer
    ) -> Iterator[Item]:
        """Yield the items of the questions that were answered."""
        pairs = [p for p in zip(questions, answers, strict=True) if not _is_lost(p[1])]
        samples = [
            Sample(q.prompt, a.text, finish_reason=a.finish_reason)
            for q, a in pairs
            if self._is_judged(a)
        ]
        scores = iter(scorer.score_batch(samples) if samples else ())
        for question, answer in pairs:
            is_judged = self._is_judged(answer)
            score = next(scores) if is_judged else _unasked(question.prompt, answer, scorer)
            known = scorer.is_success(question.prompt, score)
            yield Item(
                question.prompt,
                answer.text,
                score,
                None if known is None else known and is_judged,
                question.sample,
                question.index,
                answer.finish_reason,
                answer.num_tokens,
            )

    def _is_judged(self, answer: Answer) -> bool:
        is_cut = answer.finish_reason == "length" and not self.asked.benchmark.score_length_cut
        return not answer.failure and not is_cut


def check_settings(path: Path, settings: Mapping[str, JsonValue]) -> None:
    """Raise where a folder holds answers that were asked for with other settings."""
    known = read_json(path / SUITE)
    if known is None or known == settings:
        return
    differs = sorted(k for k in {*known, *settings} if known.get(k) != settings.get(k))
    raise ConfigError(
        f"{path} holds answers with other settings ({', '.join(differs)}); name another folder "
        "with --out, or delete this one"
    )


def _make_env(env: Mapping[str, Any]) -> Any:
    return gymnasium.make_vec(
        "textgym:TextGen-v0", 1, **env, action_mode="text", autoreset_mode="disabled"
    )


def _is_lost(answer: Answer) -> bool:
    return bool(answer.failure) and answer.finish_reason == "abort"


def _unasked(prompt: Prompt, answer: Answer, scorer: Scorer) -> Score:
    return Score.unscored(answer.failure) if answer.failure else scorer.cut_off(prompt)


def _check_answered(answers: Sequence[Answer], path: Path) -> None:
    lost = [answer.failure for answer in answers if _is_lost(answer)]
    if lost:
        raise TextGymError(
            f"{len(lost)} of {len(answers)} questions have no answer: {lost[0]}. What was answered "
            f"is in {path}; the same command goes on from there"
        )
