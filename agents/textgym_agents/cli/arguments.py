"""Arguments that training and evaluation share."""

from __future__ import annotations

import argparse


def names(value: str) -> list[str]:
    """Return the names in `a,b`."""
    return [name.strip() for name in value.split(",") if name.strip()]


def add_shared(parser: argparse.ArgumentParser) -> None:
    """Add them to a parser."""
    parser.add_argument("--prompts", help="prompt source by name, or the path of a JSONL file")
    parser.add_argument("--reward", help="reward by name, module:function or file.py:function")
    parser.add_argument("--seed", type=int, help="seed of the run")
    parser.add_argument("--threads", type=int, help="threads of torch")
    parser.add_argument("--device", help="auto, cpu or cuda")
    parser.add_argument("--engine", help="what samples: transformers, vllm or vllm-server")
    parser.add_argument(
        "--url", action="append", dest="urls", help="of a vLLM server; once for each"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", dest="overrides",
        help="set any field of the configuration, e.g. ppo.optimizer.learning_rate=1e-4",
    )  # fmt: skip
