"""Solving random Markov decision processes against quantecon, mdptoolbox-hiive and a plain loop.

Two processes of 1,000 and 10,000 states, ten actions, ten random successors of each, gamma 0.99.
The work is "the optimal values, with an error of at most 1e-6": each library solves it with each of
its methods, and the peer is the fastest of them all. All answers are compared with one solution of
a thousand times the accuracy, and the benchmark fails if one is off by more than was asked for.
Building the process is not counted on any side.

The plain loop is value iteration in Python lists with the same stopping rule, so that what is
compared is the arithmetic and not the rule.

The libraries live in an environment of their own, `.bench/tabular`, and run in processes that take
turns with this one. Seconds are those of the processor, on one thread: a solve takes milliseconds,
and on a busy machine the wall clock says mostly who was interrupted.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np

from benchmarks import tabular_work as work
from benchmarks.places import ROOT
from benchmarks.table import Row, print_table
from textgym_agents.tabular.arrays import Floats
from textgym_agents.tabular.mdp import TabularMDP
from textgym_agents.tabular.planning import modified_policy_iteration
from textgym_agents.tabular.successors import SuccessorTable

REQUIREMENTS = Path(__file__).with_name("requirements-tabular.txt")
PEER_ENVIRONMENT = ROOT / ".bench" / "tabular"
PEER_TARGET = 2.0
LOOP_TARGET = 100.0
NUM_ROUNDS = 5
NUM_REPEATS = 20


def run() -> list[Row]:
    """Return two rows per size: against the fastest library, and against the plain loop."""
    python = ensure_peer_environment()
    return [row for num_states in work.SIZES for row in measure(num_states, python)]


def measure(num_states: int, python: Path) -> list[Row]:
    """Return the rows of one process; both sides take turns, and medians count."""
    process = work.make_process(num_states)
    mdp = to_mdp(process)
    reference = modified_policy_iteration(mdp, tolerance=work.TOLERANCE / 1000).values
    ours: list[float] = []
    peers: dict[str, list[float]] = {}
    for _ in range(NUM_ROUNDS):
        ours += seconds_of(lambda: modified_policy_iteration(mdp, tolerance=work.TOLERANCE).values)
        for each in run_peers(python, num_states, reference):
            name = f"{each['library']} {each['version']}, {each['method']}"
            check(name, each["error"])
            peers.setdefault(name, []).extend(each["seconds"])
    values = modified_policy_iteration(mdp, tolerance=work.TOLERANCE).values
    check("textgym", float(np.abs(values - reference).max()))
    medians = {name: statistics.median(seconds) for name, seconds in peers.items()}
    for name, seconds in sorted(medians.items(), key=lambda pair: pair[1]):
        print(f"  {num_states} states, {name}: {seconds * 1e3:.2f} ms", file=sys.stderr)
    fastest = min(medians, key=lambda name: medians[name])
    rate = 1 / statistics.median(ours)
    title = f"MDP of {num_states:,} states"
    started = time.process_time()
    looped = plain_loop(process)
    loop_rate = 1 / (time.process_time() - started)
    check("the plain loop", float(np.abs(looped - reference).max()))
    return [
        Row(title, rate, 1 / medians[fastest], "solves/s", PEER_TARGET, note=fastest),
        Row(title, rate, loop_rate, "solves/s", LOOP_TARGET, note="plain Python loop"),
    ]


def to_mdp(process: work.RandomProcess) -> TabularMDP:
    """Return the process in this library's form."""
    num_states, num_actions, width = process.next_states.shape
    by_action = (1, 0, 2)
    table = SuccessorTable(
        np.ascontiguousarray(process.probabilities.transpose(by_action)).reshape(-1, width),
        np.ascontiguousarray(process.next_states.transpose(by_action)).reshape(-1, width),
        process.rewards.T.reshape(-1, 1),
        np.zeros((num_states * num_actions, 1), dtype=np.bool_),
    )
    initial = np.full(num_states, 1 / num_states)
    return TabularMDP.from_successors(table, gamma=work.GAMMA, initial=initial)


def seconds_of(solve: Callable[[], Floats]) -> list[float]:
    """Return the processor seconds of each repetition, after one that does not count."""
    solve()
    seconds = []
    for _ in range(NUM_REPEATS):
        started = time.process_time()
        solve()
        seconds.append(time.process_time() - started)
    return seconds


def check(name: str, error: float) -> None:
    """Raise where an answer is not as accurate as was asked for."""
    if not error <= work.TOLERANCE:
        raise RuntimeError(f"{name} is off by {error:.3g}, more than {work.TOLERANCE:g}")


def run_peers(python: Path, num_states: int, reference: Floats) -> list[work.Measurement]:
    """Run the peers' process once and return what it measured."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "reference.npy"
        np.save(file, reference)
        command = [str(python), "-m", "benchmarks.tabular_peers", str(num_states), str(file)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"'{' '.join(command)}' failed:\n{done.stderr[-4000:]}")
    return cast(list[work.Measurement], json.loads(done.stdout.splitlines()[-1]))


def plain_loop(process: work.RandomProcess) -> Floats:
    """Return the optimum by value iteration on Python lists, stopped by the spread as ours is."""
    factor = work.GAMMA / (1 - work.GAMMA)
    rewards = process.rewards.tolist()
    moves = [
        [list(zip(p, s, strict=True)) for p, s in zip(ps, ss, strict=True)]
        for ps, ss in zip(process.probabilities.tolist(), process.next_states.tolist(), strict=True)
    ]
    values = [0.0] * len(rewards)
    while True:
        backed_up = [
            max(
                reward + work.GAMMA * sum([p * values[s] for p, s in outcomes])
                for reward, outcomes in zip(state_rewards, state_moves, strict=True)
            )
            for state_rewards, state_moves in zip(rewards, moves, strict=True)
        ]
        change = [new - old for new, old in zip(backed_up, values, strict=True)]
        low, high = min(change), max(change)
        values = backed_up
        if factor * (high - low) <= 2 * work.TOLERANCE:
            return np.array(values) + factor * (low + high) / 2


def ensure_peer_environment() -> Path:
    """Return the Python of the peers' virtual environment, made on the first call."""
    python = PEER_ENVIRONMENT / "bin" / "python"
    stamp = PEER_ENVIRONMENT / "requirements.txt"
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    where = PEER_ENVIRONMENT.relative_to(ROOT)
    print(f"Setting up quantecon and mdptoolbox in {where}; once.", file=sys.stderr)
    venv.create(PEER_ENVIRONMENT, with_pip=True, clear=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", str(REQUIREMENTS)], check=True)
    stamp.write_text(wanted, encoding="utf-8")  # written last: an interrupted set-up starts over
    return python


if __name__ == "__main__":
    print_table(run())
