"""`textgym report`: where pages go, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textgym.cli.main import main

MakeRun = Callable[..., Path]


def test_the_page_of_a_run_goes_into_it(
    tmp_path: Path, make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_run(tmp_path / "run")
    assert main(["report", str(path)]) == 0
    assert capsys.readouterr().out == f"report: {path / 'report.html'}\n"
    assert (path / "report.html").read_text().startswith("<!doctype html>")


def test_the_page_of_several_runs_goes_where_it_is_sent(tmp_path: Path, make_run: MakeRun) -> None:
    runs = [str(make_run(tmp_path / name)) for name in "ab"]
    out = tmp_path / "pages" / "ab.html"
    assert main(["report", *runs, "--out", str(out)]) == 0
    assert out.exists()


def test_a_run_of_an_agent_has_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["--agent", "q_learning", "--env", "FrozenLake-v1", "--steps", "300", "--run", "q"]
    assert main(["train", *given, "--set", "evaluation_episodes=2"]) == 0
    assert "report: q/report.html" in capsys.readouterr().out
    assert Path("q/report.html").stat().st_size > 20_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing: there is no such folder"),
        (["."], ". is not a run directory: it has no config.yaml; runs in it: run"),
        (["run", "run"], "--out is missing"),
        (["run", "--out", "file/page.html"], "cannot be written to file/page.html"),
        (["run", "--rollouts", "-1"], "--rollouts -1: expected 0 or more"),
        (["run", "--port", "80"], "--port goes with --serve"),
        (["run", "--serve", "--out", "x"], "leave one of them out"),
        (["run", "--serve", "--port", "70000"], "expected 0 to 65535"),
        (["missing", "--serve"], "missing: there is no such folder"),
    ],
)
def test_mistakes_are_said(
    tmp_path: Path,
    make_run: MakeRun,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "run")
    (tmp_path / "file").write_text("")
    assert main(["report", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_fewer_rollouts_can_be_asked_for(
    tmp_path: Path, make_run: MakeRun, make_record: Callable[..., dict[str, Any]]
) -> None:
    path = make_run(tmp_path / "run", iteration_0000001=[make_record(i) for i in range(500)])
    sizes = []
    for number in ("500", "5"):
        assert main(["report", str(path), "--rollouts", number]) == 0
        sizes.append((path / "report.html").stat().st_size)
    assert sizes[1] < sizes[0] - 5_000
