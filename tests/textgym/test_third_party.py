"""Third parties: plugins built as wheels and installed by pip, beside the wheel of textgym.

The environment is a new one with textgym's base dependencies alone. It is made once; each bad
plugin is installed into a folder of its own, which its test alone puts on the path.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BREVITY = ROOT / "tests" / "third_party" / "textgym-brevity"
Build = Callable[[Path], Path]
Run = Callable[..., "subprocess.CompletedProcess[str]"]

PROJECT = """
    [build-system]
    requires = ["hatchling"]
    build-backend = "hatchling.build"

    [project]
    name = "{name}"
    version = "{version}"
    dependencies = ["textgym"]
    entry-points.textgym.{plugin} = "{module}"

    [tool.hatch.build.targets.wheel]
    only-include = ["{module}.py"]
"""
SCORE = """
    import textgym
    with textgym.Scorer("brevity") as scorer:
        prompt = textgym.Prompt(id="1", messages="q")
        print(scorer.score_batch([textgym.Sample(prompt, "one two three four five")])[0].value)
"""


def call(
    *arguments: str | Path, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "TEXTGYM_PLUGINS")}
    return subprocess.run(
        arguments, cwd=cwd, capture_output=True, text=True, env=kept | environment, timeout=300
    )


def must(*arguments: str | Path) -> None:
    done = call(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def fresh(
    build_wheel: Build, brevity_wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of programs of a new environment with textgym and textgym-brevity."""
    folder = tmp_path_factory.mktemp("fresh")
    must(sys.executable, "-m", "venv", folder)
    wheels = [build_wheel(ROOT), brevity_wheel]
    must(folder / "bin" / "pip", "install", "-q", "-c", ROOT / "constraints.txt", *wheels)
    return folder / "bin"


