"""`textgym compare-tuning`: full, last layers and adapters on one task."""

from __future__ import annotations

import argparse
from pathlib import Path

from textgym.cli.command import Command
from textgym_agents.cli.arguments import add_shared
from textgym_agents.lm.presets import PRESETS

MODES = "full,last_k,lora"


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", type=Path, help="a YAML file, as `train` takes it")
    parser.add_argument("--preset", help=f"where to start from: {', '.join(PRESETS)}")
    parser.add_argument("--env", help="Gymnasium id of the environment")
    parser.add_argument("--model", help="tiny, a folder, or a hub id")
    parser.add_argument("--modes", default=MODES, help=f"by comma (default: {MODES})")
    parser.add_argument(
        "--out", type=Path, default=Path("tuning"), help="folder; a second call goes on in it"
    )
    add_shared(parser)


def _run(args: argparse.Namespace) -> int:
    """Do what is left of the comparison and print its table; 1 if a run failed."""
    from rich.console import Console
    from rich.markdown import Markdown
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    from textgym_agents.cli.language_models import new_config
    from textgym_agents.compare_tuning.jobs import Job, TuningResult, make_jobs
    from textgym_agents.compare_tuning.report import write_report
    from textgym_agents.compare_tuning.run import run_jobs

    console = Console()
    start, jobs = make_jobs(new_config(args), [m for m in args.modes.split(",") if m], args.out)

    bar = Progress(
        TextColumn("runs"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console, disable=not console.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=len(jobs) + (start is not None))

        def tell(job: Job, result: TuningResult) -> None:
            failure = f": {result.error}" if result.status == "failed" else ""
            console.print(f"{job.name}: {result.status}{failure}", highlight=False, soft_wrap=True)
            bar.advance(task)

        try:
            results = run_jobs(start, jobs, on_result=tell)
        except KeyboardInterrupt:
            console.print("stopped; the same command goes on with what is left")
            raise
    paths = write_report(args.out, {j.name: r for j, r in zip(jobs, results, strict=True)})
    console.print(Markdown(paths[0].read_text(encoding="utf-8")))
    console.print("written: " + ", ".join(map(str, paths)), highlight=False, soft_wrap=True)
    return int(any(result.status == "failed" for result in results))


compare_tuning = Command("compare full tuning, last layers and adapters", _configure, _run)
