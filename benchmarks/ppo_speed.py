"""PPO and GRPO on a language model against TRL's trainers: tokens a second and peak memory.

Both sides train the same randomly initialised 4.6-million-parameter Qwen2 on the same prompts, in
float32 on the CPU with the same number of threads, each in processes of their own that take turns,
so that a machine that slows down for a while slows both. An iteration is the whole of it: a rollout
of 64 completions, rewards, whatever the algorithm scores, advantages, then 4 epochs of 4
minibatches. Each process reports how many tokens it generated and how many optimiser steps it took;
both must be what was agreed. The work is `fixed`, prompts of 16 tokens and completions of 32, or
`ragged`, prompts of 8 to 64 and completions that end after about 32 of at most 96.

What differs is what is compared. TRL trains a second model of the policy's size for the value; here
the value is a head on the policy's trunk. TRL keeps the sampler's scores of the whole vocabulary;
here one more forward pass of the policy recomputes the log-probabilities. TRL scores with a (here
very small) reward model; here completions go as text through a Gymnasium environment and a reward
in plain Python. Where this library takes other matrix products than torch's own (`cpu_matmul`), a
row of its own says what PPO does without them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

from benchmarks import ppo_speed_model as work
from benchmarks.places import ROOT
from benchmarks.table import Row
from textgym_agents.lm.cpu_matmul import prefers_onednn

REQUIREMENTS = Path(__file__).with_name("requirements-trl.txt")
TRL_ENVIRONMENT = ROOT / ".bench" / "trl"

PPO_SIDE = ("-m", "benchmarks.ppo_speed_ours")
FIXED_SIDE = (*PPO_SIDE, "--micro-batch-tokens=192")  # a quarter of a minibatch
GRPO_SIDE = ("-m", "benchmarks.ppo_speed_ours", "--algorithm=grpo")
MEMORY_TARGET = 0.6


class Comparison(NamedTuple):
    """Two sides that do the same work."""

    name: str
    work: str
    ours: tuple[str, ...]
    peer: tuple[str, ...]
    trainer: str
    speed_target: float
    has_memory: bool = True
    is_in_trl_environment: bool = True
    """Whether both run in the virtual environment of TRL 1.10, or in this one with its TRL."""


PPO_PEER = ("-m", "benchmarks.ppo_speed_trl")
GRPO_PEER = ("-m", "benchmarks.grpo_speed_trl")
PLAIN = Comparison(
    "PPO, fixed lengths, torch's products", "fixed", (*PPO_SIDE, "--torch-products"), PPO_PEER,
    "PPOTrainer", 1.7, has_memory=False,
)  # fmt: skip
COMPARISONS = (
    Comparison("PPO, fixed lengths", "fixed", FIXED_SIDE, PPO_PEER, "PPOTrainer", 2.2),
    Comparison("PPO, ragged lengths", "ragged", PPO_SIDE, PPO_PEER, "PPOTrainer", 3.0),
    Comparison(
        "GRPO, fixed lengths", "fixed", GRPO_SIDE, GRPO_PEER, "GRPOTrainer", 1.5,
        has_memory=False, is_in_trl_environment=False,
    ),
    Comparison(
        "GRPO, ragged lengths", "ragged", GRPO_SIDE, GRPO_PEER, "GRPOTrainer", 1.5,
        has_memory=False, is_in_trl_environment=False,
    ),
)  # fmt: skip


def run(*, num_rounds: int = 3, num_iterations: int = 3, num_threads: int = 1) -> list[Row]:
    """Measure both sides of each comparison in turns and return the rows."""
    comparisons = (*COMPARISONS, *([PLAIN] if prefers_onednn() else []))
    rows = []
    for comparison in comparisons:
        print(f"  {comparison.name}", file=sys.stderr, flush=True)
        rows += compare(comparison, num_rounds, num_iterations, num_threads)
    return rows


def compare(
    comparison: Comparison, num_rounds: int, num_iterations: int, num_threads: int
) -> list[Row]:
    """Return the rows of one comparison."""
    options = (
        f"--work={comparison.work}", f"--threads={num_threads}", f"--iterations={num_iterations}",
    )  # fmt: skip
    python = str(ensure_trl_environment()) if comparison.is_in_trl_environment else sys.executable
    commands = {
        "ours": [python, *comparison.ours, *options],
        "peer": [python, *comparison.peer, *options],
    }
    measured: dict[str, list[work.Measurement]] = {side: [] for side in commands}
    for _ in range(num_rounds):
        for side, command in commands.items():
            measurement = run_side(command, num_threads)
            check_work(measurement, work.WORKS[comparison.work])
            measured[side].append(measurement)
            print(describe(measurement), file=sys.stderr, flush=True)
    return build_rows(comparison, measured["ours"], measured["peer"])


def build_rows(
    comparison: Comparison, ours: Sequence[work.Measurement], peer: Sequence[work.Measurement]
) -> list[Row]:
    """Return the rows of the medians over the rounds of each side."""
    num_threads, version = peer[0]["num_threads"], peer[0]["versions"]["trl"]
    threads = f"{num_threads} thread{'s'[: num_threads > 1]}"
    against = f"TRL {version} {comparison.trainer}, {threads}"
    rows = [
        Row(
            name=comparison.name,
            ours=statistics.median(m["tokens_per_second"] for m in ours),
            peer=statistics.median(m["tokens_per_second"] for m in peer),
            unit="tokens/s",
            target=comparison.speed_target,
            note=against,
        )
    ]
    if comparison.has_memory:
        memory = {
            "peak memory": lambda m: m["peak_rss_mib"],
            "peak memory above the imports": lambda m: m["peak_rss_mib"] - m["import_rss_mib"],
        }
        rows += [
            Row(
                name=f"{comparison.name}: {name}",
                ours=statistics.median(map(read, ours)),
                peer=statistics.median(map(read, peer)),
                unit="MiB",
                target=MEMORY_TARGET,
                is_cost=True,
                note=against,
            )
            for name, read in memory.items()
        ]
    return rows


def ensure_trl_environment() -> Path:
    """Return the Python of TRL 1.10's virtual environment, made on the first call."""
    python = TRL_ENVIRONMENT / "bin" / "python"
    stamp = TRL_ENVIRONMENT / "requirements.txt"
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print(f"Setting up TRL in {TRL_ENVIRONMENT.relative_to(ROOT)}; once.", file=sys.stderr)
    venv.create(TRL_ENVIRONMENT, with_pip=True, clear=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", str(REQUIREMENTS)], check=True)
    subprocess.run([*pip, "--no-deps", "--editable", str(ROOT)], check=True)
    stamp.write_text(wanted, encoding="utf-8")  # written last: an interrupted set-up starts over
    return python


def run_side(command: Sequence[str], num_threads: int) -> work.Measurement:
    """Run one process of one side and return what its last line of output says."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(num_threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"'{' '.join(command)}' failed:\n{done.stderr[-4000:]}")
    return cast(work.Measurement, json.loads(done.stdout.splitlines()[-1]))


def describe(measurement: work.Measurement) -> str:
    """Return one line of progress; much less processor than wall-clock time is a busy machine."""
    wall = statistics.median(measurement["seconds"])
    return (
        f"  {measurement['side']}: {measurement['tokens_per_second']:.0f} tokens/s, "
        f"{measurement['peak_rss_mib']:.0f} MiB; an iteration took {wall:.2f} s, "
        f"{measurement['cpu_seconds']:.2f} s of them computing"
    )


def check_work(measurement: work.Measurement, lengths: work.Work) -> None:
    """Raise unless the side generated the tokens and took the optimiser steps of an iteration.

    Where responses end by themselves their number may be off by chance, by a quarter.
    """
    wanted = work.NUM_PROMPTS * lengths.mean_response
    slack = 0.0 if lengths.end_probability is None else wanted / 4
    found = measurement["num_response_tokens"]
    if abs(found - wanted) > slack:
        raise RuntimeError(
            f"{measurement['side']} did other work than agreed: {found} response tokens an "
            f"iteration, not {wanted:g}"
        )
    num_steps = work.NUM_EPOCHS * work.NUM_MINIBATCHES
    if measurement["num_optimizer_steps"] != num_steps:
        raise RuntimeError(
            f"{measurement['side']} did other work than agreed: "
            f"{measurement['num_optimizer_steps']} optimiser steps an iteration, not {num_steps}"
        )
