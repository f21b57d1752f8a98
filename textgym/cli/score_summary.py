"""What `textgym score` reports: counts, mean, labels, and the agreement with given verdicts."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from rich.console import Console

from textgym.cli.output import table
from textgym.prompt_files import summarise
from textgym.reward import Reward
from textgym.sample_files import JudgedSample, SampleFile
from textgym.score import Score
from textgym.validation import shown

_LISTED = 10


@dataclass
class Summary:
    """The scores of a file so far, in its order."""

    file: SampleFile
    threshold: float
    """A value above this says correct."""
    reward: Reward | None = None
    """The one reward that scores; what its method `report` returns, if it has one, is shown."""
    scores: list[Score] = field(default_factory=list)
    cache_counts: Counter[str] | None = None
    """What became of the samples in the score cache, if there is one."""

    @property
    def outcomes(self) -> Counter[str]:
        """Samples by status, failures by their kind as well."""
        return Counter(f"failed/{s.kind}" if s.kind else s.status for s in self.scores)

    @property
    def mean(self) -> float | None:
        """The mean over the scored samples, None if there is none."""
        values = [score.value for score in self.scores if score.is_scored]
        return math.fsum(values) / len(values) if values else None

    @property
    def figures(self) -> dict[str, float | None]:
        """What the reward itself reports over all scores, by name."""
        report = getattr(self.reward, "report", None)
        return dict(report(self.scores)) if callable(report) else {}

    @property
    def labels(self) -> Counter[str]:
        """Samples by label."""
        return Counter(score.label for score in self.scores if score.label is not None)

    @property
    def judged(self) -> list[tuple[JudgedSample, Score]]:
        """The samples that the file carries a verdict of, with their scores."""
        pairs = zip(self.file.samples, self.scores, strict=False)  # fewer scores if interrupted
        return [(sample, score) for sample, score in pairs if sample.verdict is not None]

    @property
    def disagreements(self) -> list[tuple[JudgedSample, Score]]:
        """Those of `judged` whose score says otherwise; one without a value never agrees."""
        return [
            (sample, score)
            for sample, score in self.judged
            if not score.is_scored or (score.value > self.threshold) != sample.verdict
        ]

    @property
    def agreement(self) -> float | None:
        """The share of `judged` whose score says the same, None without verdicts."""
        judged = len(self.judged)
        return (judged - len(self.disagreements)) / judged if judged else None

    def as_json(self) -> dict[str, object]:
        """Return the summary with every disagreement and every malformed line."""
        return {
            "samples": len(self.file.samples),
            "done": len(self.scores),
            "outcomes": dict(self.outcomes),
            "mean": self.mean,
            "labels": dict(self.labels),
            "figures": self.figures,
            "judged": len(self.judged),
            "agreement": self.agreement,
            "disagreements": [as_record(*pair) for pair in self.disagreements],
            "cache": None if self.cache_counts is None else dict(self.cache_counts),
            "problems": [str(problem) for problem in self.file.problems],
        }

    def print(self, out: Console, title: str) -> None:
        """Print the summary as tables."""
        out.print(table(title, ("what", "found"), self._rows()))
        if self.disagreements:
            rows = [
                (j.place, j.verdict, _outcome(s), shown(j.sample.prompt.target), s.extracted)
                for j, s in self.disagreements[:_LISTED]
            ]
            columns = ("where", "verdict", "score", "target", "extracted")
            out.print(table("Disagreements", columns, rows))
        if len(self.disagreements) > _LISTED:
            out.print(f"and {len(self.disagreements) - _LISTED} more; --json lists all")
        if self.file.problems:
            out.print(summarise(self.file.problems))

    def _rows(self) -> list[tuple[str, str]]:
        lines = len({sample.line for sample in self.file.samples})
        rows = [("rows", f"{lines} usable, {len(self.file.problems)} malformed")]
        rows.append(("samples", f"{len(self.scores)} of {len(self.file.samples)}"))
        rows += [(outcome, str(count)) for outcome, count in self.outcomes.most_common()]
        rows.append(("mean of scored", "none" if self.mean is None else f"{self.mean:.4f}"))
        rows += [(f"label {label}", str(count)) for label, count in self.labels.most_common()]
        rows += [(name, _shown_figure(value)) for name, value in self.figures.items()]
        if self.cache_counts is not None:
            names = ("hits", "misses", "bypassed")
            rows.append(("cache", ", ".join(f"{self.cache_counts[n]} {n}" for n in names)))
        if self.agreement is not None:
            agreeing = len(self.judged) - len(self.disagreements)
            share = f"{agreeing}/{len(self.judged)} = {self.agreement:.2%}"
            rows.append(("agreement with verdicts", share))
        return rows


def as_record(judged: JudgedSample, score: Score) -> dict[str, object]:
    """Return one score, ready for JSON; no value is null."""
    return {
        "id": judged.sample.prompt.id,
        "line": judged.line,
        "name": judged.name,
        "value": score.value if score.is_scored else None,
        "status": score.status,
        "kind": score.kind,
        "label": score.label,
        "reason": score.reason,
        "target": judged.sample.prompt.target,
        "extracted": score.extracted,
        "verdict": judged.verdict,
        "seconds": round(score.seconds, 6),
        "parts": {n: p.value if p.is_scored else None for n, p in score.parts.items()},
    }


def _shown_figure(value: float | None) -> str:
    if value is None:
        return "none"
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def _outcome(score: Score) -> str:
    if score.is_scored:
        return f"{score.value:g}"
    return f"{score.status}: {score.kind}" if score.kind else score.status
