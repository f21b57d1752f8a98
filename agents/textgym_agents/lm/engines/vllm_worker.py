"""What runs inside vLLM: taking new weights, and keeping to the legal ids.

The functions are called on the worker of an engine in this process; `WorkerExtension` offers them
to a server's trainer (`--worker-extension-cls`). Tested with vLLM 0.32.0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from vllm.model_executor.model_loader.reload import layerwise
from vllm.v1.sample.logits_processor import LogitsProcessor

from textgym_agents.lm.engines.weights import Weights


class LegalIds(LogitsProcessor):  # type: ignore[misc]  # vLLM is not type-checked
    """Gives illegal ids no probability, in sampling and in what is reported of it."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self.illegal: Tensor | None = None
        self.device = device

    def is_argmax_invariant(self) -> bool:
        """Say that the most likely id may change."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Ignore which requests come and go: the mask is the same for all."""

    def apply(self, logits: Tensor) -> Tensor:
        """Mask the logits (B, V) in place."""
        return logits if self.illegal is None else logits.masked_fill_(self.illegal, -torch.inf)


def set_illegal_ids(worker: Any, ids: list[int]) -> None:
    """Forbid ids from now on.

    Raises:
        RuntimeError: the engine was started without `LegalIds`.
    """
    processors = worker.model_runner.input_batch.logitsprocs.all
    masks = [p for p in processors if isinstance(p, LegalIds)]
    if not masks:
        raise RuntimeError("the engine runs without the logits processor LegalIds")
    size = worker.model_runner.model_config.get_vocab_size()
    for mask in masks:
        illegal = torch.isin(torch.arange(size), torch.tensor(ids, dtype=torch.long))
        mask.illegal = illegal.to(mask.device) if ids else None


def load_weights(worker: Any, weights: Weights) -> None:
    """Replace every weight of the model; after an error the engine can be sent others.

    Args:
        worker: of the engine.
        weights: all of them. A part of a fused matrix alone would leave the rest of it undefined.
    """
    model = worker.model_runner.get_model()
    try:
        worker.reload_weights(weights_iterator=iter(weights))
    except BaseException:
        _recover(model)
        raise
    _repack_tied_head(model)


def _repack_tied_head(model: nn.Module) -> None:
    """Pack a tied head anew: on a CPU it is a packed copy, which reloading skips."""
    head: Any = getattr(model, "lm_head", None)
    embedding: Any = getattr(getattr(model, "model", None), "embed_tokens", None)
    if head is None or head is embedding or not hasattr(head, "cpu_linear"):
        return
    if head.weight is embedding.weight:
        head.quant_method.process_weights_after_loading(head)


def _recover(model: nn.Module) -> None:
    """Put back the tensors of layers that a failed transfer has left on the meta device."""
    for layer in model.modules():
        info = layerwise.get_layerwise_info(layer)
        if info.can_load():
            if info.kernel_tensors is not None:
                layerwise._place_kernel_tensors(layer, info)
            info.reset()
    layerwise.LOADING_LAYERS.clear()


class WorkerExtension:
    """Methods that a server's worker gains; `/collective_rpc` calls them by name."""

    def textgym_load_weights(self, path: str) -> int:
        """Load a file that the trainer wrote, and return how many weights it held."""
        weights = load_file(Path(path))
        load_weights(self, weights.items())
        return len(weights)

    def textgym_set_illegal_ids(self, ids: list[int]) -> None:
        """Forbid ids from now on."""
        set_illegal_ids(self, ids)
