"""The documentation as a site: it builds without a warning, needs no network, lacks nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

import textgym
import textgym.testing
from textgym.plugins import plugin_manager

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
CODE = ("textgym", "plugins", "envs", "agents", "benchmarks")
ARXIV = re.compile(r"(?<![\d.])\d{4}\.\d{5}(?!\d)")
PAPER = re.compile(r"^\| \[(\d{4}\.\d{5})\]\((\S+)\) \| .+ \| .+ \| (.+) \|$", re.M)
PLACE = re.compile(r"\]\(([^)#]+)\)|`([^`]+)`")
LOADING = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src")}
FORMULA = re.compile(r"\$\$.+?\$\$|\$[^$\s][^$\n]*\$", re.S)


class Loaded(HTMLParser):
    """Collects what a page makes the browser load."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.urls += [value for name, value in attrs if (tag, name) in LOADING and value]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 60
    for page in pages:
        loaded = Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        assert [url for url in loaded.urls if re.match(r"\w+:|//", url)] == [], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", sheet.read_text(encoding="utf-8"))


def pages(site: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield each written page, its text without code, and what was built of it."""
    for page in DOCS.rglob("*.md"):
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.S)
        built = (site / page.relative_to(DOCS)).with_suffix(".html")
        if page.name == "README.md":
            built = built.with_name("index.html")
        html = built.read_text(encoding="utf-8")
        yield page, text, html[html.index("<article") : html.index("</article>")]


def test_formulas_are_mathml(site: Path) -> None:
    for page, text, html in pages(site):
        assert html.count("<math") == len(FORMULA.findall(text)), page
        assert "arithmatex" not in html


def test_lists_and_tables_are_what_they_are_elsewhere(site: Path) -> None:
    """Markdown here wants an empty line where GitHub's does not: what lacks one runs together."""
    for page, text, html in pages(site):
        if page.parent.name != "api":
            assert html.count("<li>") == len(re.findall(r"^ *(?:-|\d+\.) ", text, re.M)), page
        assert html.count("<table>") == len(re.findall(r"^\|[ :|-]*---", text, re.M)), page
        assert not re.search(r"<code>[^<]*\\\|", html), page


def test_notebooks_and_changelog_are_pages(site: Path) -> None:
    notebook = (site / "notebooks" / "classic-baselines.html").read_text(encoding="utf-8")
    assert "classic-baselines.ipynb" in notebook
    assert "a policy that guesses 0.025" in re.sub(r"<[^>]+>", "", notebook)
    assert list((site / "notebooks").glob("classic-baselines-*.png"))
    assert (site / "changelog.html").exists()


def documented(page: str) -> set[str]:
    """Return the names that a page of the reference shows."""
    text = (DOCS / "api" / page).read_text(encoding="utf-8")
    return {name.rpartition(".")[2] for name in re.findall(r"^::: (\S+)$", text, re.M)}


def test_every_public_name_of_the_sdk_has_its_reference() -> None:
    assert set(textgym.__all__) - {"__version__"} <= documented("sdk.md")
    assert set(textgym.testing.__all__) <= documented("testing.md")


def test_every_first_party_reward_has_its_reference() -> None:
    offered = plugin_manager().rewards.values()
    ours = {each.value.__name__ for each in offered if each.plugin.name == "textgym-plugins"}
    assert ours
    assert ours <= documented("rewards.md")


def cited() -> Iterator[tuple[str, Path]]:
    """Yield each citation of a paper on arXiv outside the index of papers."""
    for folder in ("docs", *CODE):
        for path in sorted((ROOT / folder).rglob("*")):
            is_text = path.suffix in (".md", ".py", ".yaml")
            if is_text and path != DOCS / "papers.md":
                for number in ARXIV.findall(path.read_text(encoding="utf-8")):
                    yield number, path


def test_index_of_papers_is_complete_and_says_where() -> None:
    index = (DOCS / "papers.md").read_text(encoding="utf-8")
    citations = set(cited())
    papers = PAPER.findall(index)
    numbers = [number for number, _, _ in papers]
    assert numbers == sorted({number for number, _ in citations})
    assert [url for _, url, _ in papers] == [f"https://arxiv.org/abs/{n}" for n in numbers]
    for number, _, places in papers:
        found = [DOCS / page if page else ROOT / code for page, code in PLACE.findall(places)]
        assert found, number
        assert [place for place in found if (number, place) not in citations] == [], number
