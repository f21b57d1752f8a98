"""The tutorials can be followed: their files are written and their commands run, in order.

A block with a title is a file, a block of bash is run, and each line of the block `text` that
follows at once is found in what that printed. `<!-- exit code N -->` in front of a block says how
it ends. There is no network.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from textgym.cli.main import main

ROOT = Path(__file__).resolve().parent.parent
TUTORIALS = ROOT / "docs" / "tutorials"
STEP = re.compile(
    r"^(?:<!-- exit code (?P<code>\d+) -->\n|(?P<exempt><!-- not run: .+ -->\n))?"
    r"```(?P<language>\w+)(?: title=\"(?P<title>[^\"\n]+)\")?\n(?P<text>.*?)^```\n"
    r"(?:```text\n(?P<output>.*?)^```$)?",
    re.M | re.S,
)
COMMANDS = ("textgym", "pip", "pytest")
OFFLINE = {
    "HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}  # fmt: skip
Run = Callable[[str], tuple[int, str]]
"""From a block of bash to its exit code and what it printed."""


def follow(page: Path, folder: Path, run: Run, change: Callable[[str], str] = str) -> None:
    """Go through a tutorial in a folder; `change` is applied to the files that it writes."""
    steps = [s for s in STEP.finditer(page.read_text(encoding="utf-8")) if not s["exempt"]]
    assert any(step["language"] == "bash" for step in steps)
    for step in steps:
        if step["title"]:
            path = folder / step["title"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(change(step["text"]))
        elif step["language"] == "bash":
            code, printed = run(step["text"])
            assert code == int(step["code"] or 0), f"{step['text']}\n{printed}"
            words = " ".join(printed.split())
            for line in (step["output"] or "").splitlines():
                assert " ".join(line.split()) in words, printed


@pytest.fixture
def run_alone(tmp_path: Path) -> Run:
    """Run blocks in a virtual environment that sees the packages of this one."""
    folder = tmp_path / "venv"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    beside = sysconfig.get_paths()["purelib"]
    site = folder / "lib" / version / "site-packages"
    (site / "beside.pth").write_text(f"import site; site.addsitedir({beside!r})\n")
    for name in COMMANDS:
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nexec "{python}" -m {name} "$@"\n')
        command.chmod(0o755)
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | OFFLINE | {"PATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}

    def run(script: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "-e", "-c", script], cwd=tmp_path, env=environment, text=True, timeout=300,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.returncode, done.stdout

    return run


@pytest.fixture
def run_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run `textgym` in this process, where everything is imported once for all commands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(script: str) -> tuple[int, str]:
        for line in script.replace("\\\n", " ").splitlines():
            command, *arguments = shlex.split(line)
            assert command == "textgym"
            code = main(arguments)
            if code:
                break
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def evaluations(run_folder: Path) -> list[dict[str, float]]:
    rows = map(json.loads, (run_folder / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if row["phase"] == "evaluation"]


def test_first_reward(tmp_path: Path, run_alone: Run) -> None:
    follow(TUTORIALS / "first-reward.md", tmp_path, run_alone)
    before, after = evaluations(tmp_path / "runs" / "closeness")
    key = "evaluation/sampled_reward"
    assert after[key] > before[key] + 0.05


def test_ppo_gsm8k(tmp_path: Path, run_here: Run, shared_data: Callable[[str], Path]) -> None:
    """The very commands, on another model and fewer rows; the sizes in the file are cut."""
    from textgym_agents.lm.tiny import tiny_model, tiny_tokenizer

    model = tmp_path / "Qwen" / "Qwen2.5-0.5B-Instruct"  # a folder comes before the hub
    tokenizer = tiny_tokenizer()
    tiny_model(tokenizer, seed=0).save_pretrained(model)
    tokenizer.save_pretrained(model)
    for name, number in (("gsm8k_train.jsonl", 64), ("gsm8k_test.jsonl", 4)):
        lines = shared_data(name).read_text(encoding="utf-8").splitlines(keepends=True)
        (tmp_path / name).write_text("".join(lines[:number]), encoding="utf-8")
    cuts = {
        "iterations: 100": "iterations: 2", "num_episodes: 256": "num_episodes: 8",
        "num_envs: 256": "num_envs: 8", "batch_size: 64": "batch_size: 4",
        "max_new_tokens: 512": "max_new_tokens: 12", "num_episodes: 200": "num_episodes: 4",
    }  # fmt: skip

    def cut(text: str) -> str:
        for old, new in cuts.items():
            assert old in text
            text = text.replace(old, new)
        return text

    follow(TUTORIALS / "ppo-gsm8k.md", tmp_path, run_here, cut)
    assert [row["iteration"] for row in evaluations(tmp_path / "runs" / "gsm8k")] == [0, 2]
    for name in ("before", "after"):
        items = tmp_path / "evaluations" / name / "gsm8k" / "items.jsonl"
        assert len(items.read_text().splitlines()) == 4
