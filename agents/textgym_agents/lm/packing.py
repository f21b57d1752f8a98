"""Sequences of several lengths in one row, without padding.

Norms, projections and the MLP see the real tokens alone. Attention is computed for groups of
sequences of about one length, each padded to its longest: a mask over the whole row would cost the
square of its length, and one call per sequence a Python loop per layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "textgym_packed"
"""What transformers knows our attention by."""
GROUP_SHARE = 0.8
"""A group holds sequences of at least this share of its longest."""


@dataclass(frozen=True)
class Group:
    """Sequences that attention takes in one call."""

    start: int
    """Of its tokens in the packed row."""
    stop: int
    num_sequences: int
    longest: int
    places: Tensor | None
    """(stop - start,), where its tokens are in (num_sequences * longest,); None: just there."""

    def spread(self, states: Tensor) -> Tensor:
        """Return states (heads, N, d) of the packed row as the group's (n, heads, T, d)."""
        own = states[:, self.start : self.stop]
        if self.places is not None:
            room = own.new_zeros(self.num_sequences * self.longest, own.shape[0], own.shape[2])
            own = room.index_copy(0, self.places, own.transpose(0, 1)).transpose(0, 1)
        spread: Tensor = own.unflatten(1, (self.num_sequences, self.longest))
        return spread.transpose(0, 1)

    def gather(self, states: Tensor) -> Tensor:
        """Return states (n, heads, T, d) of the group as (N, heads, d), without padding."""
        rows = states.transpose(1, 2).flatten(0, 1)
        return rows if self.places is None else rows.index_select(0, self.places)


@dataclass(frozen=True)
class Packing:
    """Where the tokens of a right-padded batch (B, T) are in the packed row of N tokens."""

    num_tokens: int
    """Tokens of the sequences; what follows in the row up to N fills it up and means nothing."""
    sources: Tensor
    """(N,): the index of each packed token in the flattened batch (B * T,)."""
    positions: Tensor
    """(N,): the position of each token in its sequence."""
    starts: Tensor
    """(B,): where the sequence of each row begins in the packed row."""
    groups: tuple[Group, ...]

    @classmethod
    def of(cls, lengths: Tensor, width: int, *, num_rows: Callable[[int], int] = int) -> Packing:
        """Pack the first `lengths` (B,) tokens of each row of a batch of `width` columns.

        Args:
            lengths: at least one is not 0.
            width: T.
            num_rows: from the number of tokens to the N that the row is filled up to.
        """
        order = torch.argsort(lengths, descending=True, stable=True)
        sizes = lengths[order]
        offsets = sizes.cumsum(0) - sizes
        sequences = torch.arange(len(order), device=order.device).repeat_interleave(sizes)
        positions = torch.arange(len(sequences), device=order.device) - offsets[sequences]
        starts = torch.empty_like(offsets)
        starts[order] = offsets
        fill = (0, num_rows(len(sequences)) - len(sequences))
        return cls(
            num_tokens=len(sequences),
            sources=nn.functional.pad(order[sequences] * width + positions, fill),
            positions=nn.functional.pad(positions, fill),
            starts=starts,
            groups=tuple(_groups(sizes.tolist(), sequences, positions)),
        )


def _groups(sizes: list[int], sequences: Tensor, positions: Tensor) -> list[Group]:
    """Return the groups of sequences whose sizes fall."""
    groups: list[Group] = []
    first = start = 0
    while first < len(sizes) and sizes[first] > 0:
        longest = sizes[first]
        fits = [size >= GROUP_SHARE * longest for size in sizes[first:]]
        count = fits.index(False) if False in fits else len(fits)
        stop = start + sum(sizes[first : first + count])
        places = None
        if sizes[first + count - 1] < longest:
            places = (sequences[start:stop] - first) * longest + positions[start:stop]
        groups.append(Group(start, stop, count, longest, places))
        first, start = first + count, stop
    return groups


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    packing: Packing | None = None,
    **kwargs: Any,  # those of transformers' attention interface
) -> tuple[Tensor, None]:
    """Return causal attention within each sequence of a packed row (1, heads, N, d).

    Without a packing it is transformers' own, but that one new token for each sequence does not
    copy the cache once for every query head of a group.
    """
    num_groups = query.shape[1] // key.shape[1]
    if packing is not None:
        rows = []
        for group in packing.groups:
            q, k, v = (group.spread(x[0]) for x in (query, key, value))
            states = nn.functional.scaled_dot_product_attention(
                q, k, v, is_causal=True, scale=scaling, enable_gqa=num_groups > 1
            )
            rows.append(group.gather(states))
        num_left = query.shape[2] - packing.num_tokens
        rows.append(query.new_zeros(num_left, query.shape[1], query.shape[3]))
        return torch.cat(rows).unsqueeze(0), None
    if query.shape[2] == 1 and num_groups > 1 and kwargs.get("position_bias") is None:
        folded = query.view(len(query), key.shape[1], num_groups, -1)  # they see the same keys
        states = nn.functional.scaled_dot_product_attention(
            folded, key, value, attn_mask=attention_mask, scale=scaling
        )
        return states.reshape(len(query), 1, -1, query.shape[-1]), None
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, **kwargs
    )


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def packed_arguments(packing: Packing) -> dict[str, Any]:
    """Return what a decoder is to be called with, beside ids (1, N) or embeddings (1, N, d)."""
    row = packing.positions.unsqueeze(0)
    ready = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=row.device)
    return {
        "position_ids": row,
        "attention_mask": ready,  # of four dimensions: transformers builds none of its own
        "packing": packing,
    }


def sees_everything(lm: PreTrainedModel) -> bool:
    """Return whether every layer attends to all that is before it: no window, no recurrence."""
    config = lm.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        return getattr(config, "sliding_window", None) is None
    return set(kinds) == {"full_attention"}


@torch.no_grad()
def use_packing(lm: PreTrainedModel) -> bool:
    """Give a model our attention; return whether its decoder then reads packed sequences right."""
    if lm.config._attn_implementation != "sdpa":
        return False
    lm.set_attn_implementation(ATTENTION)
    if not sees_everything(lm):
        return False
    decoder: Any = lm.get_decoder()
    ids = torch.arange(10, device=lm.device).view(2, 5) % lm.config.get_text_config().vocab_size
    packing = Packing.of(torch.tensor([3, 5], device=lm.device), 5)
    try:
        packed = decoder(
            input_ids=ids.flatten()[packing.sources].unsqueeze(0),
            use_cache=False,
            **packed_arguments(packing),
        ).last_hidden_state[0]
    except (TypeError, RuntimeError, ValueError):  # it does not take the arguments
        return False
    padded = decoder(input_ids=ids, use_cache=False).last_hidden_state
    return torch.allclose(packed, padded.flatten(0, 1)[packing.sources], atol=1e-4, rtol=1e-3)
