"""PPO on a GPU against TRL's PPOTrainer: tokens a second by phase, utilisation, peak memory.

Both sides train a randomly initialised model of Qwen2.5-0.5B's shape (vocabulary 151,936): 64
prompts, 256 new tokens each, 4 epochs of 4 minibatches. Each runs in a process of its own. Phases
end when the device has finished them. `benchmarks.ppo_gpu_work` has the formulas of the
utilisation, `benchmarks.ppo_gpu_trl` what is done for the peer.

Without a GPU there is nothing to measure: `python -m benchmarks.ppo_gpu` says so and exits with 77,
and the rows of `python -m benchmarks ppo_gpu` are `not measured`. The program itself can be tried
anywhere at a reduced shape, which says nothing about speed:

    python -m benchmarks.ppo_gpu --device cpu --vocabulary 2048 --hidden 64 --layers 2 \
        --prompts 4 --new-tokens 8 --minibatches 2 --flops 1e11 --bandwidth 1e10
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import cast

from benchmarks import ppo_gpu_work as work
from benchmarks.ppo_speed import ROOT, ensure_trl_environment
from benchmarks.table import Row, print_table

EXIT_NOT_MEASURED = 77
"""What test harnesses read as `skipped`."""
NO_GPU = "no GPU"
SPEED_TARGET = 3.0
MEMORY_TARGET = 0.5
MFU_TARGET = 0.4

SPEED = "PPO on a GPU"
MEMORY = "PPO on a GPU: peak memory"
MFU = "PPO on a GPU: MFU of the update, against what is wanted"
DECODING = "PPO on a GPU: decoding, share of the memory-bandwidth limit"
PHASES = {phase: f"PPO on a GPU: {phase}" for phase in work.PHASES}


def run() -> list[Row]:
    """Measure both sides at the full shape, or return rows that say why not."""
    if (reason := why_not("cuda")) is not None:
        return unmeasured_rows(reason)
    options = work.Options.of(parse([]))
    return build_rows(options, find_peak(options, None, None), *measure(options))


def why_not(device: str) -> str | None:
    """Return why a device cannot be measured here, None if it can."""
    import torch

    return NO_GPU if device == "cuda" and not torch.cuda.is_available() else None


def unmeasured_rows(reason: str) -> list[Row]:
    """Return the rows of `build_rows` without figures."""
    speeds = {SPEED: SPEED_TARGET, **dict.fromkeys(PHASES.values(), 1.0)}
    return [
        *(Row.not_measured(name, "tokens/s", target, reason) for name, target in speeds.items()),
        Row.not_measured(MEMORY, "GiB", MEMORY_TARGET, reason, is_cost=True),
        Row.not_measured(MFU, "%", 1.0, reason),
        Row.not_measured(DECODING, "%", 1.0, reason),
    ]


def build_rows(
    options: work.Options, peak: work.Peak, ours: work.Measurement, peer: work.Measurement
) -> list[Row]:
    """Return the rows of the medians over iterations."""
    note = f"TRL {peer['versions']['trl']} PPOTrainer, {ours['device']}, {options.precision}"
    a, b = medians(ours), medians(peer)
    tokens = options.num_response_tokens
    rows = [
        Row(SPEED, tokens / a["total"], tokens / b["total"], "tokens/s", SPEED_TARGET, note=note)
    ]
    for phase, name in PHASES.items():
        rows.append(Row(name, tokens / a[phase], tokens / b[phase], "tokens/s", 1.0, note=note))
    gib = (ours["peak_bytes"] / 2**30, peer["peak_bytes"] / 2**30)
    needed = 100 * work.decoding_bytes(options) / peak.bandwidth
    return [
        *rows,
        Row(MEMORY, *gib, "GiB", MEMORY_TARGET, is_cost=True, note=note),
        Row(MFU, 100 * mfu(options, peak, ours), 100 * MFU_TARGET, "%", 1.0, note=ours["device"]),
        Row(DECODING, needed / a["generation"], needed / b["generation"], "%", 1.0, note=note),
    ]


def medians(measured: work.Measurement) -> dict[str, float]:
    """Return the median seconds of each phase, and `total`, those of a whole iteration."""
    phases = {phase: statistics.median(measured["seconds"][phase]) for phase in work.PHASES}
    whole = [sum(parts) for parts in zip(*measured["seconds"].values(), strict=True)]
    return {**phases, "total": statistics.median(whole)}


def mfu(options: work.Options, peak: work.Peak, measured: work.Measurement) -> float:
    """Return the model FLOPs utilisation of the update."""
    return work.update_flops(options) / medians(measured)["update"] / peak.flops


def describe(options: work.Options, peak: work.Peak, measured: work.Measurement) -> str:
    """Return what one side did, a line a phase, with the utilisation that has no row."""
    seconds, tokens = medians(measured), options.num_response_tokens
    lines = [f"{measured['side']} on {measured['device']}"]
    for phase in (*work.PHASES, "total"):
        lines.append(f"  {phase}: {seconds[phase]:.3f} s, {tokens / seconds[phase]:,.0f} tokens/s")
    share = work.decoding_bytes(options) / peak.bandwidth / seconds["generation"]
    scoring = work.scoring_flops(options) / peak.flops / seconds["scoring"]
    lines += [
        f"  generation: {share:.1%} of the memory-bandwidth limit",
        f"  scoring: {scoring:.1%} MFU (old policy, values, reference)",
        f"  update: {mfu(options, peak, measured):.1%} MFU (policy and value head)",
    ]
    if measured["side"] == "textgym":
        done = work.update_flops(options) + work.recomputed_flops(options)
        lines.append(f"  update: {done / peak.flops / seconds['update']:.1%} HFU (logits twice)")
    lines.append(f"  peak memory: {measured['peak_bytes'] / 2**30:.2f} GiB")
    return "\n".join(lines)


def find_peak(options: work.Options, flops: float | None, bandwidth: float | None) -> work.Peak:
    """Return what the device can do, from the command line or the table.

    Raises:
        LookupError: the table does not have the device.
    """
    if flops is not None and bandwidth is not None:
        return work.Peak(flops, bandwidth)
    name = work.device_name(options.device)
    if name not in work.DEVICES:
        raise LookupError(
            f"what '{name}' can do is not known: give --flops (dense {options.precision} "
            f"operations a second) and --bandwidth (bytes a second). "
            f"Known: {', '.join(work.DEVICES)}"
        )
    known = work.DEVICES[name]
    return work.Peak(flops or known.flops, bandwidth or known.bandwidth)


def measure(options: work.Options) -> tuple[work.Measurement, work.Measurement]:
    """Measure both sides one after the other."""
    peer = str(ensure_trl_environment())
    return (
        measure_side([sys.executable, "-m", "benchmarks.ppo_gpu_ours"], options),
        measure_side([peer, "-m", "benchmarks.ppo_gpu_trl"], options),
    )


def measure_side(command: Sequence[str], options: work.Options) -> work.Measurement:
    """Run one side in a process of its own, and see that it did the work."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [*command, *options.command_line()]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"'{' '.join(command)}' failed:\n{done.stderr[-4000:]}")
    measured = cast(work.Measurement, json.loads(done.stdout.splitlines()[-1]))
    check_work(measured, options)
    return measured


