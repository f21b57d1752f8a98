"""A policy on disk: a Hugging Face folder with the value head and the mode of training beside it.

`AutoModelForCausalLM` (or peft, for an adapter) opens the folder without this package.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers import PreTrainedTokenizerBase as Tokenizer

from textgym.errors import ConfigError
from textgym_agents.lm.config import PolicyConfig, QloraMode, TrainMode
from textgym_agents.lm.modes import quantization_arguments
from textgym_agents.lm.shapes import BUILT_IN
from textgym_agents.lm.tiny import tiny_config, tiny_tokenizer
from textgym_agents.run.directory import RunDirectory

if TYPE_CHECKING:
    from textgym_agents.lm.network import PolicyValueNetwork

VALUE_HEAD_FILE = "value_head.safetensors"
MODE_FILE = "textgym_policy.json"
ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_FILE = "adapter_model.safetensors"
BASE_FOLDER = "base"
POLICY_FOLDER = "policy"


class SavedPolicy(NamedTuple):
    """The parts of a policy that `save_policy` wrote."""

    lm: PreTrainedModel
    tokenizer: Tokenizer
    config: PolicyConfig
    value_head: dict[str, Tensor]
    adapter: dict[str, Tensor] | None
    """The weights of the adapter, where the policy is one."""
    base_path: str | None
    """Where the base of the adapter was loaded from."""


def is_policy(path: str | Path) -> bool:
    """Return whether a folder was written by `save_policy`."""
    return (Path(path) / MODE_FILE).exists()


def find_policy(model: str) -> Path | None:
    """Return the folder of a saved policy, or that in the newest checkpoint of a run; else None."""
    path = Path(model)
    if is_policy(path) or not (path / "config.yaml").exists():
        return path if is_policy(path) else None
    checkpoint = RunDirectory(path).latest_checkpoint()
    if checkpoint is None:
        raise ConfigError(f"{model} has no checkpoint yet; continue it with --resume {model}")
    if not is_policy(checkpoint / POLICY_FOLDER):
        raise ConfigError(f"policy.model: {model} is no run of a language model")
    return checkpoint / POLICY_FOLDER


def load_tokenizer(model: str) -> Tokenizer:
    """Load the tokenizer of a built-in model, a saved policy, or a folder or hub id.

    Raises:
        ConfigError: it is not there.
    """
    if model in BUILT_IN:
        return tiny_tokenizer()
    if (saved := find_policy(model)) is not None:
        return _load_tokenizer(saved)
    with _explained(model):
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(model)
        return tokenizer


def load_pretrained(model: str, mode: TrainMode | None = None) -> tuple[PreTrainedModel, Tokenizer]:
    """Load a causal language model and its tokenizer from a folder or the hub.

    The weights are float32; in the mode `qlora` 4 bits, and bfloat16 where that is not possible.

    Raises:
        ConfigError: neither is there.
    """
    with _explained(model):
        tokenizer = AutoTokenizer.from_pretrained(model)
        return _load_lm(model, mode), tokenizer


@contextmanager
def _explained(model: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"policy.model: cannot load '{model}': {_reason(model, error)}. Give 'tiny', "
            "'small', the folder of a Hugging Face causal language model, a run, or a hub id "
            "(needs a network)."
        ) from error


def load_model_config(model: str) -> PreTrainedConfig:
    """Read the configuration of a model, not its weights: built in, a folder or a hub id.

    Raises:
        ConfigError: there is none.
    """
    if model in BUILT_IN:
        return tiny_config(tiny_tokenizer(), shape=BUILT_IN[model])
    path = Path(model)
    if (path / ADAPTER_CONFIG_FILE).exists():
        recorded = json.loads((path / ADAPTER_CONFIG_FILE).read_text())
        model = _find_base(path, recorded["base_model_name_or_path"])
    with _explained(model):
        config: PreTrainedConfig = AutoConfig.from_pretrained(model)
        return config


def _reason(model: str, error: Exception) -> str:
    if Path(model).is_dir() and not (Path(model) / "config.json").exists():
        return "the folder has no config.json"
    return " ".join(str(error).split()).rstrip(".")


def save_policy(network: PolicyValueNetwork, path: Path) -> None:
    """Write model or adapter, tokenizer, value head and mode of training."""
    path.mkdir(parents=True, exist_ok=True)
    if network.peft is None:
        network.lm.save_pretrained(path)
    else:
        if network.base_path is None:
            save_base(network, path / BASE_FOLDER)
        network.peft.peft_config["default"].base_model_name_or_path = network.base_path
        network.peft.save_pretrained(path)
    network.tokenizer.save_pretrained(path)
    head = network.value_head.state_dict()
    save_file({k: v.detach().cpu().contiguous() for k, v in head.items()}, path / VALUE_HEAD_FILE)
    (path / MODE_FILE).write_text(json.dumps(network.config.model_dump(mode="json"), indent=2))


def save_base(network: PolicyValueNetwork, path: Path) -> None:
    """Write the frozen base of an adapter, which `network` then names as its base."""
    state = {
        name.replace(".base_layer", ""): value
        for name, value in network.lm.state_dict().items()
        if "lora_" not in name
    }
    network.lm.save_pretrained(path, state_dict=state)
    network.tokenizer.save_pretrained(path)
    network.base_path = str(path.resolve())


def read_policy(path: Path) -> SavedPolicy:
    """Read what `save_policy` wrote."""
    config = PolicyConfig.model_validate_json((path / MODE_FILE).read_text())
    tokenizer, head = _load_tokenizer(path), load_file(path / VALUE_HEAD_FILE)
    adapter_config = path / ADAPTER_CONFIG_FILE
    if not adapter_config.exists():
        return SavedPolicy(_load_lm(path, config.mode), tokenizer, config, head, None, None)
    base = _find_base(path, json.loads(adapter_config.read_text())["base_model_name_or_path"])
    adapter = load_file(path / ADAPTER_FILE)
    return SavedPolicy(_load_lm(base, config.mode), tokenizer, config, head, adapter, base)


def _load_lm(path: str | Path, mode: TrainMode | None) -> PreTrainedModel:
    """Load a model and move its weights into memory of torch's own alignment.

    The last bits of a matrix product depend on the alignment of its operands, so a policy whose
    weights are a mapped file would not repeat what the saved one did.
    """
    if isinstance(mode, QloraMode):
        quantized: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            path, **quantization_arguments()
        )
        return quantized
    lm: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    for parameter in lm.parameters():
        parameter.data = parameter.data.clone()
    return lm


def _load_tokenizer(path: Path) -> Tokenizer:
    """Load exactly the tokenizer that was saved.

    `AutoTokenizer` goes by the architecture of the model: to a Qwen2 with a tokenizer of its own it
    gives Qwen's, with another normaliser and more special tokens.
    """
    is_fast = (path / "tokenizer.json").exists()
    loader = PreTrainedTokenizerFast if is_fast else AutoTokenizer
    tokenizer: Tokenizer = loader.from_pretrained(path)
    for name in ("is_local", "local_files_only"):  # how it was loaded: no part of what it is
        tokenizer.init_kwargs.pop(name, None)
    return tokenizer


def _find_base(path: Path, recorded: str) -> str:
    """Return where the base of an adapter is, also after the folder or its run has been moved.

    An adapter lies beside its base, or in `checkpoints/NAME/policy` of a run with one base.
    """
    near = [folder / BASE_FOLDER for folder in (path, *path.resolve().parents[:3])]
    return next((str(place) for place in near if (place / "config.json").exists()), recorded)
