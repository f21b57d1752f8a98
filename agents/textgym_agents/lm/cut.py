"""A decoder cut below its top layers: what is frozen is computed once per rollout.

Where only the top layers learn, what the layers below say of a sequence never changes. It is
computed once, and every epoch, and the reference, start from there (layer-passes per epoch of 24
layers with 4 that learn: 12 instead of 72).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from textgym_agents.lm.packing import sees_everything


def below(decoder: Any, num_top: int) -> Any:
    """Return the decoder without its top layers and its final norm; the modules are shared."""
    return _with(decoder, decoder.layers[:-num_top], nn.Identity())


def above(decoder: Any, num_top: int) -> Any:
    """Return the decoder's top layers and final norm, to be called with `inputs_embeds`."""
    return _with(decoder, decoder.layers[-num_top:], decoder.norm)


def _with(decoder: Any, layers: nn.ModuleList, norm: nn.Module) -> Any:
    part = copy.copy(decoder)
    part._modules = {**decoder._modules, "layers": layers, "norm": norm}
    return part


@torch.no_grad()
def can_be_cut(lm: PreTrainedModel, num_top: int) -> bool:
    """Return whether the two parts one after the other are the decoder."""
    decoder: Any = lm.get_decoder()
    if not sees_everything(lm) or not 0 < num_top < len(decoder.layers):
        return False
    ids = torch.arange(5, device=lm.device).unsqueeze(0) % lm.config.get_text_config().vocab_size
    whole = decoder(input_ids=ids, use_cache=False).last_hidden_state
    try:
        states = below(decoder, num_top)(input_ids=ids, use_cache=False).last_hidden_state
        parts = above(decoder, num_top)(inputs_embeds=states, use_cache=False).last_hidden_state
    except (TypeError, RuntimeError, ValueError):  # it takes no embeddings
        return False
    return torch.allclose(parts, whole, atol=1e-5, rtol=1e-4)
