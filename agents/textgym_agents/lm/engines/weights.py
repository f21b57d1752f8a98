"""What an engine is sent after an update: every weight by its name, or an adapter's files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from textgym.errors import ConfigError
from textgym_agents.lm.engines.config import SyncMode
from textgym_agents.lm.engines.errors import EngineError
from textgym_agents.lm.network import PolicyValueNetwork

Weights = Iterable[tuple[str, Tensor]]


def sends_adapter(network: PolicyValueNetwork, sync: SyncMode, *, is_bf16: bool) -> bool:
    """Return whether an update is sent as an adapter; see `VllmEngineConfig.sync`.

    Raises:
        ConfigError: `adapter` was asked for, and the policy has none.
    """
    if sync == "adapter" and network.peft is None:
        raise ConfigError(
            "engine.sync is 'adapter', but the policy has none (policy.mode is "
            f"'{network.config.mode.kind}'); take 'merged' or policy.mode.kind=lora"
        )
    return sync == "adapter" or (sync == "auto" and network.peft is not None and is_bf16)


@torch.no_grad()
def check_finite(network: PolicyValueNetwork) -> None:
    """Raise unless every weight is finite: an engine keeps what it has seen in its cache.

    Raises:
        EngineError: names the weight.
    """
    for name, weight in network.lm.named_parameters():
        if weight.is_floating_point() and not bool(torch.isfinite(weight).all()):
            raise EngineError(
                f"weight '{name}' is not finite, so the engine was not given the new weights; "
                "lower ppo.optimizer.learning_rate and resume from the last checkpoint"
            )


@torch.no_grad()
def weights_of(network: PolicyValueNetwork, *, with_adapter: bool) -> Iterator[tuple[str, Tensor]]:
    """Yield every weight of the language model, named as in a checkpoint; tied ones once.

    Args:
        network: the policy; its own weights are not touched.
        with_adapter: whether the adapter is merged into what it adapts.

    Raises:
        ConfigError: a weight is quantised.
    """
    adapted = {n: m for n, m in network.lm.named_modules() if hasattr(m, "get_delta_weight")}
    for name, parameter in network.lm.named_parameters():
        if "lora_" in name:
            continue
        public = name.replace(".base_layer", "")
        if not parameter.is_floating_point():
            raise ConfigError(
                f"engine: weight '{public}' is quantised ({parameter.dtype}) and cannot be sent; "
                "take engine.kind=transformers"
            )
        weight = parameter.detach()
        module_name, _, kind = public.rpartition(".")
        if with_adapter and kind == "weight" and module_name in adapted:
            weight = weight + adapted[module_name].get_delta_weight("default")
        yield public, weight


def save_weights(weights: Weights, path: Path) -> None:
    """Write weights as one safetensors file."""
    save_file({name: weight.cpu().contiguous() for name, weight in weights}, path)


def save_adapter(network: PolicyValueNetwork, path: Path) -> None:
    """Write the adapter as a folder that vLLM loads."""
    network.peft.save_pretrained(path)
