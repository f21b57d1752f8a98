"""`textgym launch-config`: where the configuration files of `accelerate launch` are."""

from __future__ import annotations

import argparse
from pathlib import Path

from textgym.cli.command import Command
from textgym.errors import UnknownNameError, did_you_mean

FOLDER = Path(__file__).resolve().parent.parent / "launch"


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="ddp, fsdp, deepspeed-zero2, deepspeed-zero3")


def run_launch_config(args: argparse.Namespace) -> int:
    """Print the path of a file, or every name with what the file is for."""
    files = {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}
    if args.name is None:
        for name, path in files.items():
            print(f"{name:<16} {path.read_text().splitlines()[0].removeprefix('# ')}")
        return 0
    if args.name not in files:
        raise UnknownNameError(
            f"no launch configuration named '{args.name}'.{did_you_mean(args.name, files)} "
            f"There are: {', '.join(files)}."
        )
    print(files[args.name])
    return 0


launch_config = Command(
    "print the path of a configuration for `accelerate launch`", _configure, run_launch_config
)
