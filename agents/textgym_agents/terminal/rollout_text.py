"""One rollout as coloured text."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from rich.color import Color
from rich.style import Style
from rich.text import Text

from textgym_agents.reports.rollout_table import TOKEN_FIELDS, RolloutTable
from textgym_agents.reports.texts import figure, visible

MEASURES = ("logprobs", "values", "advantages", "kl", "")
"""What the colours of tokens can mean; the last is nothing."""
MEASURE_TITLES = {
    "logprobs": "log-probability", "values": "value", "advantages": "advantage", "kl": "KL",
    "": "no colour",
}  # fmt: skip
_NEGATIVE, _POSITIVE, _GROUND = (205, 95, 20), (36, 99, 200), (30, 30, 30)
_BOLD, _DIM = Style(bold=True), Style(dim=True)


def known_measures(line: str) -> list[str]:
    """Return the measures that a rollout's line of tokens has, and no colour."""
    columns = json.loads(line) if line else []
    known = {name for name, column in zip(TOKEN_FIELDS, columns, strict=False) if column}
    return [measure for measure in MEASURES if measure in known or not measure]


def rollout_text(table: RolloutTable, i: int, measure: str) -> Text:
    """Return a rollout: prompt, completion with colours, verdict, components of the reward."""
    text = Text()
    row = {name: column[i] for name, column in table.columns.items()}
    _heading(text, f"{row['phase']} {row['iteration']}")
    text.append(visible(table.prompts[row["prompt"]]) or "(empty)")
    known = known_measures(table.tokens[i])
    shown = measure if measure in known else known[0]
    _heading(text, f"completion, coloured by {MEASURE_TITLES[shown]}" if shown else "completion")
    if table.tokens[i]:
        _append_tokens(text, json.loads(table.tokens[i]), shown)
    else:
        text.append(visible(row["completion"]) or "(empty)")
    _heading(text, "verdict")
    for name, value in _verdict(row):
        text.append(f"{name:<15} ", _DIM).append(f"{visible(value)}\n")
    return text


def _heading(text: Text, title: str) -> None:
    text.append(("\n\n" if text.plain else "") + visible(title) + "\n", _BOLD)


def _append_tokens(text: Text, columns: Sequence[Sequence[Any] | None], measure: str) -> None:
    texts = columns[0] or ()
    values = columns[TOKEN_FIELDS.index(measure)] if measure else None
    size = max((abs(v) for v in values or () if v is not None), default=0.0) or 1.0
    for position, token in enumerate(texts):
        value = None if values is None else values[position]
        style = Style() if value is None else _style(value, size)
        text.append(visible(token) or "·", style)
    if values is not None:
        shown = [value for value in values if value is not None]
        if shown:
            text.append(f"\n{figure(min(shown))} to {figure(max(shown))}", _DIM)


def _style(value: float, size: float) -> Style:
    """Return the colour of a figure: none at 0, more the larger it is."""
    weight = 0.85 * min(1.0, math.fabs(value) / size)
    end = _NEGATIVE if value < 0 else _POSITIVE
    mixed = (round(g + weight * (e - g)) for g, e in zip(_GROUND, end, strict=True))
    return Style(bgcolor=Color.from_rgb(*mixed), color="white")


def _verdict(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    success = {None: "", 0: "no success", 1: "success"}[row["success"]]
    yield "reward", f"{figure(row['reward'])}  {success}"
    for name, value in row["parts"].items():
        if value is not None:  # else another route scored it
            yield f"  {name}", figure(value)
    for name in ("status", "label", "target", "extracted", "reason", "error", "task", "finish"):
        if row[name]:
            yield name, row[name]
    yield "tokens", figure(row["length"])
    for value, stop, reason in row["steps"]:
        yield "step", f"{figure(value)} up to {figure(stop)} {reason}"
    yield from ((name, value) for name, value in row["more"].items() if value)
