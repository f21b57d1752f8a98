"""Log-probabilities and entropies from hidden states without materialising all logits.

Float32 logits of 4 sequences of 512 tokens over Qwen's vocabulary take 1.24 GB, and a softmax with
gradients keeps several copies. Here a chunk of positions is taken at a time, and the backward pass
computes the logits once more, all but the last chunk's: memory is O(chunk * V) instead of
O(B * T * V).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from textgym_agents.lm.cpu_matmul import product

CHUNK_TOKENS = 512
LEAST_LOG_P = -1e4
"""Of an illegal token: its probability is 0 in float32 as well, and no product overflows."""


class TokenScores(NamedTuple):
    """Per token, float32 (N,)."""

    logprobs: Tensor
    """log pi(x) of the given ids; nats."""
    entropy: Tensor
    """Entropy of the distribution each id was drawn from, or of its most probable part; nats."""


def scaled_logits(
    hidden: Tensor, weight: Tensor, illegal: Tensor | None, temperature: float
) -> Tensor:
    """Return float32 logits (N, V) at a temperature; illegal ids get -inf.

    The product is computed in float32 whatever the inputs are: bfloat16 logits are off by up to
    0.05 nats per token.
    """
    logits = product(hidden.float(), weight.float())
    if temperature != 1.0:
        logits = logits / temperature
    return logits if illegal is None else logits.masked_fill_(illegal, -torch.inf)


class _ChunkedScores(torch.autograd.Function):
    """Forward keeps (N,) results and one chunk; backward recomputes the logits of the others.

    With u the scaled logits, p = softmax(u), l = log p(x) and H the entropy:
    dl/du = onehot(x) - p and dH/du = -p * (log p + H). For an entropy over the most probable ids
    alone q, which is p renormalised on them, stands in the place of p in both H and dH/du.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        ids: Tensor,
        illegal: Tensor | None,
        temperature: float,
        top: int | None,
        chunk: int,
    ) -> tuple[Tensor, Tensor]:
        logprobs = torch.empty(len(ids), device=hidden.device)
        entropy = torch.empty(len(ids), device=hidden.device)
        log_p = torch.empty(0, device=hidden.device)
        for start in range(0, len(ids), chunk):
            rows = slice(start, start + chunk)
            log_p = scaled_logits(hidden[rows], weight, illegal, temperature).log_softmax(-1)
            logprobs[rows] = log_p.gather(1, ids[rows].unsqueeze(1)).squeeze(1)
            log_q = _on_top(log_p, top) if top else _made_finite(log_p, illegal)
            entropy[rows] = -torch.linalg.vecdot(log_q.exp(), log_q)
        ctx.save_for_backward(hidden, weight, ids, illegal, entropy, log_p)
        ctx.temperature, ctx.top, ctx.chunk = temperature, top, chunk
        ctx.set_materialize_grads(False)  # an entropy without a bonus has no gradient
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, ids, illegal, entropy, last = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        grad_weight: Tensor | None = None
        if ctx.needs_input_grad[1] and len(ids) == 0:
            grad_weight = torch.zeros_like(weight)
        for start in range(0, len(ids), ctx.chunk):
            rows = slice(start, start + ctx.chunk)
            log_p = last
            if start + ctx.chunk < len(ids):
                log_p = scaled_logits(hidden[rows], weight, illegal, ctx.temperature)
                log_p = _made_finite(log_p.log_softmax(-1), illegal)
            grad_u = _grad_of_logits(
                log_p,
                ids[rows],
                entropy[rows],
                *(g if g is None else g[rows] for g in grads),
                top=ctx.top,
            )
            if ctx.temperature != 1.0:
                grad_u /= ctx.temperature
            grad_hidden[rows] = product(grad_u, weight.float().T).to(hidden.dtype)
            if ctx.needs_input_grad[1]:
                part = product(grad_u.T, hidden[rows].float().T).to(weight.dtype)
                grad_weight = part if grad_weight is None else grad_weight.add_(part)
        return grad_hidden, grad_weight, None, None, None, None, None


def _grad_of_logits(
    log_p: Tensor,
    ids: Tensor,
    entropy: Tensor,
    to_logprob: Tensor | None,
    to_entropy: Tensor | None,
    *,
    top: int | None,
) -> Tensor:
    """Return the gradient of a chunk's scaled logits (N, V), from those of its scores (N,)."""
    p = log_p.exp()
    if to_logprob is None:
        to_logprob = torch.zeros_like(entropy)
    factor = -to_logprob.unsqueeze(1)
    if to_entropy is not None and not top:
        factor = torch.addcmul(
            factor, to_entropy.unsqueeze(1), log_p + entropy.unsqueeze(1), value=-1.0
        )
    grad = p.mul_(factor).scatter_add_(1, ids.unsqueeze(1), to_logprob.unsqueeze(1))
    if to_entropy is not None and top:
        log_q = _on_top(log_p, top)
        inner = log_q.exp().mul_(log_q.add_(entropy.unsqueeze(1)))
        grad.addcmul_(to_entropy.unsqueeze(1), inner, value=-1.0)
    return grad


def _on_top(log_p: Tensor, top: int) -> Tensor:
    """Return log-probabilities (N, V) renormalised on the `top` most probable ids and their ties.

    Those of the other ids are so low that their probability is 0.
    """
    least = log_p.topk(top, dim=-1).values[:, -1:]
    kept = log_p.masked_fill(log_p < least, -torch.inf)
    return kept.sub_(kept.logsumexp(-1, keepdim=True)).clamp_(min=LEAST_LOG_P)


def _made_finite(log_p: Tensor, illegal: Tensor | None) -> Tensor:
    """Change log-probabilities so that their product with p = 0 is 0 and not nan."""
    return log_p if illegal is None else log_p.clamp_(min=LEAST_LOG_P)


def chunked_scores(
    hidden: Tensor,
    weight: Tensor,
    ids: Tensor,
    *,
    illegal: Tensor | None = None,
    temperature: float = 1.0,
    entropy_top: float = 1.0,
    chunk: int = CHUNK_TOKENS,
) -> TokenScores:
    """Return log-probability and entropy of each position's next-token distribution.

    Args:
        hidden: (N, d) hidden states after the final norm, one before each id.
        weight: (V, d) of the language model head.
        ids: (N,) int64, the tokens that followed.
        illegal: (V,) bool, True on ids that may not be sampled; the same for every caller.
        temperature: the temperature that the ids were sampled at.
        entropy_top: the share of the legal ids, the most probable of each position, on which the
            entropy is taken of the distribution renormalised on them; 1 takes all of it.
        chunk: positions per chunk; no tensor has more than chunk * V elements.
    """
    top: int | None = None
    if entropy_top < 1.0:
        num_legal = len(weight) if illegal is None else int((~illegal).sum())
        top = math.ceil(entropy_top * num_legal)
    return TokenScores(
        *_ChunkedScores.apply(hidden, weight, ids, illegal, temperature, top, chunk)  # type: ignore[no-untyped-call]
    )
