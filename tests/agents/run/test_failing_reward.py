"""Rewards that fail in every way while PPO goes on: each failure costs its own sample.

The policy says one letter, and the letter says what the rewards of a plugin do with it.
"""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from textgym.cli.main import main
from textgym.plugins import plugin_manager
from textgym_agents.lm.tiny import tiny_tokenizer

VALUES = {"o": 0.75, "p": 1.25}
"""What both rewards together give to the letters that they can judge."""
KINDS = {
    "r": "raised", "n": "not_finite", "w": "wrong_length", "h": "timeout", "m": "memory",
    "k": "crashed",
}  # fmt: skip
GUILTY = {"wrong_length": "short"}
PLUGIN = """
    import ctypes, os, signal
    from typing import ClassVar

    import textgym


    class Faulty(textgym.Reward):
        name: ClassVar[str] = "faulty"
        time_limit: ClassVar[float] = 2.0
        memory_limit: ClassVar[int] = 1 << 29

        def score(self, sample):
            if sample.completion == "r":
                raise RuntimeError("the verifier broke")
            if sample.completion == "n":
                return textgym.Score(float("nan"))
            if sample.completion == "h":
                ctypes.PyDLL(None).sleep(3600)  # in C code, holding the interpreter's lock
            if sample.completion == "m":
                held = []
                while True:
                    held.append(bytearray(1 << 26))
            if sample.completion == "k":
                os.kill(os.getpid(), signal.SIGKILL)
            return textgym.Score(1.0 if sample.completion == "p" else 0.5)


    class Short(textgym.Reward):
        name: ClassVar[str] = "short"

        def score_batch(self, samples):
            return [textgym.Score(0.25) for sample in samples if sample.completion != "w"]


    @textgym.hookimpl
    def textgym_rewards():
        return [Faulty, Short]
"""
QUICK = [
    "--preset", "seed", "--set", "iterations=2", "--set", "rollout.num_episodes=24",
    "--set", "rollout.num_envs=24", "--set", "rollout.max_new_tokens=1",
    "--set", "rollout.max_length=32",
    "--set", "env.kwargs={score_length_cut: true, num_workers: 4}",
    "--set", "ppo.batch_size=4", "--set", "evaluation.num_episodes=1",
    "--set", "log_rollouts=24", "--set", "checkpoint_every=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of two iterations, rewarded by the plugin `textgym-faulty`."""
    site, folder = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("run")
    info = site / "textgym_faulty-0.1.0.dist-info"
    info.mkdir()
    metadata = "Metadata-Version: 2.1\nName: textgym-faulty\nVersion: 0.1.0\n"
    (info / "METADATA").write_text(metadata)
    (info / "entry_points.txt").write_text("[textgym]\nfaulty = textgym_faulty\n")
    (site / "textgym_faulty.py").write_text(textwrap.dedent(PLUGIN))
    letters = tiny_tokenizer()("".join([*VALUES, *KINDS]))["input_ids"]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        plugin_manager.cache_clear()
        rewards = ["--set", "env.reward=[faulty, short]", "--set", f"policy.legal_ids={letters}"]
        assert main(["train", "--run", str(folder / "run"), *QUICK, *rewards]) == 0
    yield folder / "run"
    plugin_manager.cache_clear()


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def updates(run: Path) -> list[dict[str, Any]]:
    """The metrics of the iterations."""
    return [row for row in lines_of(run / "metrics.jsonl") if row["phase"] == "ppo"]


@pytest.fixture(scope="module")
def rollouts(run: Path) -> list[list[dict[str, Any]]]:
    """The records of the iterations."""
    return [lines_of(path) for path in sorted((run / "rollouts").glob("iteration-*.jsonl"))]


def test_each_failure_is_recorded_with_its_kind_its_plugin_and_its_sample(
    rollouts: list[list[dict[str, Any]]],
) -> None:
    records = [record for rollout in rollouts for record in rollout]
    assert len(records) == 2 * 24
    assert {record["completion"] for record in records} == {*VALUES, *KINDS}
    for record in records:
        kind = KINDS.get(record["completion"])
        assert record["failure"] == kind
        if kind is None:
            assert (record["status"], record["verifier_error"]) == ("scored", "")
            assert record["reward"] == VALUES[record["completion"]]
        else:
            said = record["verifier_error"]
            name = GUILTY.get(kind, "faulty")
            assert said.startswith(f"{kind}: '{name}' (plugin textgym-faulty 0.1.0) "), said
            assert said.endswith(f"(prompt '{record['prompt_id']}')"), said
            assert (record["status"], record["reward"]) == ("failed", None)


def test_failures_are_counted_by_kind(
    updates: list[dict[str, Any]], rollouts: list[list[dict[str, Any]]]
) -> None:
    for row, rollout in zip(updates, rollouts, strict=True):
        counts = Counter(r["failure"] for r in rollout if r["failure"])
        counted = {k: v for k, v in row.items() if k.startswith("rollout/failed/")}
        assert counted == {f"rollout/failed/{kind}": n for kind, n in counts.items()}
        assert row["rollout/num_failed"] == counts.total() > 0
        assert row["rollout/num_scored"] == 24 - counts.total() > 0


def test_failures_are_in_no_statistic_and_not_in_the_loss(
    updates: list[dict[str, Any]], rollouts: list[list[dict[str, Any]]]
) -> None:
    """Episodes of one token end there, so the return of a token is the reward of its episode."""
    for row, rollout in zip(updates, rollouts, strict=True):
        wanted = fmean(VALUES[r["completion"]] for r in rollout if not r["failure"])
        assert row["rollout/reward"] == pytest.approx(wanted)
        assert row["ppo/return"] == pytest.approx(wanted, rel=1e-5)


def test_training_goes_on(run: Path, updates: list[dict[str, Any]]) -> None:
    assert [row["iteration"] for row in updates] == [1, 2]
    assert all(row["ppo/grad_norm"] > 0 for row in updates)
    saved = [run / f"checkpoints/iteration-000000{n}/policy" for n in (1, 2)]
    weights = [(path / "model.safetensors").read_bytes() for path in saved]
    assert weights[0] != weights[1]
