"""The command of a server: what vLLM is given to open, and how it is told to behave."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from textgym.errors import ConfigError
from textgym_agents.lm.config import LoraMode, PolicyConfig
from textgym_agents.lm.engines import installation
from textgym_agents.lm.engines.serve import ServerOptions, plain_model, server_command
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.run.directory import RunDirectory

MakePolicy = Callable[..., PolicyValueNetwork]


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))


def test_a_policy_is_opened_without_its_value_head(make_policy: MakePolicy, tmp_path: Path) -> None:
    network = make_policy()
    network.save(tmp_path / "policy")
    folder = Path(plain_model(str(tmp_path / "policy")))
    weights = load_file(folder / "model.safetensors")
    assert list(folder.glob("*.safetensors")) == [folder / "model.safetensors"]
    assert torch.equal(weights["model.norm.weight"], network.lm.model.norm.weight)
    assert (folder / "config.json").exists()


def test_an_adapter_is_opened_merged(make_policy: MakePolicy, tmp_path: Path) -> None:
    network = make_policy(config=PolicyConfig(mode=LoraMode(rank=2)))
    network.save(tmp_path / "policy")
    lm = AutoModelForCausalLM.from_pretrained(plain_model(str(tmp_path / "policy")))
    ids = torch.tensor([[9, 3, 7, 1]])
    with torch.no_grad():
        difference = lm(input_ids=ids).logits - network.lm(input_ids=ids).logits
    assert float(difference.abs().max()) < 1e-4


def test_an_embedded_model_is_written(tmp_path: Path) -> None:
    folder = Path(plain_model("small"))
    assert json.loads((folder / "config.json").read_text())["hidden_size"] == 128
    assert (folder / "tokenizer.json").exists()


def test_the_checkpoint_of_a_run_is_opened(make_policy: MakePolicy, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("{}")
    with pytest.raises(ConfigError, match="run has no checkpoint yet"):
        plain_model(str(run))
    directory = RunDirectory(run)
    directory.prepare()
    with directory.new_checkpoint(2, keep=1) as checkpoint:
        make_policy().save(checkpoint / "policy")
    assert (Path(plain_model(str(run))) / "config.json").exists()


@pytest.mark.parametrize("model", ["Qwen/Qwen2.5-0.5B-Instruct", "./a-plain-folder"])
def test_other_models_are_opened_as_they_are(model: str) -> None:
    assert plain_model(model) == model


def test_the_server_samples_from_the_plain_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "find_spec", lambda name: object())
    options = ServerOptions(
        "Qwen/Qwen2.5-0.5B", port=8123, adapter_rank=10, extra=("--tensor-parallel-size", "2")
    )
    command, environment = server_command(options)
    said = " ".join(command)
    for part in (
        "--logprobs-mode processed_logprobs",
        "--generation-config vllm",
        "--host 127.0.0.1 --port 8123",
        "--logits-processors textgym_agents.lm.engines.vllm_worker:LegalIds",
        "--worker-extension-cls textgym_agents.lm.engines.vllm_worker.WorkerExtension",
        "--max-lora-rank 16",
    ):
        assert part in said
    assert said.endswith("--tensor-parallel-size 2")
    assert environment["VLLM_SERVER_DEV_MODE"] == "1"
    assert environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    without, environment = server_command(ServerOptions("Qwen/Qwen2.5-0.5B"))
    assert "--enable-lora" not in without
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in environment
