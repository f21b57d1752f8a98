"""`textgym new-plugin`: what it writes is built, installed, tested, and conforms."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from textgym.cli.main import main
from textgym.cli.new_plugin import names_for
from textgym.testing import REWARD_RULES

Install = Callable[..., None]


@pytest.fixture
def new_plugin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[int, str, str]]:
    def new_plugin(name: str) -> tuple[int, str, str]:
        code = main(["new-plugin", name, "--directory", str(tmp_path)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return new_plugin


def test_new_plugin_passes_its_own_tests_and_the_kit_once_installed(
    new_plugin: Callable[[str], tuple[int, str, str]],
    build_wheel: Callable[[Path], Path],
    tmp_path: Path,
) -> None:
    code, out, _ = new_plugin("last_line")
    folder = tmp_path / "textgym-last-line"
    assert code == 0
    assert f"{folder} holds the distribution textgym-last-line with the reward 'last_line'" in out

    site, away = tmp_path / "site", tmp_path / "away"
    away.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target"]
    subprocess.run([*pip, site, build_wheel(folder)], check=True)
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=away, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path},
        )  # fmt: skip

    tests = run("pytest", "-q", "-p", "no:cacheprovider", folder)
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert f"{len(REWARD_RULES) + 6} passed" in tests.stdout
    kit = run("textgym", "plugins", "check", "last_line", "--json")
    assert kit.returncode == 0, kit.stdout + kit.stderr
    (report,) = json.loads(kit.stdout)
    assert (report["num_cases"], report["findings"]) == (3, [])
    listed = json.loads(run("textgym", "plugins", "--json").stdout)
    assert {"name": "last-line", "distribution": "textgym-last-line"}.items() <= next(
        plugin.items() for plugin in listed["plugins"] if plugin["name"] == "last-line"
    )
    assert run("textgym", "new-plugin", "last-line").stderr.startswith(
        "error: the reward 'last_line' is offered by textgym-last-line 0.1.0 already"
    )


def test_new_plugin_is_complete_and_clean(
    new_plugin: Callable[[str], tuple[int, str, str]], tmp_path: Path
) -> None:
    new_plugin("textgym-terse")
    folder = tmp_path / "textgym-terse"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {
        ".gitignore", "README.md", "pyproject.toml", "src/textgym_terse/__init__.py",
        "src/textgym_terse/cases/terse.jsonl", "src/textgym_terse/py.typed",
        "src/textgym_terse/reward.py", "tests/test_terse.py",
    }  # fmt: skip
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == "textgym-terse"
    assert project["dependencies"] == ["textgym>=0.1,<0.2"]
    assert project["entry-points"] == {"textgym": {"terse": "textgym_terse"}}
    assert "license" not in project
    for path in folder.rglob("*.py"):
        ast.parse(path.read_text())
    assert not [path for path in folder.rglob("*") if path.is_file() and "$" in path.read_text()]
    for tool in (["ruff", "check", "--isolated"], ["ruff", "format", "--isolated", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", *tool, folder, "--line-length=100"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("brevity", ("brevity", "brevity", "textgym-brevity", "textgym_brevity", "BrevityReward")),
        ("textgym-a-b2", ("a_b2", "a-b2", "textgym-a-b2", "textgym_a_b2", "AB2Reward")),
        ("a_b2", ("a_b2", "a-b2", "textgym-a-b2", "textgym_a_b2", "AB2Reward")),
        ("none", ("none", "none", "textgym-none", "textgym_none", "NoneReward")),
    ],
)
def test_names(name: str, names: tuple[str, ...]) -> None:
    assert names_for(name) == names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "'' cannot name a plugin: use at most 50 lower-case letters"),
        ("Brief", "'Brief' cannot name a plugin: .*; for example 'brief'"),
        ("my reward", "for example 'my-reward'"),
        ("../up", "for example 'up'"),
        ("a--b", "for example 'a-b'"),
        ("9lives", "for example 'lives'"),
        ("kürze", "cannot name a plugin"),
        ("x" * 51, "cannot name a plugin"),
        ("math", "the reward 'math' is offered by textgym .* already; choose another name"),
        ("plugins", "a module 'textgym_plugins' can be imported already"),
    ],
)
def test_bad_name_is_one_clear_error_and_writes_nothing(
    new_plugin: Callable[[str], tuple[int, str, str]], tmp_path: Path, name: str, message: str
) -> None:
    code, _, error = new_plugin(name)
    assert code == 2
    (line,) = error.splitlines()
    assert re.search(message, line), line
    assert list(tmp_path.iterdir()) == []


def test_installed_distribution_with_the_name_is_an_error(
    new_plugin: Callable[[str], tuple[int, str, str]], install: Install
) -> None:
    install("textgym-vacant", "")  # a plugin without rewards
    code, _, error = new_plugin("vacant")
    assert code == 2
    assert "the distribution textgym-vacant 0.1.0 is installed already" in error


def test_folder_that_exists_is_left_alone(
    new_plugin: Callable[[str], tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "textgym-terse").mkdir()
    code, _, error = new_plugin("terse")
    assert code == 2
    assert "textgym-terse exists already; remove it, choose another name" in error
    assert list((tmp_path / "textgym-terse").iterdir()) == []


def test_directory_that_is_not_there_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new-plugin", "terse", "--directory", str(tmp_path / "none")]) == 2
    assert "cannot be written: No such file or directory" in capsys.readouterr().err
