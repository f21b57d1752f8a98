"""`textgym plan`: what it prints, what it reads, and what it refuses."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from textgym.errors import ConfigError
from textgym_agents.cli.plan import parse_size, plan

SHAPE = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 1000,
    "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip


def run_plan(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    plan.configure(parser)
    return plan.run(parser.parse_args(arguments))


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Return a folder with nothing but a config.json."""
    AutoConfig.for_model("qwen2", **SHAPE).save_pretrained(tmp_path)
    return str(tmp_path)


def test_a_folder_without_weights_is_planned(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--model", folder, "--gpu-memory", "100MiB", "--json")
    assert run_plan(*options) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["num_parameters"] == found["num_trainable"]
    assert found["phases"]["update"]["weights"] == 4 * found["num_parameters"]
    assert found["peak"]["bytes"] == max(p["total"] for p in found["phases"].values())
    assert [fit["mode"] for fit in found["fits"]] == ["full", "lora", "last 10 %", "qlora"]


def test_what_it_suggests_can_be_set(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--model", folder, "--preset", "seed")
    assert run_plan(*options, "--gpu-memory", "8") == 0
    said = capsys.readouterr().out
    suggested = said.partition("suggested: ")[2].replace("'", "").split()
    assert suggested[:2] == ["--set", "policy.mode.kind=full"]
    assert run_plan(*options, *suggested) == 0
    assert "KV cache" in capsys.readouterr().out


def test_nothing_fits_into_too_little(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_plan("--model", folder, "--gpu-memory", "1MB") == 1
    said = capsys.readouterr().out
    assert "does not fit" in said
    assert "nothing fits; shorten rollout.max_length" in said


@pytest.mark.parametrize("model", ["tiny", "small"])
def test_embedded_models_need_no_files(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_plan("--model", model) == 0
    assert model in capsys.readouterr().out


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the folder has no config\.json"):
        run_plan("--model", str(tmp_path))


@pytest.mark.parametrize(
    ("text", "size"),
    [("24", 24 * 2**30), ("1.5GiB", 3 * 2**29), ("80 gb", 80 * 10**9), ("300MiB", 300 * 2**20)],
)
def test_sizes_have_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-5", "nan", "1e9", "24TB", "0.0000000001", "9" * 400])
def test_other_sizes_are_errors(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a size such as 24, 24GiB or 80GB"):
        parse_size(text)
