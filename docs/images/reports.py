"""Make the pictures of docs/reports.md: `python docs/images/reports.py runs/first-words`.

It needs Debian's chromium, playwright, textual and pillow, all of which `make test` brings.
"""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from textgym_agents.reports.writing import write_report
from textgym_agents.terminal.app import RunApp

FOLDER = Path(__file__).parent
NUM_COLOURS = 256
WANTED = {"f-phase": "=iteration", "f-task": "=tiny_instructions", "f-order": "long"}


def main(run: Path) -> None:
    """Write the pictures beside this script."""
    with tempfile.TemporaryDirectory() as folder:
        terminal = asyncio.run(terminal_pictures(run, Path(folder)))
        page = write_report([run], Path(folder) / "report.html")
        take_pictures(page, terminal)


def take_pictures(page: Path, terminal: list[Path]) -> None:
    """Write the pictures of a report's page and of the terminal's screens."""
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=arguments
        )
        shoot(browser, page, "report-light", (1280, 1130), None)
        shoot(browser, page, "report-rollouts", (1280, 900), choose_rollout)
        shoot(browser, page, "report-dark", (1280, 900), read_chart, color_scheme="dark")
        shoot(browser, page, "report-phone", (390, 844), choose_rollout)
        for path in terminal:
            shoot(browser, path, path.stem, (1180, 800), None)
        browser.close()


def shoot(
    browser: Any,
    path: Path,
    name: str,
    size: tuple[int, int],
    prepare: Callable[[Any], None] | None,
    **options: Any,
) -> None:
    """Open a page, bring it into a state, and write what is seen."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]}, **options)
    page.goto(path.as_uri())
    if path.suffix == ".html":
        page.wait_for_selector("html[data-ready]", state="attached")
    if prepare is not None:
        prepare(page)
    page.wait_for_timeout(400)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(NUM_COLOURS)
    picture.save(FOLDER / f"{name}.png", optimize=True)
    page.close()


def choose_rollout(page: Any) -> None:
    """Show a long rollout with its advantages."""
    for name, value in WANTED.items():
        page.select_option(f"#{name}", value)
        page.wait_for_timeout(200)
    page.locator(".row").nth(1).click()
    page.check("input[name=measure][value=advantage]", force=True)
    page.locator(".token").nth(4).hover()
    is_narrow = page.viewport_size["width"] < 820
    page.locator("#detail" if is_narrow else "#rollouts").evaluate("e => e.scrollIntoView()")


def read_chart(page: Any) -> None:
    """Show the curves, with the mouse on one of them."""
    page.locator("#curves").evaluate("e => e.scrollIntoView()")
    page.locator(".chart svg").first.hover()


async def terminal_pictures(run: Path, folder: Path) -> list[Path]:
    """Write the metrics and the rollouts of the terminal view as SVG."""
    app = RunApp(run)
    async with app.run_test(size=(132, 42)) as pilot:
        await app.workers.wait_for_complete()
        await pilot.pause()
        app.save_screenshot("view-metrics.svg", str(folder))
        await pilot.press("slash", *"task:instr success:no phase:iter tokens>12", "enter", "down")
        await pilot.press("c", "c")
        await pilot.pause()
        app.save_screenshot("view-rollouts.svg", str(folder))
    return [folder / "view-metrics.svg", folder / "view-rollouts.svg"]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
