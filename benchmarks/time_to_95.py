"""Seconds of training until 95 % of sampled held-out answers are right: PPO here, GRPO of TRL.

Both start from the policy that the cold start of `textgym train` leaves (right in about half of its
answers) and learn sums of two numbers below 50 with the same reward, on at most two cores. After
every second of training the clock stops and four answers are sampled to every held-out prompt.

This library's run is the preset `arithmetic` as it is, on one thread. TRL's GRPOTrainer runs with
the first seed at three learning rates, the first of them on one thread and on two, and with the
other seeds at the best of those; `benchmarks.time_to_95_trl` says what else is chosen for it. What
has lost to a run before is ended when that one's time is over. A run that is not there within its
budget counts as the budget.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

from benchmarks.ppo_speed import ROOT
from benchmarks.table import Row, print_table
from benchmarks.time_to_95_work import Measurement, save_cold_start

LEARNING_RATES = (5e-4, 2e-4, 1e-3)
"""The expected best first, which ends the others early."""
SEEDS = (0, 1, 2)
TARGET = 0.5
OURS = "benchmarks.time_to_95_ours"
PEER = "benchmarks.time_to_95_trl"


class Settings(NamedTuple):
    """How the race is run."""

    seeds: Sequence[int] = SEEDS
    learning_rates: Sequence[float] = LEARNING_RATES
    budget: float = 600.0
    """Seconds of training of one run."""


class Peer(NamedTuple):
    """A way to run TRL."""

    learning_rate: float
    threads: int


def run(settings: Settings = Settings()) -> list[Row]:  # noqa: B008  # immutable
    """Measure both sides in turns and return the one row."""
    ours, peers = [], []
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        save_cold_start(model)
        ours.append(race(model, settings.seeds[0], settings.budget))
        best, first = find_best(model, settings)
        peers.append(first)
        for seed in settings.seeds[1:]:
            ours.append(race(model, seed, settings.budget))
            peers.append(race(model, seed, settings.budget, best))
    return [build_row(settings, ours, peers, best)]


def find_best(model: Path, settings: Settings) -> tuple[Peer, Measurement]:
    """Return TRL's fastest way with the first seed, and that run."""
    first, *others = settings.learning_rates
    trials = [try_peer(model, settings, Peer(first, 1), settings.budget)]
    trials.append(try_peer(model, settings, Peer(first, 2), shortest(trials, settings)))
    threads = fastest(trials, settings)[0].threads
    for rate in others:
        trials.append(try_peer(model, settings, Peer(rate, threads), shortest(trials, settings)))
    return fastest(trials, settings)


def try_peer(
    model: Path, settings: Settings, peer: Peer, budget: float
) -> tuple[Peer, Measurement]:
    """Return a way to run TRL, and a run of it with the first seed."""
    return peer, race(model, settings.seeds[0], budget, peer)


def fastest(
    trials: Sequence[tuple[Peer, Measurement]], settings: Settings
) -> tuple[Peer, Measurement]:
    """Return the trial that was there first."""
    return min(trials, key=lambda trial: taken(trial[1], settings.budget))


def shortest(trials: Sequence[tuple[Peer, Measurement]], settings: Settings) -> float:
    """Return the seconds of the trial that was there first."""
    return taken(fastest(trials, settings)[1], settings.budget)


def taken(measured: Measurement, budget: float) -> float:
    """Return the seconds of a run, or the budget it did not keep."""
    return budget if measured["seconds"] is None else measured["seconds"]


def build_row(
    settings: Settings, ours: Sequence[Measurement], peers: Sequence[Measurement], best: Peer
) -> Row:
    """Return the medians over the seeds, and how often the peer was not there in time."""
    num_lost = sum(measured["seconds"] is None for measured in peers)
    lost = f", {num_lost} of {len(peers)} not within {settings.budget:g} s" if num_lost else ""
    return Row(
        name="time to 95 %, sums",
        ours=statistics.median(taken(m, settings.budget) for m in ours),
        peer=statistics.median(taken(m, settings.budget) for m in peers),
        unit="s",
        target=TARGET,
        is_cost=True,
        note=f"TRL {peers[0]['versions']['trl']} GRPOTrainer, {name(best)}{lost}",
    )


def name(peer: Peer) -> str:
    """Return how TRL was run, for people."""
    return f"learning rate {peer.learning_rate:g}, {peer.threads} thread{'s'[: peer.threads > 1]}"


def race(model: Path, seed: int, budget: float, peer: Peer | None = None) -> Measurement:
    """Run our side, or a peer, in a process of its own."""
    threads = 1 if peer is None else peer.threads
    command = [sys.executable, "-m", OURS if peer is None else PEER, f"--model={model}"]
    command += [f"--seed={seed}", f"--threads={threads}", f"--budget={budget}"]
    command += [] if peer is None else [f"--learning-rate={peer.learning_rate}"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"'{' '.join(command)}' failed:\n{done.stderr[-4000:]}")
    measured = cast(Measurement, json.loads(done.stdout.splitlines()[-1]))
    print(describe(measured, seed, budget, peer), file=sys.stderr, flush=True)
    return measured


def describe(measured: Measurement, seed: int, budget: float, peer: Peer | None) -> str:
    """Return one line of progress."""
    seconds, (_, first), (_, last) = (
        measured["seconds"],
        measured["curve"][0],
        measured["curve"][-1],
    )
    when = f"not within {budget:.1f} s" if seconds is None else f"after {seconds:.1f} s"
    at = "" if peer is None else f", {name(peer)}"
    return (
        f"  {measured['side']}, seed {seed}{at}: 95 % {when}; {first:.1%} to {last:.1%} in "
        f"{measured['num_iterations']} rollouts, {measured['cpu_seconds']:.1f} s of them computing"
    )


def main() -> int:
    """Measure as the command line asks and print the row; return the exit status."""
    default = Settings()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.time_to_95")
    parser.add_argument("--seeds", type=int, nargs="+", default=default.seeds)
    parser.add_argument("--learning-rates", type=float, nargs="+", default=default.learning_rates)
    parser.add_argument("--budget", type=float, default=default.budget, help="seconds of a run")
    rows = run(Settings(**vars(parser.parse_args())))
    print_table(rows)
    return 0 if all(row.is_met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
