"""`textgym score`: score a file of completions, and compare with the verdicts in it."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from textgym.cli.command import Command
from textgym.cli.output import console, print_json
from textgym.cli.score_summary import Summary, as_record
from textgym.config import merge, parse_override
from textgym.errors import ConfigError
from textgym.make import make_rubric
from textgym.rubric import Rubric
from textgym.sample_files import read_samples
from textgym.sample_join import join_prompts
from textgym.scoring import Scorer

_CHUNK = 64


def add_reward(parser: argparse.ArgumentParser) -> None:
    """Add `--reward` and `--set`, which `rubric_spec` reads."""
    add = parser.add_argument
    add("--reward", help="a reward by name, or module:function; else what each prompt names")
    add("--set", dest="overrides", action="append", default=[], metavar="FIELD=VALUE",
        help="set a field of the reward; can be repeated")  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `textgym score`."""
    add = parser.add_argument
    add("file", type=Path, help="a JSONL file of completions; docs/command-line.md has its fields")
    add_reward(parser)
    add("--completion-field", metavar="NAME", help="where the completion stands")
    add("--target-field", metavar="NAME", help="where the target stands")
    add("--verdict-field", metavar="NAME", help="where the verdict stands")
    add(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="a JSONL file of the prompts, found by id or by text; FILE then holds no targets",
    )
    add("--output", type=Path, metavar="FILE", help="write each score as a line of JSON")
    add("--json", action="store_true", help="print the summary as JSON")
    add("--workers", type=_positive, default=os.cpu_count() or 1, metavar="N",
        help="worker processes of a reward that needs isolation")  # fmt: skip
    add("--cache", type=Path, metavar="FILE", help="keep scores here and do not score twice")


def run(arguments: argparse.Namespace) -> int:
    """Score the file and print the summary; after an interrupt, of what was scored until then."""
    rubric = make_rubric(rubric_spec(arguments.reward, arguments.overrides))
    file = read_samples(
        arguments.file,
        completion_field=arguments.completion_field,
        target_field=arguments.target_field,
        verdict_field=arguments.verdict_field,
    )
    if arguments.prompts is not None:
        file = join_prompts(file, arguments.file, arguments.prompts)
    only = rubric.rewards[0].reward if len(rubric.rewards) == 1 and not rubric.routes else None
    summary = Summary(file, threshold=_threshold(rubric), reward=only)
    scorer = Scorer(rubric, num_workers=arguments.workers, cache=arguments.cache)
    interrupted = _score(scorer, summary, arguments.output)
    if arguments.json:
        print_json(summary.as_json())
    else:
        summary.print(console(), str(arguments.file))
    if interrupted:
        raise KeyboardInterrupt
    return 0


def rubric_spec(reward: str | None, overrides: Sequence[str]) -> dict[str, Any] | None:
    """Return what `make_rubric` takes, of `--reward` and `--set`; None leaves it to the prompts."""
    config: dict[str, Any] = {}
    for override in overrides:
        config = merge(config, parse_override(override))
    if reward is None and config:
        raise ConfigError("--set has no effect without --reward; name the reward it is for")
    return None if reward is None else {"reward": reward, "config": config}


def _threshold(rubric: Rubric) -> float:
    """Return the value above which a score says correct; a plain function declares no range."""
    middle = sum(rubric.range) / 2
    return middle if math.isfinite(middle) else 0.5


def _score(scorer: Scorer, summary: Summary, output: Path | None) -> bool:
    """Fill the summary, and the output file as far as the summary; return whether interrupted."""
    samples = summary.file.samples
    with ExitStack() as stack:
        stack.enter_context(scorer)
        scorer.check_routes(judged.sample.prompt for judged in samples)
        try:
            written = stack.enter_context(output.open("w", encoding="utf-8")) if output else None
        except OSError as error:
            raise ConfigError(f"--output {output}: {error.strerror}") from None
        progress = stack.enter_context(_progress())
        if scorer.cache is not None:
            summary.cache_counts = scorer.cache.counts
        task = progress.add_task("scoring", total=len(samples))
        try:
            for start in range(0, len(samples), _CHUNK):
                chunk = samples[start : start + _CHUNK]
                scores = scorer.score_batch([judged.sample for judged in chunk])
                summary.scores += scores
                if written is not None:
                    for judged, score in zip(chunk, scores, strict=True):
                        written.write(json.dumps(as_record(judged, score)) + "\n")
                progress.advance(task, len(chunk))
        except KeyboardInterrupt:
            return True
    return False


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(
        *columns,
        TimeRemainingColumn(),
        console=console(sys.stderr),
        disable=not sys.stderr.isatty(),
        transient=True,
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


COMMAND = Command("score a file of completions and compare with its verdicts", configure, run)
