"""The folder of an evaluated suite: `suite.json`, `items.jsonl` and `metrics.json`.

An item is a line of its own, written as soon as it is scored, so an evaluation that was stopped
has all that was answered, and a line that was cut short costs that line. A line holds the whole
prompt: it can be scored again and compared without the suite.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TextIO

from pydantic import JsonValue, ValidationError

from textgym.errors import ConfigError
from textgym.items import Item, Metric
from textgym.prompt import Prompt
from textgym.score import Score

ITEMS, METRICS, SUITE = "items.jsonl", "metrics.json", "suite.json"
_SCORE_FIELDS = tuple(f.name for f in fields(Score) if f.name not in ("parts", "steps", "seconds"))
_DEFAULTS = {f.name: f.default for f in fields(Score)}


def item_record(item: Item) -> dict[str, Any]:
    """Return an item as JSON; `textgym score` reads it, too."""
    return {
        "index": item.index,
        "sample": item.sample,
        "prompt": item.prompt.model_dump(mode="json", exclude_defaults=True),
        "completion": item.completion,
        "finish_reason": item.finish_reason,
        "num_tokens": item.num_tokens,
        "is_success": item.is_success,
        "score": score_record(item.score),
    }


def item_of(record: Mapping[str, Any]) -> Item:
    """Return the item of a record.

    Raises:
        LookupError, TypeError, ValidationError: it is no record of an item.
    """
    return Item(
        Prompt.model_validate(record["prompt"]),
        record["completion"],
        score_of(record["score"]),
        record["is_success"],
        record["sample"],
        record["index"],
        record["finish_reason"],
        record["num_tokens"],
    )


def score_record(score: Score) -> dict[str, Any]:
    """Return a score as JSON, its parts included; nan is null."""
    record = {name: getattr(score, name) for name in _SCORE_FIELDS}
    record = {k: v for k, v in record.items() if k == "value" or v != _DEFAULTS[k]}
    record["value"] = None if math.isnan(score.value) else score.value
    if score.parts:
        record["parts"] = {name: score_record(part) for name, part in score.parts.items()}
    return record


def score_of(record: Mapping[str, Any]) -> Score:
    """Return the score of a record."""
    values = {name: value for name, value in record.items() if name != "parts"}
    if values["value"] is None:
        values["value"] = math.nan
    parts = {name: score_of(part) for name, part in record.get("parts", {}).items()}
    return Score(**values, parts=parts)


def read_items(path: Path) -> list[Item]:
    """Return the items of a folder, none where there is no file; a cut last line is left out.

    Raises:
        ConfigError: a line is no item.
    """
    try:
        text = (path / ITEMS).read_bytes()
    except FileNotFoundError:
        return []
    items = []
    for number, line in enumerate(text.split(b"\n")[:-1], 1):  # after the last newline: cut short
        try:
            items.append(item_of(json.loads(line)))
        except (LookupError, TypeError, ValueError, ValidationError) as error:
            raise ConfigError(
                f"{path / ITEMS}:{number}: no item of an evaluation ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:120]}); delete the line, or the folder"
            ) from None
    return items


def open_items(path: Path) -> TextIO:
    """Open the items of a folder to append to, without a last line that was cut short."""
    path.mkdir(parents=True, exist_ok=True)
    file = path / ITEMS
    if file.exists():
        text = file.read_bytes()
        os.truncate(file, text.rfind(b"\n") + 1)
    # Half a character, which JSON can hold and UTF-8 cannot, must not cost the evaluation.
    return file.open("a", encoding="utf-8", errors="replace", newline="\n")


def write_items(file: TextIO, items: Iterable[Item]) -> None:
    """Append items, and see that they are on disk if the process ends."""
    lines = [json.dumps(item_record(item), ensure_ascii=False) + "\n" for item in items]
    file.write("".join(lines))
    file.flush()


def write_json(path: Path, value: JsonValue) -> None:
    """Write a file in one step: a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def read_json(path: Path) -> Any:
    """Return what a file holds, None where there is none.

    Raises:
        ConfigError: it is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON: {error}; delete it") from None


def metrics_record(metrics: Mapping[str, Metric]) -> dict[str, JsonValue]:
    """Return metrics as JSON; nan is null."""
    return {
        name: {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in metric._asdict().items()
        }
        for name, metric in metrics.items()
    }


def write_metrics(path: Path, metrics: Mapping[str, Metric]) -> None:
    """Write the metrics of a folder, which makes it complete."""
    write_json(path / METRICS, metrics_record(metrics))


def read_metrics(path: Path) -> dict[str, Metric] | None:
    """Return the metrics of a folder, None where it is not complete."""
    record = read_json(path / METRICS)
    if record is None:
        return None
    return {
        name: Metric._make(math.nan if each[f] is None else each[f] for f in Metric._fields)
        for name, each in record.items()
    }


def suite_folders(path: Path) -> dict[str, Path]:
    """Return the evaluated suites at or directly below a folder, by name.

    Raises:
        ConfigError: there is none.
    """
    if (path / ITEMS).is_file():
        found: Sequence[Path] = [path]
    else:
        found = sorted(each.parent for each in path.glob(f"*/{ITEMS}"))
    if not found:
        raise ConfigError(
            f"{path} holds no evaluated suite; `textgym evaluate MODEL --suite NAME --out {path}` "
            "writes one"
        )
    return {folder.resolve().name: folder for folder in found}
