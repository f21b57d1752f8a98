"""Predicting the memory of a run from the command line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table
from transformers.utils import logging as transformers_logging

from textgym_agents.cli.language_models import new_config
from textgym_agents.lm.config import TrainConfig
from textgym_agents.lm.policy_files import load_model_config
from textgym_agents.memory.plan import Lengths, MemoryPlan, plan_memory
from textgym_agents.memory.suggest import HEADROOM, Fit, best, suggest, summary

GIB = 2**30


def plan(args: argparse.Namespace, memory: int | None) -> int:
    """Print the memory of a configuration by part, and what fits into `memory` bytes."""
    transformers_logging.set_verbosity_error()
    config = new_config(args)
    model_config = load_model_config(config.policy.model)
    is_cpu = config.device == "cpu" or (memory is None and not torch.cuda.is_available())
    device = "cpu" if is_cpu else "cuda"
    with Console(stderr=True).status(f"computing {config.policy.model} in shapes"):
        planned = plan_memory(config, model_config, device=device)
        fits = [] if memory is None else suggest(config, model_config, memory)
    if args.json:
        found = {**summary(planned), "device": device, "fits": [fit._asdict() for fit in fits]}
        print(json.dumps(found))
    else:
        console = Console()
        _print_parts(console, config, planned, device)
        if memory is not None:
            _print_fits(console, fits, memory)
    return int(memory is not None and best(fits) is None)


def _print_parts(console: Console, config: TrainConfig, planned: MemoryPlan, device: str) -> None:
    lengths, policy = Lengths.of(config), config.policy
    share = planned.num_trainable / planned.num_parameters
    console.print(
        f"{policy.model}: {_count(planned.num_parameters)} parameters, mode {policy.mode.kind}, "
        f"{_count(planned.num_trainable)} learn ({share:.2%}), {policy.precision}\n"
        f"GiB on {device}; prompts of {lengths.prompt} tokens, completions of "
        f"{lengths.completion}; the interpreter and a GPU's context come on top",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    table = Table()
    table.add_column("")
    for phase in planned.phases:
        table.add_column(phase.name, justify="right")
    for part in dict.fromkeys(part for phase in planned.phases for part in phase.parts):
        table.add_row(part, *(_gib(phase.parts.get(part)) for phase in planned.phases))
    table.add_row("total", *(_gib(phase.total) for phase in planned.phases), style="bold")
    console.print(table)


def _print_fits(console: Console, fits: Sequence[Fit], memory: int) -> None:
    console.print(f"what fits into {memory / GIB:.1f} GiB, {HEADROOM:.0%} of it kept free")
    table = Table()
    headings = ("mode", "learn", "at least", "recompute", "sequences", "environments")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "mode" else "right")
    for fit in fits:
        table.add_row(
            fit.mode,
            _count(fit.num_trainable),
            f"{fit.least / GIB:.2f} GiB",
            "on" if fit.has_checkpointing else "off",
            str(fit.micro_batch_sequences) if fit.fits else "-",
            str(fit.num_envs) if fit.fits else "does not fit",
        )
    console.print(table)
    chosen = best(list(fits))
    if chosen is None:
        console.print("nothing fits; shorten rollout.max_length or take a smaller model")
        return
    flags = " ".join(f"--set '{override}'" for override in chosen.overrides)
    console.print(f"suggested: {flags}", highlight=False, soft_wrap=True)


def _gib(size: int | None) -> str:
    return "" if size is None else f"{size / GIB:.3f}"


def _count(number: int) -> str:
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return str(number)
