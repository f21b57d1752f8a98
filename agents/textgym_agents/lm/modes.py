"""Which parameters of a language model learn, and what that asks of the model."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from textgym.errors import ConfigError
from textgym_agents.lm.config import AdapterMode, LastLayersMode


def train_last_layers(lm: PreTrainedModel, mode: LastLayersMode) -> int:
    """Let the top layers and the final norm learn; return how many layers that are."""
    decoder: Any = lm.get_decoder()
    layers, norm = getattr(decoder, "layers", None), getattr(decoder, "norm", None)
    num_top = 0 if layers is None else mode.count(len(layers))
    if layers is None or norm is None or num_top > len(layers):
        raise ConfigError(
            f"policy.mode: cannot train the last {mode.k or mode.share} layers of "
            f"{type(lm).__name__}, "
            f"which has {'no list of' if layers is None else len(layers)} layers; "
            "lower policy.mode.k or choose another mode"
        )
    for module in (*layers[-num_top:], norm):
        module.requires_grad_(True)
    return num_top


def add_adapter(lm: PreTrainedModel, mode: AdapterMode, *, seed: int) -> Any:
    """Return the model of peft that holds `lm` with a new adapter on all of its linear layers."""
    from peft import LoraConfig, get_peft_model

    adapter = LoraConfig(
        r=mode.rank,
        lora_alpha=mode.alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(lm, adapter)


def quantization_arguments() -> dict[str, Any]:
    """Return what `from_pretrained` takes to load a base in 4 bits (arXiv:2305.14314).

    Raises:
        ConfigError: there is no GPU, or no bitsandbytes.
    """
    if missing := missing_for_bitsandbytes():
        raise ConfigError(
            "policy.mode: qlora needs an NVIDIA GPU and the package bitsandbytes; here is "
            f"{missing}. Take the mode 'lora' instead, or run where there are both "
            "(pip install 'textgym[quantized]')"
        )
    from transformers import BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {
        "quantization_config": quantization,
        "device_map": {"": torch.cuda.current_device()},
        "dtype": torch.bfloat16,  # of what is not quantised: embeddings, norms, head
    }


def missing_for_bitsandbytes() -> str | None:
    """Return what is missing for bitsandbytes, or None."""
    if not torch.cuda.is_available():
        return "no GPU that torch can use"
    if importlib.util.find_spec("bitsandbytes") is None:
        return "no bitsandbytes"
    return None


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters; those in 4 bits are stored two in a byte, and count."""
    return sum(
        p.numel() * (2 if type(p).__name__ == "Params4bit" else 1) for p in module.parameters()
    )
