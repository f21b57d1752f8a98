"""Statistics over masked tensors. A mask is boolean; True marks a token that counts.

Masked entries are selected away, never multiplied by zero: garbage, inf or nan at a masked
position cannot reach a result or a gradient (nan * 0 is nan).
"""

from __future__ import annotations

import torch
from torch import Tensor

MIN_STD = 1e-6


def masked_sum(x: Tensor, mask: Tensor) -> Tensor:
    """Return the sum of `x` where `mask` is True; a scalar."""
    return torch.where(mask, x, torch.zeros((), dtype=x.dtype, device=x.device)).sum()


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of `x` where `mask` is True; 0 for an empty mask."""
    return masked_sum(x, mask) / mask.sum().clamp(min=1)


def masked_std(x: Tensor, mask: Tensor) -> Tensor:
    """Return the population standard deviation of `x` where `mask` is True."""
    mean = masked_mean(x, mask)
    return masked_mean((x - mean) ** 2, mask).sqrt()


def masked_whiten(x: Tensor, mask: Tensor) -> Tensor:
    """Return (x - mean) / (std + 1e-8) on the mask and 0 elsewhere (spec 4.4).

    With fewer than two entries, or a standard deviation below 1e-6, there is no scale to divide by
    and only the mean is taken off.
    """
    mean, std = masked_mean(x, mask), masked_std(x, mask)
    scale = 1.0 if int(mask.sum()) < 2 or float(std) < MIN_STD else 1.0 / (std + 1e-8)
    return torch.where(mask, (x - mean) * scale, torch.zeros_like(x))
