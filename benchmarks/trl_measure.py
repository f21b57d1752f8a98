"""What measuring TRL's PPOTrainer and GRPOTrainer has in common; runs in TRL's environment."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import TrainerCallback

from benchmarks import ppo_speed_model as work


class IterationClock(TrainerCallback):
    """Notes when each iteration ends.

    Args:
        calls: ends of a "step" in TRL's sense that one iteration has.
    """

    def __init__(self, calls: int) -> None:
        self.times: list[float] = []
        self.cpu_times: list[float] = []
        self._calls = calls
        self._num_calls = 0

    def on_step_end(self, *_: Any, **__: Any) -> None:  # called with the Trainer's whole state
        """Note the time of every last call of an iteration."""
        self._num_calls += 1
        if self._num_calls % self._calls == 0:
            self.times.append(time.perf_counter())
            self.cpu_times.append(time.process_time())


class Counts:
    """What TRL really did, to prove that both sides do the same: tokens and optimiser steps."""

    def __init__(self, policy: Any, lengths: work.Work) -> None:
        self._lengths = lengths
        self.num_response_tokens: list[int] = []
        self.num_optimizer_steps = 0
        self._generate = policy.generate
        policy.generate = self._count_generated
        register_optimizer_step_post_hook(self._count_step)

    def _count_generated(
        self, **inputs: Any
    ) -> Any:  # stands in for `generate`, whose call it forwards
        output = self._generate(**inputs)
        sequences = getattr(output, "sequences", output)
        responses = sequences[:, inputs["input_ids"].shape[1] :]
        self.num_response_tokens.append(work.count_response_tokens(responses, self._lengths))
        return output

    def _count_step(self, *_: Any) -> None:
        self.num_optimizer_steps += 1


Build = Callable[[str, int, work.Work], Any]
"""Returns the trainer for a folder, a number of iterations and the work."""


def main(description: str, build: Build, *, calls: int) -> None:
    """Measure as the command line asks and print the result as JSON.

    Args:
        description: of the command.
        build: the trainer.
        calls: as of `IterationClock`.
    """
    arguments = work.parse_arguments(argparse.ArgumentParser(description=description))
    lengths = work.WORKS[arguments.work]
    clock = IterationClock(calls)
    print(json.dumps(_measure(build, clock, lengths, arguments.threads, arguments.iterations)))


def _measure(
    build: Build, clock: IterationClock, lengths: work.Work, num_threads: int, num_iterations: int
) -> work.Measurement:
    """Return the speed and memory of TRL over `num_iterations`, after one for warming up."""
    import_rss_mib = work.read_peak_rss_mib()
    torch.set_num_threads(num_threads)
    with tempfile.TemporaryDirectory() as output_dir:
        trainer = build(output_dir, num_iterations + 1, lengths)
        trainer.add_callback(clock)
        counts = Counts(getattr(trainer, "policy_model", trainer.model), lengths)
        start_rss_mib = work.read_peak_rss_mib()
        with contextlib.redirect_stdout(sys.stderr):  # stdout carries the result alone
            trainer.train()
    seconds = _differences(clock.times)
    return work.Measurement(
        side="trl",
        num_threads=num_threads,
        seconds=seconds,
        cpu_seconds=statistics.median(_differences(clock.cpu_times)),
        tokens_per_second=work.tokens_per_second(counts.num_response_tokens[1:], seconds),
        num_response_tokens=round(statistics.mean(counts.num_response_tokens)),
        num_optimizer_steps=counts.num_optimizer_steps // len(clock.times),
        peak_rss_mib=work.read_peak_rss_mib(),
        import_rss_mib=import_rss_mib,
        start_rss_mib=start_rss_mib,
        versions={name: version(name) for name in ("trl", "torch", "transformers")},
    )


def _differences(times: list[float]) -> list[float]:
    """Return the seconds between one iteration's end and the next."""
    return [end - start for start, end in itertools.pairwise(times)]
