"""Arguments that commands share, and what they ask for; this module loads no torch."""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path
from typing import Any

from textgym.errors import ConfigError, UnknownNameError, did_you_mean

RUNS = Path("runs")
LATEST = "latest"
ENGINES = ("transformers", "vllm", "vllm-server")


def names(value: str) -> list[str]:
    """Return the names in `a,b`."""
    return [name.strip() for name in value.split(",") if name.strip()]


def add_shared(parser: argparse.ArgumentParser) -> None:
    """Add what training and evaluation share: prompts, reward, engine, `add_common`."""
    parser.add_argument("--prompts", help="prompt source by name, or the path of a JSONL file")
    parser.add_argument("--reward", help="reward by name, module:function or file.py:function")
    add_engine(parser)
    add_common(parser, example="ppo.optimizer.learning_rate=1e-4")


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add the choice of the engine."""
    parser.add_argument("--engine", help="what samples: transformers, vllm or vllm-server")
    parser.add_argument(
        "--url", action="append", dest="urls", help="of a vLLM server; once for each"
    )


def add_common(parser: argparse.ArgumentParser, *, example: str) -> None:
    """Add seed, threads, device, and `--set` with an example of its own."""
    parser.add_argument("--seed", type=int, help="seed of the run")
    parser.add_argument("--threads", type=int, help="threads of torch")
    parser.add_argument("--device", help="auto, cpu or cuda")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", dest="overrides",
        help=f"set any field of the configuration, e.g. {example}",
    )  # fmt: skip


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add where a run is kept, what goes on, and who else is told."""
    parser.add_argument("--model", help="tiny, a folder, a run, or a hub id")
    parser.add_argument("--run", type=Path, help="the run directory (default: runs/<date-time>)")
    parser.add_argument(
        "--resume", nargs="?", const=LATEST, metavar="RUN",
        help="continue a run from its last checkpoint (default: the newest run)",
    )  # fmt: skip
    parser.add_argument(
        "--report-to", type=names, metavar="NAMES",
        help="trackers besides TensorBoard: wandb,mlflow,trackio",
    )  # fmt: skip


def engine_of(args: argparse.Namespace) -> dict[str, Any] | None:
    """Return the section `engine` that `--engine` and `--url` ask for."""
    if args.urls is not None and args.engine != "vllm-server":
        raise ConfigError("--url names a vLLM server; it goes with --engine vllm-server")
    if args.engine is None:
        return None
    if args.engine not in ENGINES:
        raise UnknownNameError(
            f"no engine named '{args.engine}'.{did_you_mean(args.engine, ENGINES)} "
            f"There are: {', '.join(ENGINES)}."
        )
    urls = {} if args.urls is None else {"urls": args.urls}
    return {"kind": args.engine.replace("-", "_"), **urls}


def new_run_path() -> Path:
    """Return the folder of a run that was given no name."""
    return RUNS / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def resumed_path(name: str) -> Path:
    """Return the folder of the run that `--resume` names, `LATEST` being the newest."""
    return _latest_run() if name == LATEST else Path(name)


def _latest_run() -> Path:
    configs = sorted(RUNS.glob("*/config.yaml"), key=lambda path: path.stat().st_mtime)
    if not configs:
        raise ConfigError(f"--resume: there is no run in {RUNS.resolve()}; name one")
    return configs[-1].parent
