"""From names to suites, and from `--data` to the file of each."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from textgym.benchmark import Benchmark
from textgym.errors import ConfigError, MissingExtraError, UnknownNameError, did_you_mean
from textgym.plugins import plugin_manager

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]*){0,2}")
DOWNLOADS = "data"


class Suite(NamedTuple):
    """A suite with its file."""

    benchmark: Benchmark
    data: Path | None
    """None for a suite that makes its own prompts."""


def find_suites(names: Sequence[str], data: str | None, *, downloads: Path) -> list[Suite]:
    """Return suites by name; a name can stand for a group, and be several with commas between.

    Of a group, suites whose file is not in the folder `data` are left out.

    Args:
        names: suites and groups of suites.
        data: a folder with the suites' files, the file of all of them, a hub id such as
            `openai/gsm8k:main:test`, or None for each suite's own place on the hub.
        downloads: where a `data` folder is made for rows from the hub.

    Raises:
        UnknownNameError: there is no such suite or group.
        ConfigError: a suite's file cannot be found.
    """
    found: dict[str, Suite] = {}
    for name in (part.strip() for each in names for part in each.split(",")):
        members = _members(name)
        suites = [_with_data(b, data, downloads / DOWNLOADS, is_alone=False) for b in members]
        there = [suite for suite in suites if suite is not None]
        if members and not there:
            _with_data(members[0], data, downloads / DOWNLOADS, is_alone=True)
        found |= {suite.benchmark.name: suite for suite in there}
    return list(found.values())


def _members(name: str) -> list[Benchmark]:
    """Return the suite of a name, or the suites of a group."""
    known = plugin_manager().benchmarks
    if name in known:
        return [plugin_manager().benchmark(name)]
    suites: list[Benchmark] = [each.value for each in known.values()]
    members = [suite for suite in suites if name in suite.groups]
    if not members:
        groups = sorted({group for suite in suites for group in suite.groups})
        raise UnknownNameError(
            f"no suite named '{name}'.{did_you_mean(name, [*known, *groups])}\n"
            f"  Suites: {', '.join(sorted(known)) or 'none'}. Groups: {', '.join(groups) or 'none'}"
        )
    return members


def _with_data(
    benchmark: Benchmark, data: str | None, downloads: Path, *, is_alone: bool
) -> Suite | None:
    """Return a suite with its file; None where it is not in the folder and others may be."""
    if benchmark.data is None:
        return Suite(benchmark, None)
    if data is not None and Path(data).is_dir():
        path = benchmark.find_data(Path(data))
        if path is None and is_alone:
            names = " or ".join([benchmark.data, *benchmark.also])
            raise ConfigError(f"--data {data}: the suite '{benchmark.name}' needs {names} there")
        return None if path is None else Suite(benchmark, path)
    if data is not None and Path(data).is_file():
        return Suite(benchmark, Path(data))
    return Suite(benchmark, _from_hub(benchmark, data, downloads))


def _from_hub(benchmark: Benchmark, data: str | None, downloads: Path) -> Path:
    """Return the file of rows from the hub, loading them where it is not there yet."""
    place = data or benchmark.hub
    if place is None or not _HUB_ID.fullmatch(place):
        problem = "there is no such path" if data else f"name a folder that holds {benchmark.data}"
        raise ConfigError(
            f"--data {data or 'is missing'}: the suite '{benchmark.name}' needs a file; {problem}, "
            "or a hub id such as openai/gsm8k:main:test"
        )
    path = downloads / f"{re.sub('[^A-Za-z0-9.-]+', '-', place)}.jsonl"
    if not path.exists():
        rows = _load_rows(place, benchmark)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text("".join(json.dumps(row, default=str) + "\n" for row in rows), "utf-8")
        part.replace(path)
    return path


def _load_rows(place: str, benchmark: Benchmark) -> list[dict[str, object]]:
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError:
        raise MissingExtraError(
            "datasets", "agents", f"the suite '{benchmark.name}' from the hub"
        ) from None
    name, _, rest = place.partition(":")
    subset, _, split = rest.partition(":")
    try:
        rows = datasets.load_dataset(name, subset or None, split=split or "test")
    except Exception as error:  # network, names, formats: the library raises anything
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"the suite '{benchmark.name}' cannot load '{place}' from the hub: "
            f"{type(error).__name__}: {reason}. Give its file with --data"
        ) from error
    return [dict(row) for row in rows]
