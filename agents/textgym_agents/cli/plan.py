"""`textgym plan`: what a run will need of memory, before a weight is loaded."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from textgym.cli.command import Command
from textgym.errors import ConfigError
from textgym_agents.cli.arguments import add_shared
from textgym_agents.lm.presets import PRESETS

UNITS = {"": 2**30, "gib": 2**30, "gb": 10**9, "mib": 2**20, "mb": 10**6}


def _configure_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", type=Path, help="a YAML file, as `train` takes it")
    parser.add_argument("--preset", help=f"where to start from: {', '.join(PRESETS)}")
    parser.add_argument("--model", help="tiny, a folder, or a hub id; only its config.json is read")
    parser.add_argument(
        "--gpu-memory", metavar="GIB", help="memory of the GPU, e.g. 24; suggests mode and batch"
    )
    parser.add_argument("--json", action="store_true", help="print JSON; bytes")
    add_shared(parser)


def run_plan(args: argparse.Namespace) -> int:
    """Print the plan; 1 if a memory was given that nothing fits into."""
    from textgym_agents.cli import memory_plan

    return memory_plan.plan(args, None if args.gpu_memory is None else parse_size(args.gpu_memory))


def parse_size(text: str) -> int:
    """Return bytes of a text such as `24`, `24GiB` or `80GB`; plain numbers are GiB."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([a-z]*)", text.strip().lower())
    size = 0.0 if found is None else float(found[1]) * UNITS.get(found[2], 0)
    if size < 1:
        raise ConfigError(f"--gpu-memory {text}: expected a size such as 24, 24GiB or 80GB")
    return int(size)


plan = Command("predict the memory of a run, and what fits", _configure_plan, run_plan)
