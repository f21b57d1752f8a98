"""`textgym view`, driven by textual's pilot: metrics, the list, the filter, colours, news."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("textual", reason="textual is not installed (pip install 'textgym[view]')")

from rich.text import Text
from textual.pilot import Pilot
from textual.widgets import Input, Label, Static

from textgym.cli.main import main
from textgym_agents.reports.texts import one_line, visible
from textgym_agents.terminal.app import Plot, RunApp
from textgym_agents.terminal.rollout_list import RolloutList

Script = Callable[[RunApp, "Pilot[None]"], Awaitable[None]]
HOSTILE = "[red]\x1b[2J\x07\u202e\ud800</x>"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two iterations and a hundred rollouts."""
    path = tmp_path_factory.mktemp("runs") / "run"
    (path / "rollouts").mkdir(parents=True)
    (path / "config.yaml").write_text("iterations: 2\npolicy: {model: tiny}\n")
    rows: list[dict[str, Any]] = [
        {"phase": "ppo", "iteration": i, "rollout/reward": i / 4, "ppo/entropy": 1.5}
        for i in (1, 2)
    ]
    rows += [{"phase": "evaluation", "iteration": i, "evaluation/greedy": i / 2} for i in (0, 2)]
    rows.append({"phase": "alarm", "iteration": 1, "text": f"beware {HOSTILE}"})
    write(path / "metrics.jsonl", rows)
    write(path / "rollouts" / "iteration-0000001.jsonl", [record(i) for i in range(100)])
    return path


def record(i: int) -> dict[str, Any]:
    completion = f"n{i} {HOSTILE}" if i == 50 else f"n{i}"
    tokens = {"text": [completion, "$"], "logprobs": [-2.0, -0.1], "advantages": [-1.0, 1.0]}
    return {
        "prompt": f"Count to {i}", "completion": completion, "reward": float(i % 2),
        "num_tokens": 2, "is_success": bool(i % 2), "reward_parts": {"math": float(i % 2)},
        "reason": f"because {i}", "extracted": str(i), "tokens": tokens,
    }  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def play(path: Path, script: Script, size: tuple[int, int] = (140, 40)) -> None:
    """Start the app on a run, and do what the script says."""

    async def run_script() -> None:
        app = RunApp(path)
        async with app.run_test(size=size) as pilot:
            await settled(app, pilot)
            await script(app, pilot)

    asyncio.run(run_script())


async def settled(app: RunApp, pilot: Pilot[None]) -> None:
    await app.workers.wait_for_complete()
    await pilot.pause()


def text_of(app: RunApp, name: str) -> str:
    widget = app.query_one(name)
    assert isinstance(widget, Static | Label)
    return str(widget.content)


def background(app: RunApp, word: str) -> Any:
    """Return the background colour of the first token that holds a word."""
    content = app.query_one("#rollout", Static).content
    assert isinstance(content, Text)
    start = content.plain.index(word)
    return next(s.style for s in content.spans if s.start <= start < s.end)


def test_metrics_are_plotted(run: Path) -> None:
    async def script(app: RunApp, pilot: Pilot[None]) -> None:
        plots = {plot.title: str(plot.render()) for plot in app.query(Plot)}
        assert "held-out success, greedy" in plots
        assert "100.0%" in plots["held-out success, greedy"]
        assert "0.25 to 0.5" in plots["reward, rollout"]
        assert app.sub_title == "PPO on tiny"

    play(run, script)


def test_rollouts_are_chosen_by_keys(run: Path) -> None:
    async def script(app: RunApp, pilot: Pilot[None]) -> None:
        await pilot.press("r", "down", "down", "down")
        assert "Count to 3" in text_of(app, "#rollout")
        assert "because 3" in text_of(app, "#rollout")
        await pilot.press("end")
        assert "Count to 99" in text_of(app, "#rollout")
        rollouts = app.query_one(RolloutList)
        assert "Count to 99" in rollouts.render_line(rollouts.size.height - 1).text
        await pilot.press("pageup")
        assert rollouts.cursor == 99 - (rollouts.size.height - 1)
        await pilot.press("home", "up")
        assert rollouts.cursor == 0
        await pilot.click(RolloutList, offset=(5, 4))
        assert rollouts.cursor == 4

    play(run, script)


