"""`textgym train` and `textgym evaluate`: a mistake is one clear error and leaves no run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from textgym.cli.main import main

QUICK = [
    "--set", "iterations=1", "--set", "rollout.num_episodes=4", "--set", "rollout.num_envs=4",
    "--set", "rollout.max_new_tokens=2", "--set", "rollout.max_length=32",
    "--set", "evaluation.num_episodes=2",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "reward.py").write_text("def length(sample):\n    return len(sample.completion)\n")


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail on usage, and return the one error that it prints."""
    assert main(arguments) == 2
    printed = capsys.readouterr().err
    assert printed.count("error: ") == 1
    assert "Traceback" not in printed
    return printed


MISTAKES = {
    "a typo": (
        ["--set", "ppo.gama=1"], ["no field 'ppo.gama'", "Did you mean 'ppo.gamma'?"],
    ),
    "a field at the wrong level": (
        ["--set", "learning_rate=1e-4"], ["Did you mean 'ppo.optimizer.learning_rate'?"],
    ),
    "a batch larger than the rollout": (
        ["--preset", "seed", "--set", "ppo.batch_size=8"],
        ["ppo.batch_size (8) is larger than rollout.num_episodes (4)"],
    ),
    "environments that do not divide the rollout": (
        ["--preset", "seed", "--set", "rollout.num_envs=3"],
        ["num_episodes (4) must be a multiple of num_envs (3)"],
    ),
    "an unknown model": (
        ["--model", "./no-such-folder"], ["policy.model: cannot load './no-such-folder'"],
    ),
    "an unknown preset": (
        ["--preset", "sead"], ["no preset named 'sead'. Did you mean 'seed'?", "arithmetic"],
    ),
    "an unknown mode": (
        ["--set", "policy.mode.kind=qlora"], ["policy.mode", "'full'", "'lora'", "'last_k'"],
    ),
    "a missing file": (["missing.yaml"], ["missing.yaml: cannot be read"]),
    "an unknown environment's module": (
        ["--set", "env.id=no_such_module:X-v0", "--set", "iterations=1"], ["no_such_module"],
    ),
    "an unknown environment": (
        ["--set", "env.id=TextJym-v0", "--set", "iterations=1"], ["TextJym"],
    ),
    "an unknown argument of the environment": (
        ["--set", "env.kwargs.splitt=all"], ["splitt", "split"],
    ),
    "missing prompts": (["--prompts", "missing.jsonl"], ["missing.jsonl"]),
    "an unknown reward": (["--reward", "mth"], ["no reward named 'mth'"]),
    "legal ids that are none": (
        ["--set", "policy.legal_ids=[1000]"], ["policy.legal_ids: expected ids of 0 to 258"],
    ),
    "a resumed run with a preset": (
        ["--resume", "--preset", "seed"], ["leave out the configuration file, --preset and --run"],
    ),
    "a resumed run that there is not": (["--resume"], ["--resume: there is no run in"]),
    "a resumed folder that is none": (["--resume", "here"], ["here is not a run directory"]),
    "a resumed run with another algorithm": (
        ["--resume", "here", "--set", "ppo.gamma=1"], ["'ppo.gamma' cannot change within a run"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_error(capsys: pytest.CaptureFixture[str], mistake: str) -> None:
    arguments, parts = MISTAKES[mistake]
    said = error_of(capsys, "train", *arguments)
    assert all(part in said for part in parts), said
    assert not list(Path().glob("runs/*/config.yaml"))  # nothing that looks like a run


def test_a_run_is_not_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    run = ["train", "--preset", "seed", "--run", "run", "--reward", "reward.py:length", *QUICK]
    assert "cannot load" in error_of(capsys, *run, "--model", "./none")
    assert main(run) == 0  # the attempt before is not in the way
    before = Path("run/metrics.jsonl").read_bytes()
    said = error_of(capsys, *run)
    assert "run holds a run already; continue it with --resume run" in said
    assert Path("run/metrics.jsonl").read_bytes() == before


def test_a_run_without_a_checkpoint_is_not_evaluated(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run").mkdir()
    Path("run/config.yaml").write_text("{}")
    assert "run has no checkpoint yet" in error_of(capsys, "evaluate", "run")


def test_evaluate_is_honest_about_failed_rewards(capsys: pytest.CaptureFixture[str]) -> None:
    Path("reward.py").write_text("def fails(sample):\n    raise RuntimeError('no')\n")
    cut = ["--set", "env.kwargs.score_length_cut=true", "--set", "rollout.max_new_tokens=2"]
    reward = ["--reward", "reward.py:fails", "--episodes", "3", "--json"]
    assert main(["evaluate", "tiny", *reward, *cut]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["evaluation/greedy"] is None
    assert found["evaluation/greedy_reward"] is None
    assert found["evaluation/greedy_failed"] == 3
