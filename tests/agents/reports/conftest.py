"""Run directories that are written here, and a browser."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

Record = dict[str, Any]
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOSTILE = "</script><img src=x onerror=alert(1)>\x00\x1b[2J\u202egnp\ud800 & {{title}}"


def rollout(i: int, **fields: Any) -> Record:
    """Return the record of an episode that says `n<i>`, of which every second is right."""
    text = [f"n{i}", "!", "<|end|>"]
    return {
        "prompt": f"Count to {i}",
        "completion": "".join(text[:2]),
        "reward": float(i % 2),
        "num_tokens": 3,
        "failure": None,
        "prompt_id": f"p{i}",
        "finish_reason": "stop",
        "is_success": bool(i % 2),
        "reward_parts": {"math": float(i % 2), "length": i / 10},
        "status": "scored",
        "label": "correct" if i % 2 else "wrong",
        "reason": f"because {i}",
        "extracted": str(i),
        "target": str(i),
        "metadata": {"task": "counting"},
        "tokens": {
            "text": text,
            "logprobs": [-0.5, -0.25, -0.125],
            "values": [0.1, 0.2, 0.3],
            "advantages": [-1.0, 0.5, 1.0],
            "kl": [0.01, -0.02, 0.03],
        },
        **fields,
    }


@pytest.fixture(scope="session")
def make_record() -> Callable[..., Record]:
    """Return the function `rollout`."""
    return rollout


@pytest.fixture(scope="session")
def hostile() -> str:
    """A text that would end a script, ring, turn the line round, or be no UTF-8."""
    return HOSTILE


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    """Return a function that writes the directory of a language model's run."""

    def make(path: Path, *, iterations: int = 4, seed: int = 0, **files: Sequence[Record]) -> Path:
        (path / "rollouts").mkdir(parents=True)
        config = {"seed": seed, "iterations": iterations, "policy": {"model": "tiny"}}
        (path / "config.yaml").write_text(yaml.safe_dump(config))
        rows = [evaluation_row(0, 0.25)]
        for i in range(1, iterations + 1):
            rows.append(update_row(i, seed))
        rows.append(evaluation_row(iterations, 0.75))
        rows.append({"phase": "alarm", "iteration": 2, "text": "the entropy fell"})
        write_lines(path / "metrics.jsonl", rows)
        for name, records in files.items():
            write_lines(path / "rollouts" / f"{name.replace('_', '-')}.jsonl", records)
        return path

    return make


def update_row(i: int, seed: int) -> Record:
    return {
        "phase": "ppo", "iteration": i, "rollout/reward": i / 10 + seed, "rollout/reward_std": 0.5,
        "rollout/num_scored": 100.0, "rollout/success": i / 10, "ppo/entropy": 1.0 - i / 10,
        "time/generation_seconds": 1.0, "time/update_seconds": 2.0, "time/rollout_seconds": 1.5,
    }  # fmt: skip


def evaluation_row(i: int, value: float) -> Record:
    return {
        "phase": "evaluation", "iteration": i, "evaluation/num_episodes": 100.0,
        "evaluation/greedy": value, "evaluation/greedy_failed": 0.0,
        "evaluation/greedy_reward": value, "evaluation/greedy_reward_std": 0.4,
    }  # fmt: skip


def write_lines(path: Path, rows: Sequence[Record]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; skip the test where there is none.

    One per file: while it is there, an event loop runs that no other test may meet.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = [os.environ.get("CHROMIUM", ""), *CHROMIUMS]
    path = next((found for name in names if name and (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no Chromium here: none of {', '.join(CHROMIUMS)} (set CHROMIUM)")
    with sync_api.sync_playwright() as playwright:
        # Chromium's own sandbox refuses to run as root; the pages are ours.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = playwright.chromium.launch(executable_path=path, args=arguments)
        yield chromium
        chromium.close()
