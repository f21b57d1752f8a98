"""Float32 matrix products on processors that MKL, torch's default on x86, does not serve well.

On AMD processors MKL leaves the AVX-512 units unused, oneDNN, which torch ships as well, does not:
its products are about twice as fast there. They differ from MKL's in the last bits, as products of
another order of summation do. Everywhere else, and for everything that is not plain float32 on the
CPU, torch's own product is taken.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CPU_INFO = Path("/proc/cpuinfo")
CACHE_LIMITS = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
NUM_CACHED = "64"
"""oneDNN compiles a program for each shape, about a megabyte, and keeps 1024 unless it is told."""
FEWEST_ROWS = 32
"""Fewer are torch's business: what is compiled for them is not worth its memory."""
ROWS_STEP = 64


@functools.cache
def prefers_onednn() -> bool:
    """Return whether oneDNN is the faster library here."""
    is_preferred = (
        torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and CPU_INFO.exists()
        and "AuthenticAMD" in CPU_INFO.read_text(errors="replace")
    )
    if is_preferred:
        for name in CACHE_LIMITS:  # they are read when the first product is computed
            os.environ.setdefault(name, NUM_CACHED)
    return is_preferred


def even_rows(count: int) -> int:
    """Return how many rows a product of `count` rows should have: the fewer numbers, the better.

    The next of 64, 128, 192, ..., with longer steps from 2048 on, so that up to a sixteenth is
    added; the number itself where nothing is compiled for it.
    """
    if not prefers_onednn():
        return count
    if count < FEWEST_ROWS:
        return count
    step = max(ROWS_STEP, 1 << (count.bit_length() - 5))
    return -(-count // step) * step


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x (..., K) times the transpose of weight (N, K), plus bias (N,); not differentiable.

    Any strides will do: a transposed view costs no copy.
    """
    if _is_served(x, weight):
        # what torch.compile takes for a linear layer; there is no other public door to it
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return out
    return nn.functional.linear(x, weight, bias)


def _is_served(x: Tensor, weight: Tensor) -> bool:
    return (
        prefers_onednn()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.dim() > 1
        and x.numel() >= FEWEST_ROWS * x.shape[-1]
        and not torch.is_autocast_enabled("cpu")
    )


class _Product(torch.autograd.Function):
    """`product` with its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x if weight.requires_grad else None, weight)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])
        return (
            product(grad, weight.T) if needs_x else None,
            product(rows.T, x.reshape(-1, x.shape[-1]).T) if needs_weight else None,
            rows.sum(0) if needs_bias else None,
        )


class CpuLinear(nn.Linear):
    """A linear layer that takes the faster product."""

    def forward(self, input: Tensor) -> Tensor:
        """Return what `nn.Linear` returns, but for the last bits."""
        if not _is_served(input, self.weight):
            return super().forward(input)
        if torch.is_grad_enabled():
            out: Tensor = _Product.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
            return out
        return product(input, self.weight, self.bias)


def speed_up(model: nn.Module) -> None:
    """Let the plain linear layers of a model take the faster product, where there is one."""
    if prefers_onednn():
        for module in model.modules():
            if type(module) is nn.Linear:
                module.__class__ = CpuLinear