def test_the_filter_chooses_and_explains(run: Path) -> None:
    async def script(app: RunApp, pilot: Pilot[None]) -> None:
        await pilot.press("slash")
        assert isinstance(app.focused, Input)
        app.focused.value = "success:yes n1"
        await pilot.pause()
        assert text_of(app, "#count") == "6 of 100 rollouts"
        await pilot.press("enter", "down")
        assert "Count to 11" in text_of(app, "#rollout")
        app.query_one("#filter", Input).value = "rewrd>1"
        await pilot.pause()
        assert "Did you mean 'reward'" in text_of(app, "#count")
        app.query_one("#filter", Input).value = "nothing like it"
        await pilot.pause()
        assert text_of(app, "#rollout") == "No rollout is like this."

    play(run, script)


def test_colours_change_with_a_key(run: Path) -> None:
    async def script(app: RunApp, pilot: Pilot[None]) -> None:
        await pilot.press("r")
        assert "coloured by log-probability" in text_of(app, "#rollout")
        seen = [(background(app, "n0"), background(app, "$"))]
        await pilot.press("c", "c")
        assert "coloured by advantage" in text_of(app, "#rollout")
        seen.append((background(app, "n0"), background(app, "$")))
        assert seen[0][0] != seen[0][1] != seen[1][1]
        await pilot.press("c", "c")
        assert "coloured" not in text_of(app, "#rollout")

    play(run, script)


def test_hostile_text_stays_text(run: Path) -> None:
    async def script(app: RunApp, pilot: Pilot[None]) -> None:
        app.query_one("#filter", Input).value = "n50"
        await pilot.pause()
        shown = text_of(app, "#rollout") + text_of(app, "#alarms")
        assert shown.count("[red]␛[2J␇‹U+202E›‹U+D800›</x>") == 2
        assert not set(shown) & {"\x1b", "\x07", "\u202e", "\ud800"}
        assert "\x1b" not in app.query_one(RolloutList).render_line(0).text

    play(run, script)


def test_what_is_new_appears(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    (path / "rollouts").mkdir()
    for name in ("config.yaml", "metrics.jsonl", "rollouts/iteration-0000001.jsonl"):
        (path / name).write_text((run / name).read_text())

    async def script(app: RunApp, pilot: Pilot[None]) -> None:
        await pilot.press("r", "down", "down")
        write(path / "rollouts" / "iteration-0000002.jsonl", [record(7)])
        app.read()
        await settled(app, pilot)
        assert text_of(app, "#count") == "101 of 101 rollouts"
        assert app.query_one(RolloutList).cursor == 2
        path.rename(tmp_path / "moved")
        app.read()
        await settled(app, pilot)
        assert text_of(app, "#count") == "101 of 101 rollouts"

    play(path, script)


@pytest.mark.parametrize("size", [(40, 12), (100, 30)])
def test_small_terminals_show_all_of_it(run: Path, size: tuple[int, int]) -> None:
    async def script(app: RunApp, pilot: Pilot[None]) -> None:
        await pilot.press("r", "down")
        detail, rollouts = app.query_one("#detail"), app.query_one(RolloutList)
        assert detail.size.width > 10
        assert min(detail.size.height, rollouts.size.height) >= 1
        assert "Count to 1" in text_of(app, "#rollout")

    play(run, script, size)


def test_a_run_without_anything_is_shown(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("agent: q_learning\nenv: Taxi-v3\n")

    async def script(app: RunApp, pilot: Pilot[None]) -> None:
        await pilot.press("r")
        assert text_of(app, "#count") == "0 of 0 rollouts"
        assert app.sub_title == "q_learning on Taxi-v3"

    play(tmp_path, script)


def test_without_a_terminal_it_says_so(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["view", str(run)]) == 2
    assert "`textgym report RUN` writes a page instead" in capsys.readouterr().err
    assert main(["view", str(tmp_path / "none")]) == 2
    assert "there is no such folder" in capsys.readouterr().err


def test_lines_are_cut_at_columns_not_characters() -> None:
    assert one_line("漢字漢字", 5) == "漢字"
    assert one_line("a\n\tb", 5) == "a b"
    assert visible("a\nb\tc\x00") == "a\nb\tc␀"
