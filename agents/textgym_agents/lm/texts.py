"""Text to token ids and back, by the tokenizer of a network."""

from __future__ import annotations

from collections.abc import Sequence

from textgym_agents.lm.engine import Generation
from textgym_agents.lm.network import PolicyValueNetwork


def encode(network: PolicyValueNetwork, texts: Sequence[str]) -> list[list[int]]:
    """Return token ids of rendered text; special tokens are those that the text spells out."""
    ids: list[list[int]] = network.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return ids


def decode(network: PolicyValueNetwork, ids: Sequence[int]) -> str:
    """Return the text of ids as a reward sees it."""
    return str(network.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def completion_text(network: PolicyValueNetwork, generation: Generation) -> str:
    """Return the text of a completion without the token that ended it."""
    ids = generation.token_ids
    return decode(network, ids[:-1] if generation.finish_reason == "stop" else ids)
