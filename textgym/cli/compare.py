"""`textgym compare`: whether one evaluation is worse than another, suite by suite."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from textgym.cli.command import Command
from textgym.cli.output import console, print_json, table
from textgym.comparison import ALPHA, Comparison, compare
from textgym.errors import ConfigError
from textgym.item_files import read_items, suite_folders
from textgym.items import Item


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `textgym compare`."""
    add = parser.add_argument
    add("a", type=Path, metavar="DIR_A", help="folder of evaluated suites, or of one")
    add("b", type=Path, metavar="DIR_B", help="the same of what is to be judged")
    add("--alpha", type=float, default=ALPHA, help="adjusted p-value of a difference (0.05)")
    add("--fail-on-regression", action="store_true", help="exit with 1 where a suite is worse")
    add("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the comparison; return 1 for a regression where that is asked for."""
    if not 0 < arguments.alpha < 1:
        raise ConfigError(f"--alpha {arguments.alpha} is not between 0 and 1")
    a, b = _items(arguments.a), _items(arguments.b)
    if len(a) == len(b) == 1 and [*a] != [*b] and _are_suites(arguments):
        a = {name: items for name, items in zip(b, a.values(), strict=True)}
    comparisons = compare(a, b, alpha=arguments.alpha)
    alone = sorted({*a} ^ {*b})
    if arguments.json:
        print_json({"suites": list(map(as_record, comparisons)), "only_in_one": alone})
    else:
        _print(arguments, comparisons, alone)
    is_worse = any(each.verdict == "regression" for each in comparisons)
    return 1 if is_worse and arguments.fail_on_regression else 0


def _items(path: Path) -> dict[str, list[Item]]:
    return {name: read_items(folder) for name, folder in suite_folders(path).items()}


def _are_suites(arguments: argparse.Namespace) -> bool:
    """Return whether both folders are those of a suite, whose names say nothing then."""
    return all((path / "items.jsonl").is_file() for path in (arguments.a, arguments.b))


def as_record(each: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON."""
    return {**each._asdict(), "difference": each.difference._asdict()}


def _print(arguments: argparse.Namespace, comparisons: list[Comparison], alone: list[str]) -> None:
    rows = []
    for each in comparisons:
        low, high = (_shown(each, x, sign=True) for x in each.difference[1:3])
        difference = f"{_shown(each, each.difference.value, sign=True)} ({low} to {high})"
        values = (_shown(each, each.a), _shown(each, each.b), difference)
        tested = (each.test, f"{each.p:.2g}", f"{each.adjusted_p:.2g}", each.verdict)
        rows.append((each.suite, str(each.difference.count), *values, *tested))
    columns = ("suite", "prompts", "A", "B", "B - A (95 %)", "test", "p", "p, Holm", "verdict")
    out = console()
    out.print(table(f"A {arguments.a}, B {arguments.b}", columns, rows))
    for each in comparisons:
        if each.num_unpaired:
            out.print(f"{each.suite}: {each.num_unpaired} prompts are scored in one only; left out")
    if alone:
        out.print(f"in one of the two only: {', '.join(alone)}")


def _shown(each: Comparison, value: float, *, sign: bool = False) -> str:
    plus = "+" if sign else ""
    return format(value, f"{plus}.1%" if each.is_success else f"{plus}.3f")


COMMAND = Command("compare two evaluations by paired tests, and find regressions", configure, run)
