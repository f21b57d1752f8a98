"""Rollouts as columns: of any shape, and not more than a page can hold."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textgym_agents.reports import document, rollout_table
from textgym_agents.reports.reading import RolloutFile, read_run, rollout_paths
from textgym_agents.reports.rollout_table import RolloutTable, make_table

MakeRecord = Callable[..., dict[str, Any]]


def table_of(records: list[dict[str, Any]], **options: int) -> RolloutTable:
    return make_table([[RolloutFile("iteration", 3, records, [])]], **options)


def test_a_record_becomes_a_row(make_record: MakeRecord) -> None:
    table = table_of([make_record(7), make_record(8, failure="timeout", reward=None)])
    columns = table.columns
    assert columns["status"] == ["scored", "timeout"]
    assert columns["reward"] == [1.0, None]
    assert columns["success"] == [1, 0]
    assert columns["task"] == ["counting", "counting"]
    assert columns["parts"][0] == {"math": 1.0, "length": 0.7}
    assert columns["iteration"] == [3, 3]
    assert table.prompts == ["Count to 7", "Count to 8"]
    texts, logprobs, values, advantages, kl = json.loads(table.tokens[0])
    assert texts == ["n7", "!", "<|end|>"]
    assert (logprobs[0], values[0], advantages[0], kl[0]) == (-0.5, 0.1, -1.0, 0.01)


def test_records_of_older_runs_have_no_tokens(make_record: MakeRecord) -> None:
    old = make_record(1)
    del old["tokens"], old["metadata"], old["reward_parts"]
    table = table_of([old])
    assert table.tokens == [""]
    assert (table.columns["task"], table.columns["parts"]) == ([""], [{}])


@pytest.mark.parametrize(
    "tokens",
    [3, [], {"text": "abc"}, {"text": ["a"], "logprobs": [1, 2]}, {"logprobs": [1.0]}],
)
def test_tokens_of_another_shape_are_left_out(make_record: MakeRecord, tokens: object) -> None:
    assert table_of([make_record(1, tokens=tokens)]).tokens == [""]


def test_values_of_other_types_do_no_harm() -> None:
    record = {
        "prompt": ["a"], "completion": {"b": 1}, "reward": float("inf"), "num_tokens": "many",
        "is_success": 1, "reward_parts": [1], "reward_steps": [1, {"value": None}], "extracted": 5,
        "metadata": 3, "passages": [float("nan")],
    }  # fmt: skip
    table = table_of([record, {}])
    assert table.prompts == ['["a"]', ""]
    assert table.columns["completion"] == ['{"b": 1}', ""]
    assert table.columns["reward"] == [None, None]
    assert table.columns["steps"][0] == [(None, None, "")]
    json.dumps(table.columns, allow_nan=False)


def test_many_are_thinned_out_evenly(make_record: MakeRecord) -> None:
    table = table_of([make_record(i) for i in range(100)], most=5)
    assert (len(table), table.num_found) == (5, 100)
    assert table.columns["id"] == ["p0", "p25", "p50", "p74", "p99"]
    assert len(table_of([make_record(0)] * 3, most=0)) == 0


def test_no_more_text_and_tokens_than_a_page_holds(
    make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [make_record(i) for i in range(100)]
    line = len(table_of(records[:1]).tokens[0])
    monkeypatch.setattr(rollout_table, "MOST_TOKEN_CHARACTERS", 25 * line)
    table = table_of(records)
    kept = [i for i, tokens in enumerate(table.tokens) if tokens]
    assert len(table) == 100
    assert 20 <= len(kept) <= 26
    assert max(b - a for a, b in itertools.pairwise(kept)) <= 6
    monkeypatch.setattr(rollout_table, "MOST_CHARACTERS", 50 * len("Count to 10n10!"))
    assert 45 <= len(table_of(records)) <= 55


def test_no_more_files_are_read_than_memory_should_hold(
    tmp_path: Path,
    make_run: Callable[..., Path],
    make_record: MakeRecord,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = {f"iteration_{i:07d}": [make_record(i)] for i in range(10, 50)}
    run = read_run(make_run(tmp_path / "run", **files))
    size = sum(path.stat().st_size for path in rollout_paths(run.path))
    monkeypatch.setattr(document, "MOST_BYTES", size // 4)
    (found,) = document.read_rollout_files([run])
    assert len(found) == 10
    assert (found[0].iteration, found[-1].iteration) == (10, 49)
    assert run.problems[-1].startswith("rollouts: 10 of 40 files were read")


def test_nothing_is_a_table_too() -> None:
    assert len(make_table([[], []])) == 0
