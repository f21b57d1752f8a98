"""report.html in a browser: it loads from disk, asks nobody, and is used without a mouse."""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from textgym_agents.reports.page import make_page
from textgym_agents.reports.writing import write_report

MakeRun = Callable[..., Path]
MakeRecord = Callable[..., dict[str, Any]]
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
NUM_MANY = 10_000


class Opened:
    """A page that was opened, and what it did that it should not."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page = browser.new_page(**{"viewport": DESKTOP, **options})
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-ready]", state="attached")

    def count(self, wanted: str) -> None:
        """Wait until the line above the list reads so."""
        self.page.wait_for_selector(f"#count:text-is('{wanted}')", timeout=10_000)

    @property
    def chosen(self) -> str:
        """The text of the row that is chosen."""
        return str(self.page.inner_text("[role=option][aria-selected=true]"))

    @property
    def detail(self) -> str:
        """The text of the rollout that is shown."""
        return str(self.page.inner_text("#detail"))


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory,
    make_run: MakeRun,
    make_record: MakeRecord,
    hostile: str,
) -> Path:
    """A run with 20 rollouts, one of them hostile and one without a score."""
    fields = dict.fromkeys(("prompt", "completion", "reason", "extracted", "label"), hostile)
    bad = make_record(100, reward_parts={hostile: -1.0}, prompt_id="bad", **fields)
    bad["tokens"] = {"text": [hostile, "\n", ""], "logprobs": [-0.5, None, -2.0]}
    failed = make_record(101, failure="timeout", reward=None, is_success=None, tokens=None)
    return make_run(
        tmp_path_factory.mktemp("runs") / "<i>run",
        evaluation_0000000=[make_record(i) for i in range(8)],
        iteration_0000001=[*(make_record(i) for i in range(8, 18)), bad, failed],
    )


@pytest.fixture(scope="module")
def opened(browser: Any, run: Path) -> Iterator[Opened]:
    """The page of the run, opened from disk."""
    opened = Opened(browser, write_report([run]))
    yield opened
    opened.page.close()


@pytest.fixture(autouse=True)
def _cleared(request: pytest.FixtureRequest) -> None:
    """Begin each test with no filter."""
    if "opened" in request.fixturenames:
        opened = request.getfixturevalue("opened")
        opened.page.click("#f-reset")
        opened.count("20 rollouts")


def test_the_page_loads_without_complaints_or_requests(opened: Opened) -> None:
    assert opened.complaints == []
    assert [url.partition("://")[0] for url in opened.asked] == ["file"]
    page = opened.page
    assert page.inner_text("h1") == "<i>run"
    assert page.locator("#charts .chart").count() >= 3
    assert "75.0 %" in page.inner_text("#headlines")
    assert "the entropy fell" in page.inner_text("#tables")
    assert "update 8 s" in page.inner_text("#phases")
    before_after = page.locator("table", has_text="Before and after").inner_text()
    assert re.search(r"success\s+25\.0 %\s.*75\.0 %\s.*\+50\.0 pp", before_after, re.S)


def test_curves_have_lines_and_intervals(opened: Opened) -> None:
    chart = opened.page.locator(".chart", has_text="reward").first
    assert len(chart.locator("polyline").first.get_attribute("points").split()) == 4
    assert len(chart.locator("polygon.band").get_attribute("points").split()) == 8


@pytest.mark.parametrize(
    ("actions", "wanted"),
    [
        ({"f-text": "n13"}, "1 of 20 rollouts"),
        ({"f-text": "COUNT because 1"}, "10 of 20 rollouts"),
        ({"f-phase": "=evaluation", "f-success": "1"}, "4 of 20 rollouts"),
        ({"f-status": "=timeout"}, "1 of 20 rollouts"),
        ({"f-success": "-"}, "1 of 20 rollouts"),
        ({"f-reward-min": "0.5"}, "9 of 20 rollouts"),
        ({"f-part": "length", "f-reward-min": "0.5", "f-reward-max": "0.9"}, "5 of 20 rollouts"),
        ({"f-iteration-max": "0"}, "8 of 20 rollouts"),
        ({"f-length-min": "4"}, "0 of 20 rollouts"),
    ],
)
def test_filters_choose(opened: Opened, actions: dict[str, str], wanted: str) -> None:
    for name, value in actions.items():
        is_choice = opened.page.locator(f"select#{name}").count()
        (opened.page.select_option if is_choice else opened.page.fill)(f"#{name}", value)
    opened.count(wanted)
    if wanted.startswith("0"):
        assert "No rollout is like this" in opened.detail


def test_the_order_puts_rollouts_without_a_reward_last(opened: Opened) -> None:
    for order, first in (("low", "Count to 0"), ("high", "Count to 1"), ("new", "Count to 101")):
        opened.page.select_option("#f-order", order)
        opened.page.wait_for_selector(f"#row-0 .p:text-is('{first}')")


def test_the_keyboard_is_enough(opened: Opened) -> None:
    page = opened.page
    page.keyboard.press("Escape")
    page.focus("h1 ~ * a, nav a")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "f-text"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "list"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert opened.chosen.startswith("Count to 2")
    active = page.get_attribute("#list", "aria-activedescendant")
    assert page.locator(f"#{active}").get_attribute("aria-posinset") == "3"
    page.keyboard.press("End")
    assert opened.chosen.startswith("Count to 101")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "detail"
    page.keyboard.press("Tab")  # the chosen colour, then the first token
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    reading = page.inner_text(".reading")
    assert reading == "2. “!” log-probability −0.25 (77.9 %) · value 0.2 · advantage 0.5 · KL −0.02"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_a_chart_is_read_with_arrow_keys(opened: Opened) -> None:
    page = opened.page
    page.locator(".chart svg").first.focus()
    page.keyboard.press("End")
    assert "75.0 % (65.7 % to 82.5 %)" in page.inner_text("#chart-reading")
    page.keyboard.press("ArrowLeft")
    assert "25.0 %" in page.inner_text("#chart-reading")


def test_colours_show_the_chosen_figure(opened: Opened) -> None:
    page = opened.page
    page.click(".row >> nth=1")
    shades = {}
    for measure in ("logprob", "value", "advantage", "kl", ""):
        page.check(f"input[name=measure][value='{measure}']", force=True)
        tokens = page.locator(".token")
        shades[measure] = [tokens.nth(i).evaluate("e => e.style.backgroundColor") for i in range(3)]
    assert len({*map(tuple, shades.values())}) == 5
    assert shades[""] == ["", "", ""]
    assert "--orange" in shades["advantage"][0]
    assert "--blue" in shades["advantage"][2]


def test_hostile_text_is_shown_and_does_nothing(opened: Opened) -> None:
    page = opened.page
    page.fill("#f-text", "onerror")
    opened.count("1 of 20 rollouts")
    assert (
        "</script><img src=x onerror=alert(1)>␀␛[2J‹U+202E›gnp‹U+D800› & {{title}}" in opened.detail
    )
    assert page.locator("#browser img, #browser script").count() == 0
    assert page.locator(".token").count() == 3
    page.locator(".token").nth(1).hover()
    assert "written by the environment" in page.inner_text(".reading")
    assert opened.complaints == []


def test_controls_have_names(opened: Opened) -> None:
    unnamed = opened.page.evaluate(
        """() => [...document.querySelectorAll("input, select, button, [role=listbox]")]
        .filter((e) => !e.closest("[hidden]") && !e.labels?.length && !e.ariaLabel && !e.innerText)
        .map((e) => e.outerHTML)"""
    )
    assert unnamed == []


@pytest.mark.parametrize(
    ("scheme", "viewport"), [("dark", DESKTOP), ("light", PHONE), ("dark", PHONE)]
)
def test_dark_and_on_a_phone(browser: Any, run: Path, scheme: str, viewport: Any) -> None:
    opened = Opened(browser, write_report([run]), color_scheme=scheme, viewport=viewport)
    page = opened.page
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    rgb = "getComputedStyle(document.body).{}.match(/[0-9]+/g).map(Number)"
    ground, ink = (page.evaluate(rgb.format(name)) for name in ("backgroundColor", "color"))
    assert (sum(ground) < sum(ink)) == (scheme == "dark")
    assert contrast(ground, ink) > 7
    muted = page.evaluate(
        "getComputedStyle(document.querySelector('.kicker')).color.match(/[0-9]+/g)"
    )
    assert contrast(ground, [int(part) for part in muted]) > 4.5
    assert opened.complaints == []
    page.close()


def contrast(a: list[int], b: list[int]) -> float:
    """Return the contrast of two colours as WCAG 2.2 defines it."""
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: list[int]) -> float:
    parts = [
        c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4
        for c in colour
    ]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_ten_thousand_rollouts(
    browser: Any, tmp_path: Path, make_run: MakeRun, make_record: MakeRecord
) -> None:
    records = [make_record(i) for i in range(NUM_MANY)]
    path = write_report([make_run(tmp_path / "many", iteration_0000001=records)])
    assert path.stat().st_size < 5e6
    opened = Opened(browser, path)
    page = opened.page
    opened.count("10,000 rollouts")
    milliseconds = page.evaluate(
        """async () => {
          document.getElementById("f-text").value = "n99";
          const begin = performance.now();
          document.getElementById("filters").dispatchEvent(new Event("input"));
          while (!document.getElementById("count").textContent.startsWith("111 of"))
            await new Promise((resolve) => setTimeout(resolve, 5));
          return performance.now() - begin;
        }"""
    )
    assert milliseconds < 3_000  # a tenth of it, measured; tests run on busy machines
    page.fill("#f-text", "")
    opened.count("10,000 rollouts")
    page.focus("#list")
    page.keyboard.press("End")
    assert opened.chosen.startswith("Count to 9999")
    assert page.locator(".row").count() < 60
    assert opened.complaints == []
    page.close()


def test_several_runs_are_drawn_together(
    browser: Any, tmp_path: Path, make_run: MakeRun, make_record: MakeRecord
) -> None:
    paths = [
        make_run(tmp_path / "a" / "run", seed=0, iteration_0000001=[make_record(1)]),
        make_run(tmp_path / "b" / "run", seed=1, iteration_0000001=[make_record(2)]),
        make_run(tmp_path / "c", iterations=2),
    ]
    opened = Opened(browser, write_report(paths, tmp_path / "out" / "all.html"))
    page = opened.page
    by_run = page.locator("table", has_text="By run").inner_text()
    assert all(name in by_run for name in ("a/run", "b/run", "c"))
    assert "iterations" in page.inner_text("#differences")
    chart = page.locator(".chart", has_text="entropy")
    chart.locator("polyline:nth-of-type(4)").wait_for(state="attached")
    assert (chart.locator("polyline").count(), chart.locator(".faint").count()) == (4, 2)
    page.click("#runs-legend label >> nth=2")
    chart.locator("polyline:nth-of-type(3)").wait_for(state="attached")
    assert chart.locator("polyline").count() == 3
    page.select_option("#f-run", "=1")
    opened.count("1 of 2 rollouts")
    assert "Count to 2" in opened.detail
    assert opened.complaints == []
    page.close()


def test_a_run_without_anything_has_a_page(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("agent: q_learning\nenv: Taxi-v3\n")
    opened = Opened(browser, write_report([tmp_path]))
    assert "q_learning on Taxi-v3" in opened.page.inner_text("#overview")
    assert "No metrics yet" in opened.page.inner_text("#curves")
    assert "keeps no rollouts" in opened.page.inner_text("#rollouts")
    assert opened.complaints == []
    opened.page.close()


def test_the_title_and_the_data_cannot_leave_their_elements() -> None:
    document = gzip.compress(b"{}")
    page = make_page("</title><script>{{payload}}", document)
    assert "<title>&lt;/title&gt;&lt;script&gt;{{payload}}</title>" in page
    assert base64.b64encode(document).decode() in page
    assert page.count("</script>") == 2
    assert "connect-src" not in page
    assert "connect-src 'self'" in make_page("live", None)
