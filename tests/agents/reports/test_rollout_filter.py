"""The filter of the terminal understands conditions, and says what it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from textgym.errors import ConfigError
from textgym_agents.reports.reading import RolloutFile
from textgym_agents.reports.rollout_filter import parse_filter
from textgym_agents.reports.rollout_table import RolloutTable, make_table


@pytest.fixture(scope="module")
def table(make_record: Callable[..., dict[str, Any]]) -> RolloutTable:
    """Rollouts 0 to 9, the last of which failed."""
    records = [make_record(i) for i in range(9)]
    records.append(make_record(9, failure="timeout", reward=None, is_success=None, num_tokens=12))
    return make_table([[RolloutFile("iteration", 1, records, [])]])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", list(range(10))),
        ("reward>0.5", [1, 3, 5, 7]),
        ("reward<=0 length>=0.6", [6, 8]),
        ("tokens>3", [9]),
        ("status:timeout", [9]),
        ("success:yes math=1", [1, 3, 5, 7]),
        ("success:unknown", [9]),
        ("COUNT n4", [4]),
        ("because success:no length<0.3", [0, 2]),
        ("nothing:here", []),
        ("iteration=2", []),
    ],
)
def test_conditions_choose(table: RolloutTable, text: str, wanted: list[int]) -> None:
    assert parse_filter(text, table).apply(len(table)) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rewrd>1", "Did you mean 'reward'"),
        ("reward>many", "'many' is no number"),
        ("success:perhaps", "yes, no or unknown"),
    ],
)
def test_what_is_not_understood_is_said(table: RolloutTable, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_filter(text, table)
