"""`textgym export`: a run's policy as a Hugging Face folder with a model card."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from textgym.cli.command import Command


def _configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="a run of train, sft or dpo")
    add("--to", type=Path, required=True, metavar="FOLDER", help="an empty or a new folder")
    add("--merge", action="store_true", help="the whole model, an adapter merged into its base")
    add("--best", action="store_true", help="the best checkpoint, not the newest")


def _run(args: argparse.Namespace) -> int:
    from transformers.utils import logging as transformers_logging

    from textgym_agents.lm.export import CARD, export_policy

    transformers_logging.disable_progress_bar()
    folder = export_policy(args.run, args.to, merge=args.merge, best=args.best)
    Console().print(f"policy: {folder}\ncard: {folder / CARD}", highlight=False, soft_wrap=True)
    return 0


export = Command(
    "write a run's policy as a Hugging Face folder with a model card", _configure, _run
)
