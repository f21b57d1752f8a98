"""A run directory as it stands on disk: while it is written, after damage, of any agent.

Nothing here raises because of one bad line: it is left out, and said in `problems`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from textgym.config import read_yaml
from textgym.errors import ConfigError
from textgym.item_files import METRICS, read_metrics
from textgym.items import Metric
from textgym_agents.run.directory import RunDirectory

Family = Literal["lm", "agent", "sft", "dpo"]
"""Who learnt: a language model by PPO and its kin, any other agent, or a model by TRL."""
Row = dict[str, Any]
ALARM = "alarm"
_MOST_PROBLEMS = 20
_ROLLOUT_NAME = re.compile(r"(?P<phase>[a-z_]+)-(?P<iteration>\d{1,12})")


@dataclass(frozen=True)
class Run:
    """What a run directory holds besides its rollouts."""

    path: Path
    family: Family
    config: dict[str, Any]
    environment: dict[str, Any]
    rows: list[Row]
    """Metrics, without alarms."""
    alarms: list[Row]
    """With `iteration` and `text`."""
    suites: dict[str, dict[str, dict[str, Metric]]]
    """Metrics by checkpoint and suite, of `textgym evaluate RUN --suite`."""
    problems: list[str] = field(default_factory=list)
    """What could not be read."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    def phase(self, name: str) -> list[Row]:
        """Return the rows of one phase."""
        return [row for row in self.rows if row["phase"] == name]

    @property
    def num_done(self) -> int:
        """Iterations, or steps, that are done."""
        done = (row["iteration"] for row in self.rows if row["phase"] != "cold_start")
        return max(done, default=0)


class RolloutFile(NamedTuple):
    """The sampled episodes of one iteration or evaluation."""

    phase: str
    iteration: int
    records: list[Row]
    problems: list[str]


def read_run(path: Path) -> Run:
    """Read a run directory.

    Raises:
        ConfigError: the folder is no run directory.
    """
    problems: list[str] = []
    run = RunDirectory.open(_checked(path))
    config = read_yaml(path / "config.yaml")
    rows = list(read_rows(run.metrics_path, problems))
    return Run(
        path,
        _family(run, config),
        config,
        _read_environment(path / "environment.json", problems),
        [row for row in rows if row["phase"] != ALARM],
        [row for row in rows if row["phase"] == ALARM],
        _read_suites(path / "evaluation", problems),
        problems,
    )


def _checked(path: Path) -> Path:
    """Return the path of a run; name runs below it where it is none itself."""
    if (path / "config.yaml").is_file():
        return path
    if not path.exists():
        raise ConfigError(f"{path}: there is no such folder; name a run directory")
    below = sorted(each.parent for each in path.glob("*/config.yaml"))
    hint = f"; runs in it: {', '.join(map(str, below[:5]))}" if below else ""
    raise ConfigError(f"{path} is not a run directory: it has no config.yaml{hint}")


def _family(run: RunDirectory, config: dict[str, Any]) -> Family:
    if run.kind == "sft":
        return "sft"
    if run.kind == "dpo":
        return "dpo"
    return "agent" if "agent" in config else "lm"


def read_rows(path: Path, problems: list[str]) -> Iterator[Row]:
    """Yield the rows of metrics.jsonl; a last line without its end is being written."""
    for number, row in _lines(path, problems):
        phase, iteration = row.get("phase"), row.get("iteration")
        if not isinstance(phase, str) or not isinstance(iteration, int):
            _note(problems, f"{path.name}:{number}: no row of metrics: phase or iteration missing")
        else:
            yield row


def rollout_paths(run: Path) -> list[Path]:
    """Return the files of rollouts, by iteration."""
    found = (run / "rollouts").glob("*.jsonl")
    return sorted(found, key=lambda path: (*_name(path)[::-1], path.name))


def read_rollouts(path: Path) -> RolloutFile:
    """Read one file of rollouts."""
    problems: list[str] = []
    records = [row for _, row in _lines(path, problems)]
    return RolloutFile(*_name(path), records, problems)


class FileCache:
    """Reads files of rollouts, each once while it does not change."""

    def __init__(self) -> None:
        self._files: dict[Path, tuple[tuple[int, int], RolloutFile]] = {}

    def read(self, path: Path) -> RolloutFile:
        """Return a file of rollouts."""
        found = path.stat()
        version = (found.st_mtime_ns, found.st_size)
        if path not in self._files or self._files[path][0] != version:
            self._files[path] = (version, read_rollouts(path))
        return self._files[path][1]


def _name(path: Path) -> tuple[str, int]:
    """Return phase and iteration of a file of rollouts."""
    match = _ROLLOUT_NAME.fullmatch(path.stem)
    return (match["phase"], int(match["iteration"])) if match else (path.stem, 0)


def _lines(path: Path, problems: list[str]) -> Iterator[tuple[int, Row]]:
    """Yield the numbers and objects of a JSONL file, none where there is no file."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    is_cut = bool(lines.pop().strip())
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            _note(problems, f"{path.name}:{number}: not JSON ({' '.join(str(error).split())[:80]})")
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            _note(problems, f"{path.name}:{number}: {type(row).__name__}, expected an object")
    if is_cut:
        _note(problems, f"{path.name}: the last line is cut short, or still being written")


def _note(problems: list[str], text: str) -> None:
    if len(problems) < _MOST_PROBLEMS:
        problems.append(text)
    elif len(problems) == _MOST_PROBLEMS:
        problems.append("and more")


def _read_environment(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        _note(problems, f"{path.name}: not JSON")
        return {}
    return found if isinstance(found, dict) else {}


def _read_suites(path: Path, problems: list[str]) -> dict[str, dict[str, dict[str, Metric]]]:
    found: dict[str, dict[str, dict[str, Metric]]] = {}
    for file in sorted(path.glob(f"*/*/{METRICS}")):
        try:
            metrics = read_metrics(file.parent)
        except (ConfigError, AttributeError, LookupError, TypeError):
            _note(problems, f"{file.relative_to(path.parent)}: no metrics of a suite")
            continue
        if metrics:
            found.setdefault(file.parent.parent.name, {})[file.parent.name] = metrics
    return found


def number(value: object) -> float | None:
    """Return a finite number, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value