@pytest.fixture
def run(fresh: Path, tmp_path: Path) -> Run:
    """Return a function that runs a program of the new environment, far from the repository."""

    def run(
        program: str, *arguments: str, site: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        if site is not None:
            environment["PYTHONPATH"] = str(site)
        arguments = tuple(textwrap.dedent(argument) for argument in arguments)
        return call(fresh / program, *arguments, cwd=tmp_path, **environment)

    return run


@pytest.fixture
def install_bad(build_wheel: Build, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that builds and installs a plugin from its source; returns where."""

    def install(name: str, source: str, *, version: str = "0.1.0") -> Path:
        module = name.replace("-", "_")
        project = tmp_path / name
        project.mkdir()
        plugin = name.removeprefix("textgym-")
        (project / "pyproject.toml").write_text(
            textwrap.dedent(PROJECT).format(
                name=name, version=version, module=module, plugin=plugin
            )
        )
        (project / f"{module}.py").write_text(source)
        site = tmp_path / f"{name}-site"
        wheel = build_wheel(project)
        must(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel)
        return site

    return install


def plugins_of(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, object]]:
    assert done.returncode == 0, done.stderr
    return {plugin["distribution"]: plugin for plugin in json.loads(done.stdout)["plugins"]}


def test_plugin_is_listed_with_version_and_hooks(run: Run) -> None:
    done = run("textgym", "plugins", "--json")
    plugin = plugins_of(done)["textgym-brevity"]
    assert plugin == {
        "name": "brevity",
        "distribution": "textgym-brevity",
        "version": "0.1.0",
        "hooks": ["textgym_rewards"],
        "status": "loaded",
    }
    assert json.loads(done.stdout)["rewards"]["brevity"] == "brevity"
    text = run("textgym", "plugins", COLUMNS="200").stdout
    assert all(word in text for word in ("textgym-brevity", "0.1.0", "textgym_rewards"))


def test_plugin_scores_by_name_here_and_in_a_worker(run: Run, fresh: Path) -> None:
    done = run(
        "python",
        "-c",
        """
        import textgym
        print(textgym.__file__)
        reward = textgym.make_reward("brevity", max_words=10)
        sample = textgym.Sample(textgym.Prompt(id="1", messages="q"), "one two three")
        print(reward.score(sample).value)
        with textgym.Scorer(reward) as scorer:
            (score,) = scorer.score_batch([sample])
            print(score.value, score.reason)
        try:
            textgym.make_reward("brevty")
        except textgym.UnknownRewardError as error:
            print(error)
        """,
    )
    assert done.returncode == 0, done.stderr
    path, here, worker, error, installed = done.stdout.splitlines()
    assert Path(path).is_relative_to(fresh.parent)  # the wheel, and not this folder
    assert (here, worker) == ("0.7", "0.7 3 words")
    assert error == "no reward named 'brevty'. Did you mean 'brevity'?"
    assert "brevity (textgym-brevity 0.1.0)" in installed


def test_plugin_rewards_the_steps_of_an_environment(run: Run) -> None:
    done = run(
        "python",
        "-c",
        """
        import gymnasium
        env = gymnasium.make("textgym:TextGen-v0", action_mode="text", reward="brevity")
        env.reset(seed=0)
        _, reward, terminated, _, info = env.step("one two three four five")
        print(reward, terminated, info["reward_parts"])
        env.close()
        """,
    )
    assert done.stdout == "0.9 True {'brevity': 0.9}\n", done.stderr


def test_plugin_scores_a_file(run: Run, tmp_path: Path) -> None:
    rows = [{"prompt": "q", "completion": "one two three"}, {"prompt": "q", "completion": ""}]
    file = tmp_path / "completions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = run("textgym", "score", str(file), "--reward", "brevity", "--json")
    summary = json.loads(done.stdout)
    assert summary["outcomes"] == {"scored": 2}, done.stderr
    assert summary["mean"] == pytest.approx((0.94 + 1.0) / 2)
    wrong = run("textgym", "score", str(file), "--reward", "brevity", "--set", "max_word=3")
    assert wrong.returncode == 2
    assert "no field 'max_word'. Did you mean 'max_words'?" in wrong.stderr


def test_plugin_passes_its_own_tests(brevity_site: Path, tmp_path: Path) -> None:
    tests = shutil.copytree(BREVITY / "tests", tmp_path / "tests")
    arguments = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "-p", "no:cacheprovider"]
    done = call(*arguments, tests, PYTHONPATH=str(brevity_site))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_plugin_whose_import_fails_is_left_out(run: Run, install_bad: Callable[..., Path]) -> None:
    site = install_bad("textgym-broken", "import a_module_that_is_not_there\n")

    done = run("textgym", "plugins", "--json", site=site)
    plugins = plugins_of(done)
    assert plugins["textgym-broken"]["status"] == (
        "left out: textgym_broken cannot be imported: ModuleNotFoundError: "
        "No module named 'a_module_that_is_not_there'"
    )
    assert plugins["textgym-brevity"]["status"] == "loaded"
    assert "'broken' (textgym-broken 0.1.0) is left out" in done.stderr

    scored = run("python", "-c", SCORE, site=site)
    assert (scored.returncode, scored.stdout) == (0, "0.9\n"), scored.stderr


def test_two_plugins_with_one_name_are_an_error(run: Run, install_bad: Callable[..., Path]) -> None:
    source = (BREVITY / "textgym_brevity.py").read_text()
    site = install_bad("textgym-terse", source, version="3.1")

    for done in (run("textgym", "plugins", site=site), run("python", "-c", SCORE, site=site)):
        assert done.returncode != 0
        assert (
            "two plugins offer the reward 'brevity': textgym-brevity 0.1.0 and textgym-terse 3.1."
            in done.stderr
        )
    chosen = run("python", "-c", SCORE, site=site, TEXTGYM_PLUGINS="textgym-brevity")
    assert (chosen.returncode, chosen.stdout) == (0, "0.9\n"), chosen.stderr


def test_misspelt_hook_is_an_error(run: Run, install_bad: Callable[..., Path]) -> None:
    source = (BREVITY / "textgym_brevity.py").read_text()
    site = install_bad("textgym-typo", source.replace("def textgym_rewards", "def textgym_reward"))

    done = run("textgym", "plugins", site=site)

    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "error: plugin 'typo' (textgym-typo 0.1.0) implements 'textgym_reward', which is no hook "
        "of textgym. Did you mean 'textgym_rewards'?"
    )
