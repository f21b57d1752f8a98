"""What vLLM must know of a policy before it has weights: its shape, its room, its legal ids."""

from __future__ import annotations

import copy
from pathlib import Path

from textgym_agents.lm.network import PolicyValueNetwork

GIB = 1 << 30
MAX_CPU_CACHE = 4 * GIB
BLOCK_TOKENS = 128
"""Tokens per block of vLLM's cache on a CPU; a sequence has at least one."""
STEP_TOKENS = 2048
"""Tokens that vLLM may read in a step on a CPU, where sequences are no longer than that."""
MIN_LENGTH = 64
"""Tokens that a sequence may have at least; the canary needs some."""
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Those that vLLM makes room for."""


def write_config(network: PolicyValueNetwork, folder: Path) -> str:
    """Write the configuration of a policy's language model, without weights; return the folder."""
    config = copy.deepcopy(network.lm.config)
    config.architectures = [type(network.lm).__name__]
    config.save_pretrained(folder)
    return str(folder)


def illegal_ids(network: PolicyValueNetwork) -> list[int]:
    """Return the ids that may not be sampled."""
    if network.illegal is None:
        return []
    ids: list[int] = network.illegal.nonzero().squeeze(1).tolist()
    return ids


def adapter_room(rank: int) -> int:
    """Return the rank that vLLM must make room for, for adapters of a rank."""
    return next((room for room in LORA_RANKS if room >= rank), rank)


def head_size(network: PolicyValueNetwork) -> int:
    """Return the width of an attention head."""
    config = network.lm.config.get_text_config()
    explicit = getattr(config, "head_dim", None)
    return int(explicit or config.hidden_size // config.num_attention_heads)


def step_tokens(max_length: int, num_sequences: int = 1) -> int:
    """Return how many tokens vLLM may read in a step on a CPU.

    Prompts must be read whole there: what it samples behind a part of one it takes back, which
    seeded generators of a CPU cannot (vLLM 0.32.0: "CPU Generator does not use offset").
    """
    return max(STEP_TOKENS, max_length, num_sequences)


def cache_bytes(
    network: PolicyValueNetwork, *, max_length: int, num_sequences: int, bytes_per_number: int
) -> int:
    """Return room for the keys and values of full sequences on a CPU, at most 4 GiB."""
    config = network.lm.config.get_text_config()
    num_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    num_blocks = -(-max_length // BLOCK_TOKENS) * num_sequences + 1
    per_token = 2 * config.num_hidden_layers * num_heads * head_size(network) * bytes_per_number
    return int(min(num_blocks * BLOCK_TOKENS * per_token, MAX_CPU_CACHE))
