"""The benchmarks that compare with TRL: their formulas, their verdicts, and that they run."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import __main__ as command
from benchmarks import ppo_gpu, time_to_95, time_to_95_ours, time_to_95_trl
from benchmarks import ppo_gpu_work as gpu
from benchmarks.table import Row, verdict_of, write_json
from benchmarks.time_to_95_work import Measurement
from textgym_agents.lm.config import PolicyConfig
from textgym_agents.lm.network import PolicyValueNetwork

TINY = (
    "--device=cpu", "--vocabulary=600", "--hidden=64", "--layers=2", "--prompts=4",
    "--prompt-tokens=6", "--new-tokens=5", "--minibatches=2", "--epochs=2", "--iterations=1",
    "--threads=1",
)  # fmt: skip


def options(*arguments: str) -> gpu.Options:
    return gpu.Options.of(ppo_gpu.parse(arguments))


# What cannot be measured --------------------------------------------------------------------------


def test_row_not_measured_is_neither_met_nor_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = Row.not_measured("MFU", "%", 1.0, "no GPU")
    monkeypatch.setattr(command, "run_benchmark", lambda name: [row])
    out = tmp_path / "rows.json"
    assert command.main(["ppo_gpu", "--json", str(out)]) == 0
    assert "not measured: no GPU" in capsys.readouterr().out
    (record,) = json.loads(out.read_text())
    assert record["ours"] is record["peer"] is record["ratio"] is record["is_met"] is None
    assert not row.is_met


def test_main_fails_for_a_missed_row_beside_one_not_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [Row.not_measured("a", "%", 1.0, "no GPU"), Row("b", 1.0, 2.0, "s", 1.0)]
    monkeypatch.setattr(command, "run_benchmark", lambda name: rows)
    assert command.main(["ppo_gpu"]) == 1
    assert [verdict_of(row)[:9] for row in rows] == ["[yellow]n", "[bold red"]


def test_write_json_of_measured_rows_keeps_their_verdict(tmp_path: Path) -> None:
    write_json([Row("b", 1.0, 2.0, "s", 0.5, is_cost=True)], tmp_path / "rows.json")
    (record,) = json.loads((tmp_path / "rows.json").read_text())
    assert record["ratio"] == 0.5
    assert record["is_met"] is True


def test_ppo_gpu_without_a_gpu_says_so_and_is_skipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert ppo_gpu.main([]) == ppo_gpu.EXIT_NOT_MEASURED == 77
    assert capsys.readouterr().out.splitlines() == [
        "ppo_gpu: not measured: torch finds no GPU (--device cpu tries the program)"
    ]
    rows = ppo_gpu.run()
    assert {row.missing for row in rows} == {"no GPU"}


# Formulas of the GPU benchmark --------------------------------------------------------------------


def test_shape_is_that_of_qwen_half_a_billion() -> None:
    shape = gpu.Shape()
    biases, norms = 24 * (896 + 128 + 128), (2 * 24 + 1) * 896
    total = shape.layer_weights + shape.head_weights + biases + norms
    assert total == 494_032_768  # as published: 0.49 B
    assert (shape.intermediate, shape.heads, shape.kv_heads) == (4864, 14, 2)


def test_forward_flops_are_those_that_torch_counts() -> None:
    given = options(*TINY)
    positions = given.read_positions
    with torch.device("meta"):
        model = gpu.build_model(given.shape)
        ids = torch.zeros(given.prompts, positions, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.model(input_ids=ids)
    expected = gpu.forward_flops(given)
    # torch counts all pairs of positions, also those of which one does not see the other
    all_pairs = expected.attention * 2 * positions / (positions + 1)
    assert counter.get_total_flops() == pytest.approx(expected.layers + all_pairs)
    assert expected.head == 2 * 600 * 64 * 4 * 5
    assert expected.value_head == 2 * 64 * 4 * 5


def test_update_and_scoring_flops_count_passes() -> None:
    given = options(*TINY)
    once = gpu.forward_flops(given)
    assert gpu.update_flops(given) == 2 * 3 * once.total
    assert gpu.scoring_flops(given) == once.total + (once.total - once.value_head)
    assert gpu.recomputed_flops(given) == 2 * once.head


def test_decoding_bytes_are_weights_and_cache_of_every_step() -> None:
    given = options(*TINY)
    # 2 layers: queries and outputs 64 * 64 each, keys and values 64 * 64 each, MLP 3 * 64 * 347
    weights = 2 * (4 * 64 * 64 + 3 * 64 * 347) + 600 * 64
    # 4 steps read 7, 8, 9 and 10 positions of 4 sequences: 2 layers, keys and values of 64
    cache = (7 + 8 + 9 + 10) * 4 * 2 * 2 * 64
    assert gpu.decoding_bytes(given) == 2 * (4 * weights + cache)


def test_build_rows_reads_utilisation_and_ratios_from_seconds() -> None:
    given = options(*TINY)
    peak = gpu.Peak(flops=gpu.update_flops(given), bandwidth=gpu.decoding_bytes(given))

    def measured(side: str, seconds: float, memory: int) -> gpu.Measurement:
        return {
            "side": side, "device": "x", "num_response_tokens": 20, "num_optimizer_steps": 4,
            "seconds": {phase: [seconds] * 3 for phase in gpu.PHASES},
            "peak_bytes": memory, "versions": {"trl": "1"},
        }  # fmt: skip

    rows = ppo_gpu.build_rows(
        given, peak, measured("textgym", 2.0, 2**30), measured("trl", 8.0, 2**31)
    )
    by_name = {row.name: row for row in rows}
    assert by_name[ppo_gpu.SPEED].ours == pytest.approx(20 / 6)
    assert by_name[ppo_gpu.SPEED].ratio == pytest.approx(4.0)
    assert by_name[ppo_gpu.MEMORY].ratio == 0.5
    assert by_name[ppo_gpu.MFU].ours == pytest.approx(50.0)
    assert by_name[ppo_gpu.MFU].is_met
    assert by_name[ppo_gpu.DECODING].ours == pytest.approx(50.0)
    assert [row.name for row in ppo_gpu.unmeasured_rows("x")] == [row.name for row in rows]


def test_check_work_refuses_other_work() -> None:
    given = options(*TINY)
    done: gpu.Measurement = {
        "side": "trl", "device": "cpu", "seconds": {}, "num_response_tokens": 20,
        "num_optimizer_steps": 3, "peak_bytes": 0, "versions": {},
    }  # fmt: skip
    with pytest.raises(RuntimeError, match=r"20 response tokens and 3 optimiser steps .* 20 and 4"):
        ppo_gpu.check_work(done, given)


def test_find_peak_names_an_unknown_device() -> None:
    with pytest.raises(LookupError, match="'cpu' can do is not known: give --flops"):
        ppo_gpu.find_peak(options(*TINY), None, None)
    assert ppo_gpu.find_peak(options(*TINY), 1.0, 2.0) == (1.0, 2.0)


def test_ppo_gpu_runs_to_the_end_on_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    status = ppo_gpu.main([*TINY, "--without-peer", "--flops=1e12", "--bandwidth=1e11"])
    lines = capsys.readouterr().out.splitlines()
    assert status == 0
    assert lines[0] == "textgym on cpu"
    assert [line.split(":")[0].strip() for line in lines[1:5]] == [*gpu.PHASES, "total"]
    seconds = [float(line.split()[1]) for line in lines[1:5]]
    assert seconds[3] == pytest.approx(sum(seconds[:3]), abs=0.002)


# Time to 95 % -------------------------------------------------------------------------------------


def raced(seconds: float | None) -> Measurement:
    return {
        "side": "trl", "seconds": seconds, "cpu_seconds": 1.0, "curve": [(0.0, 0.5)],
        "num_iterations": 1, "versions": {"trl": "1"},
    }  # fmt: skip


def test_find_best_ends_what_has_lost_and_keeps_the_faster_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needed = {(5e-4, 1): 40.0, (5e-4, 2): 30.0, (2e-4, 2): 50.0, (1e-3, 2): 20.0}
    budgets = []

    def race(model: Path, seed: int, budget: float, peer: time_to_95.Peer) -> Measurement:
        budgets.append(budget)
        seconds = needed[peer]
        return raced(seconds if seconds <= budget else None)

    monkeypatch.setattr(time_to_95, "race", race)
    settings = time_to_95.Settings(learning_rates=(5e-4, 2e-4, 1e-3), budget=100.0)
    best, run = time_to_95.find_best(Path(), settings)
    assert best == (1e-3, 2)
    assert run["seconds"] == 20.0
    assert budgets == [100.0, 40.0, 30.0, 30.0]


def test_build_row_counts_a_run_that_is_not_there_as_the_budget() -> None:
    settings = time_to_95.Settings(budget=100.0)
    peer = time_to_95.Peer(1e-3, 2)
    row = time_to_95.build_row(settings, [raced(9.0)], [raced(None), raced(60.0)], peer)
    assert (row.ours, row.peer) == (9.0, 80.0)
    assert row.is_met
    assert "1 of 2 not within 100 s" in row.note


def run_ours(arguments: argparse.Namespace) -> Measurement:
    return time_to_95_ours.measure(arguments)


def run_trl(arguments: argparse.Namespace) -> Measurement:
    return time_to_95_trl.measure(arguments)


@pytest.mark.parametrize("measure", [run_ours, run_trl])
def test_a_race_ends_at_its_budget(
    measure: Callable[[argparse.Namespace], Measurement], tmp_path: Path
) -> None:
    PolicyValueNetwork.from_config(PolicyConfig(model="tiny"), seed=0).save(tmp_path)
    arguments = argparse.Namespace(
        model=tmp_path, seed=0, threads=1, every=60.0, budget=0.01, learning_rate=1e-3
    )
    measured = measure(arguments)
    assert measured["seconds"] is None
    assert measured["num_iterations"] == 1
    (start, first), (end, last) = measured["curve"]
    assert start == 0.0
    assert end > 0.01
    assert not math.isnan(first + last)
    assert measured["cpu_seconds"] > 0