def check_work(measured: work.Measurement, options: work.Options) -> None:
    """Raise unless the side generated the tokens and took the optimiser steps of an iteration."""
    found = (measured["num_response_tokens"], measured["num_optimizer_steps"])
    wanted = (options.num_response_tokens, options.epochs * options.minibatches)
    if found != wanted:
        raise RuntimeError(
            f"{measured['side']} did other work than agreed: {found[0]} response tokens and "
            f"{found[1]} optimiser steps an iteration, not {wanted[0]} and {wanted[1]}"
        )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ppo_gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    work.add_options(parser)
    parser.add_argument("--flops", type=float, help="operations a second of the device at most")
    parser.add_argument("--bandwidth", type=float, help="bytes a second of its memory at most")
    parser.add_argument("--without-peer", action="store_true", help="measure this library alone")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit status."""
    given = parse(arguments)
    if (reason := why_not(given.device)) is not None:
        print(f"ppo_gpu: not measured: torch finds {reason} (--device cpu tries the program)")
        return EXIT_NOT_MEASURED
    options = work.Options.of(given)
    peak = find_peak(options, given.flops, given.bandwidth)
    if given.without_peer:
        ours = measure_side([sys.executable, "-m", "benchmarks.ppo_gpu_ours"], options)
        print(describe(options, peak, ours))
        return 0
    both = measure(options)
    for measured in both:
        print(describe(options, peak, measured))
    rows = build_rows(options, peak, *both)
    print_table(rows)
    return 0 if all(row.is_met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
