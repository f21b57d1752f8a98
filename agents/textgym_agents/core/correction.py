"""Correction for samples of an engine that is not quite the policy.

The engine samples from mu and not from pi_old: other kernels, another precision, perhaps older
weights. With w = pi_old / mu of a token, each token of the policy's loss is weighted; no gradient
flows through w, and value, entropy and KL terms are left alone. Left out: the product of w over a
sequence, whose variance is of no use beyond some dozens of tokens.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from textgym_agents.core.config_base import Config
from textgym_agents.core.kl import MAX_LOG_RATIO


class NoCorrection(Config):
    """Take the samples for the policy's own."""

    kind: Literal["off"] = "off"


class TokenTIS(Config):
    """Truncated importance sampling: weight min(w, cap)."""

    kind: Literal["token_tis"] = "token_tis"
    cap: float = Field(default=2.0, ge=1)
    """Largest weight of a token."""


class TokenMask(Config):
    """Weight w within the bounds and 0 outside."""

    kind: Literal["token_mask"] = "token_mask"
    low: float = Field(default=0.5, gt=0, le=1)
    """Smallest w of a token that counts."""
    high: float = Field(default=2.0, ge=1)
    """Largest w of a token that counts."""


class SequenceMask(Config):
    """Drop the sequences whose geometric mean of w leaves 1 - tolerance to 1 + tolerance."""

    kind: Literal["seq_mask"] = "seq_mask"
    tolerance: PositiveFloat
    """Three times the spread of that mean right after the weights were synchronised."""


class Bypass(Config):
    """Take the engine's log-probabilities for those of pi_old: the ratio's clip bounds the rest."""

    kind: Literal["bypass"] = "bypass"


Correction = Annotated[
    NoCorrection | TokenTIS | TokenMask | SequenceMask | Bypass, Field(discriminator="kind")
]


class EngineWeights(NamedTuple):
    """(B, T) each."""

    weights: Tensor
    """Of each token's policy loss; 1 off the mask."""
    is_cut: Tensor
    """bool: True where the weight is not w, or the token is dropped."""


def engine_weights(log_w: Tensor, mask: Tensor, correction: Correction) -> EngineWeights | None:
    """Return the weights of the policy's loss; None where the correction has none.

    Args:
        log_w: (B, T), log pi_old - log mu; anything off the mask.
        mask: (B, T) bool, True on action tokens.
        correction: how.
    """
    log_w = torch.where(mask, log_w.detach().clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO), 0.0)
    w = log_w.exp()
    if isinstance(correction, TokenTIS):
        return EngineWeights(w.clamp(max=correction.cap), w > correction.cap)
    if isinstance(correction, TokenMask):
        is_cut = (w < correction.low) | (w > correction.high)
        return EngineWeights(torch.where(is_cut, 0.0, w), is_cut)
    if isinstance(correction, SequenceMask):
        mean = (log_w.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).exp()
        is_cut = mask & ((mean - 1).abs() > correction.tolerance).unsqueeze(1)
        return EngineWeights((~is_cut).to(w.dtype), is_cut)
    return None
