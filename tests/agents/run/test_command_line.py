"""`textgym train` and `textgym evaluate`: a mistake is one clear error and leaves no run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

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
    (tmp_path / "folder").mkdir()
    (tmp_path / "bad.yaml").write_text("ppo: {gamma: 1\nseed: 0\n")
    (tmp_path / "list.yaml").write_text("- seed\n")
    (tmp_path / "stored").mkdir()
    (tmp_path / "stored" / "config.yaml").write_text("seed: 0\n")


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
    "a group of one": (
        ["--preset", "grpo", "--set", "rollout.samples_per_prompt=1"],
        ["ppo.estimator is grpo", "rollout.samples_per_prompt is 1; set it to 2 or more"],
    ),
    "a group with a discount": (
        ["--preset", "rloo", "--set", "ppo.gamma=0.99"],
        ["gamma is 0.99", "set gamma to 1 or take gae"],
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
        ["--set", "policy.mode.kind=lora2"], ["policy.mode", "'full'", "'lora'", "'last_k'"],
    ),
    "a missing file": (["missing.yaml"], ["missing.yaml: cannot be read"]),
    "a folder as the configuration": (["folder"], ["folder: cannot be read: Is a directory"]),
    "malformed YAML": (["bad.yaml"], ["bad.yaml, line 2, column 5: "]),
    "YAML without fields": (["list.yaml"], ["list.yaml: expected `field: value` lines"]),
    "an override without a value": (["--set", "seed"], ["--set seed: expected FIELD=VALUE"]),
    "an override of the wrong type": (
        ["--set", "iterations=many"], ["--set iterations=many: 'iterations' is 'many'"],
    ),
    "a seed that is no number": (["--seed", "abc"], ["argument --seed: invalid int value: 'abc'"]),
    "a negative seed": (["--seed", "-1"], ["'seed' is -1: Input should be greater than"]),
    "no threads": (["--threads", "0"], ["'threads' is 0: Input should be greater than 0"]),
    "an unknown device": (["--device", "tpu"], ["'device' is 'tpu'", "'cpu'"]),
    "an unknown engine": (
        ["--engine", "vlm"], ["no engine named 'vlm'. Did you mean 'vllm'?", "vllm-server"],
    ),
    "a server for another engine": (
        ["--url", "http://127.0.0.1:1"], ["--url names a vLLM server", "--engine vllm-server"],
    ),
    "a server that does not answer": (
        ["--engine", "vllm-server", "--url", "http://127.0.0.1:9", "--set",
         "engine.reconnect_seconds=0"],
        ["no vLLM server answers (http://127.0.0.1:9: ConnectError", "textgym vllm-server"],
    ),
    "an engine for agents without a language model": (
        ["--agent", "q_learning", "--env", "Taxi-v3", "--engine", "vllm"],
        ["--engine and --url are for language models"],
    ),
    "a misspelt option": (["--thread", "1"], ["'--thread'. Did you mean '--threads'?"]),
    "two configurations": (["bad.yaml", "list.yaml"], ["unexpected argument 'list.yaml'"]),
    "a model's folder that is none": (
        ["--model", "folder"], ["cannot load 'folder': the folder has no config.json"],
    ),
    "a file as the run directory": (["--run", "bad.yaml"], ["--run bad.yaml is a file"]),
    "a run directory in a file": (
        ["--run", "bad.yaml/run"], ["bad.yaml/run cannot be made: Not a directory"],
    ),
    "an environment without text": (
        ["--set", "env.id=CartPole-v1", "--set", "iterations=1"],
        ["env.id: 'CartPole-v1' cannot be made as a text environment", "action_mode"],
    ),
    "a folder as prompts": (["--prompts", "folder"], ["folder: cannot be read: Is a directory"]),
    "an unknown prompt source": (["--prompts", "arithmetik"], ["Did you mean 'arithmetic'?"]),
    "a reward's file that is missing": (["--reward", "no.py:f"], ["no.py", "No such file"]),
    "a reward's function that is missing": (
        ["--reward", "reward.py:lenght"], ["no function 'lenght'. Did you mean 'length'?"],
    ),
    "a resumed file": (["--resume", "bad.yaml"], ["bad.yaml is not a run directory"]),
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
        ["--resume", "--preset", "seed"], ["leave out the configuration file, --agent, --preset"],
    ),
    "a resumed run that there is not": (["--resume"], ["--resume: there is no run in"]),
    "a resumed folder that is none": (["--resume", "here"], ["here is not a run directory"]),
    "a resumed run with another algorithm": (
        ["--resume", "stored", "--set", "ppo.gamma=1"], ["'ppo.gamma' cannot change within a run"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_error(capsys: pytest.CaptureFixture[str], mistake: str) -> None:
    arguments, parts = MISTAKES[mistake]
    said = error_of(capsys, "train", *arguments)
    assert all(part in said for part in parts), said
    assert not Path("runs").exists()  # nothing that looks like a run


def test_an_engine_that_is_not_installed_is_one_clear_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("textgym_agents.lm.engines.installation.find_spec", lambda name: None)
    for arguments in (["train", "--engine", "vllm"], ["vllm-server", "tiny"]):
        said = error_of(capsys, *arguments)
        assert "needs the package vllm, which is not installed" in said
        assert "pip install vllm==0.32.0" in said
        assert "docs/engines.md" in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("preset", ["grpo", "bestworst16"])
def test_presets_of_algorithms_run_in_the_embedded_world(
    preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("textgym_agents.lm.trainer.plot_run", lambda run: None)
    small = [
        "--set", "rollout.num_episodes=32", "--set", "rollout.num_envs=32",
        "--set", "ppo.batch_size=16", "--set", "cold_start.steps=1",
    ]  # fmt: skip
    assert main(["train", "--preset", preset, "--run", "run", *QUICK[:2], *QUICK[-2:], *small]) == 0
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    (row,) = [row for row in rows if row["phase"] == "ppo"]
    assert row["groups/num_drawn"] == 32 / 8 if preset == "grpo" else row["groups/num_drawn"] > 1


def test_a_gpu_that_is_not_there_is_one_clear_error(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["train"], ["evaluate", "tiny"]):
        said = error_of(capsys, *arguments, "--device", "cuda")
        assert "device is 'cuda', but torch finds no GPU" in said


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


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "the following arguments are required: RUN|MODEL"),
        (["./nowhere"], "policy.model: cannot load './nowhere'"),
        (["folder"], "the folder has no config.json"),
        (["tiny", "--episodes", "0"], "'evaluation.num_episodes' is 0"),
        (["tiny", "--episodes", "few"], "argument --episodes: invalid int value: 'few'"),
        (["tiny", "--prompts", "missing.jsonl"], "missing.jsonl: cannot be read"),
        (["tiny", "--reward", "mth"], "no reward named 'mth'"),
        (["tiny", "--set", "env.kwargs.evaluation_share=0"], "split='evaluation' is empty"),
    ],
)
def test_a_mistake_in_evaluate_is_one_clear_error(
    capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    assert part in error_of(capsys, "evaluate", *arguments)


def test_evaluate_ends_with_an_interrupt(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import pathlib, time\n"
        "def slow(sample):\n"
        "    pathlib.Path('started').touch()\n"
        "    time.sleep(60)\n"
    )
    command = ["evaluate", "tiny", "--reward", "slow.py:slow", "--set", "rollout.max_new_tokens=2"]
    cut = ["--set", "env.kwargs.score_length_cut=true"]
    process = subprocess.Popen(
        [sys.executable, "-m", "textgym", *command, *cut], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "interrupted\n")


def test_evaluate_is_honest_about_failed_rewards(capsys: pytest.CaptureFixture[str]) -> None:
    Path("reward.py").write_text("def fails(sample):\n    raise RuntimeError('no')\n")
    cut = ["--set", "env.kwargs.score_length_cut=true", "--set", "rollout.max_new_tokens=2"]
    reward = ["--reward", "reward.py:fails", "--episodes", "3", "--json"]
    assert main(["evaluate", "tiny", *reward, *cut]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["evaluation/greedy"] is None
    assert found["evaluation/greedy_reward"] is None
    assert found["evaluation/greedy_failed"] == 3
