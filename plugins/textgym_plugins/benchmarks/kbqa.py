"""Suites of questions over passages: a confusion matrix of answers and refusals.

RGB's abilities are those of Chen et al. 2023 (arXiv:2309.01431).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from textgym.benchmark import Benchmark
from textgym.item_statistics import losses, share, success
from textgym.items import Item, Metric
from textgym_plugins.kbqa.report import OVER_REFUSAL

_LABELS = ("TP", "FP", "TN", "FN")


class KbqaBenchmark(Benchmark):
    """A suite that the reward `kbqa` or `kbqa_judged` scores."""

    def metrics(self, items: Sequence[Item]) -> dict[str, Metric]:
        """Return success, the confusion matrix as shares, the rates made of it, and abilities.

        `TP`, `FP`, `TN` and `FN` are shares of all scored answers, so they add up to 1;
        `ABILITY/LANGUAGE` is success on the prompts of an ability in a language.
        """
        scored = [item for item in items if item.score.is_scored]
        metrics = {"success": success(scored)}
        for label in _LABELS:
            metrics[label] = share(scored, functools.partial(_has_label, label))
        metrics["answer_accuracy"] = share(scored, _is_right, of=_is_answerable)
        metrics["refusal_recall"] = share(scored, _is_refused, of=_is_unanswerable)
        metrics["refusal_precision"] = share(scored, _is_refused, of=_refuses)
        metrics["over_refusal"] = share(scored, is_over_refusal, of=_is_answerable)
        for ability in sorted({ability_of(item) for item in scored}):
            part = [item for item in scored if ability_of(item) == ability]
            metrics[ability] = success(part)
        return metrics | losses(items)


def label_of(item: Item) -> str | None:
    """Return TP, FP, TN or FN; None for an answer that was cut off and not read."""
    if item.score.label is None and item.is_success is False:  # no answer counts as a wrong one
        return "FN" if item.prompt.answerable is not False else "FP"
    return item.score.label


def is_over_refusal(item: Item) -> bool:
    """Return whether an answerable question was refused."""
    scores = (item.score, *item.score.parts.values())
    return any(score.reason.startswith(OVER_REFUSAL) for score in scores)


def ability_of(item: Item) -> str:
    """Return `ABILITY/LANGUAGE` of a prompt."""
    metadata = item.prompt.metadata
    ability = str(metadata.get("task", "questions")).rpartition("/")[2]
    question = str(metadata.get("question", item.prompt.text))
    return f"{ability}/{metadata.get('language') or _language(question)}"


def _has_label(label: str, item: Item) -> bool:
    return label_of(item) == label


def _language(text: str) -> str:
    return "zh" if any("\u3400" <= c <= "\u9fff" for c in text) else "en"


def _is_right(item: Item) -> bool:
    return label_of(item) == "TP"


def _is_refused(item: Item) -> bool:
    return label_of(item) == "TN"


def _is_answerable(item: Item) -> bool:
    return label_of(item) in ("TP", "FN")


def _is_unanswerable(item: Item) -> bool:
    return label_of(item) in ("TN", "FP")


def _refuses(item: Item) -> bool:
    return _is_refused(item) or is_over_refusal(item)
