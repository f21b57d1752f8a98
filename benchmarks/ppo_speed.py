"""PPO on a language model against TRL's PPOTrainer: tokens a second and peak memory.

Both sides train the same randomly initialised 3.3-million-parameter Qwen2 on prompts of the same
length, in float32 on the CPU with the same number of threads, each in processes of their own that
take turns, so that a machine that slows down for a while slows both. An iteration is the whole of
it: a rollout of 64 prompts with 32 new tokens each, rewards, reference log-probabilities, values
and advantages, then 4 epochs of 4 minibatches. Each process reports how many tokens it generated
and how many optimiser steps it took; both must be what was agreed.

What differs is what is compared. TRL trains a second model of the policy's size for the value; here
the value is a head on the policy's trunk. TRL keeps the sampler's scores of the whole vocabulary;
here one more forward pass of the policy recomputes the log-probabilities. TRL scores with a (here
very small) reward model; here completions go as text through a Gymnasium environment and a reward
in plain Python.
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
from typing import cast

from benchmarks import ppo_speed_model as work
from benchmarks.table import Row

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = Path(__file__).with_name("requirements-trl.txt")
TRL_ENVIRONMENT = ROOT / ".bench" / "trl"

SPEED_TARGET = 1.7
MEMORY_TARGET = 1.0
MODULES = {"textgym": "benchmarks.ppo_speed_ours", "trl": "benchmarks.ppo_speed_trl"}


def run(*, num_rounds: int = 3, num_iterations: int = 4, num_threads: int = 1) -> list[Row]:
    """Measure both sides in turns and return the rows of speed and memory."""
    pythons = {"textgym": sys.executable, "trl": str(ensure_trl_environment())}
    measured: dict[str, list[work.Measurement]] = {side: [] for side in MODULES}
    for _ in range(num_rounds):
        for side, module in MODULES.items():
            command = [pythons[side], "-m", module, f"--threads={num_threads}"]
            measurement = run_side([*command, f"--iterations={num_iterations}"], num_threads)
            check_work(measurement)
            measured[side].append(measurement)
            print(describe(measurement), file=sys.stderr, flush=True)
    return build_rows(measured["textgym"], measured["trl"])


def build_rows(ours: Sequence[work.Measurement], peer: Sequence[work.Measurement]) -> list[Row]:
    """Return the rows of the medians over the rounds of each side."""
    num_threads, trl_version = peer[0]["num_threads"], peer[0]["versions"]["trl"]
    against = f"TRL {trl_version} PPOTrainer, {num_threads} thread{'s'[: num_threads > 1]}"
    return [
        Row(
            name="PPO iteration on a 3.3 M Qwen2",
            ours=statistics.median(m["tokens_per_second"] for m in ours),
            peer=statistics.median(m["tokens_per_second"] for m in peer),
            unit="tokens/s",
            target=SPEED_TARGET,
            note=against,
        ),
        Row(
            name="PPO peak memory",
            ours=statistics.median(m["peak_rss_mib"] for m in ours),
            peer=statistics.median(m["peak_rss_mib"] for m in peer),
            unit="MiB",
            target=MEMORY_TARGET,
            is_cost=True,
            note=against,
        ),
    ]


def ensure_trl_environment() -> Path:
    """Return the Python of TRL's virtual environment, made on the first call."""
    python = TRL_ENVIRONMENT / "bin" / "python"
    stamp = TRL_ENVIRONMENT / "requirements.txt"
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print(f"Setting up TRL in {TRL_ENVIRONMENT.relative_to(ROOT)}; once.", file=sys.stderr)
    venv.create(TRL_ENVIRONMENT, with_pip=True, clear=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", str(REQUIREMENTS)], check=True)
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


def check_work(measurement: work.Measurement) -> None:
    """Raise unless the side generated every token and took every optimiser step of an iteration."""
    expected = {
        "num_response_tokens": work.NUM_PROMPTS * work.RESPONSE_LENGTH,
        "num_optimizer_steps": work.NUM_EPOCHS * work.NUM_MINIBATCHES,
    }
    for name, count in expected.items():
        found = measurement[name]  # type: ignore[literal-required]  # both names are its keys
        if found != count:
            raise RuntimeError(
                f"{measurement['side']} did other work than agreed: {name} is {found} an "
                f"iteration, not {count}"
            )
