"""Chunked log-probabilities and entropies against the plain formulas over all logits at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from textgym_agents.lm.head import CHUNK_TOKENS, chunked_scores, scaled_logits

Watch = Callable[[], Any]
N, D, V = 600, 4, 400
CHUNKS = [1, 7, 512, N]


class Inputs(NamedTuple):
    hidden: Tensor
    weight: Tensor
    ids: Tensor
    illegal: Tensor

    @classmethod
    def draw(cls, n: int = N, d: int = D, v: int = V, *, seed: int = 0) -> Inputs:
        generator = torch.Generator().manual_seed(seed)
        hidden = torch.randn(n, d, generator=generator).requires_grad_()
        weight = torch.randn(v, d, generator=generator).requires_grad_()
        ids = torch.randint(0, v - 30, (n,), generator=generator)
        return cls(hidden, weight, ids, torch.arange(v) >= v - 30)


def dense(inputs: Inputs, temperature: float) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and entropies as they are written in a textbook, in float64."""
    hidden, weight, ids, illegal = inputs
    u = hidden.double() @ weight.double()[~illegal].T / temperature  # the illegal ids are the last
    log_p = u.log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    return log_p.gather(1, ids.unsqueeze(1)).squeeze(1), entropy


def gradients_of(outputs: tuple[Tensor, ...], inputs: Inputs) -> tuple[Tensor, ...]:
    """Return the gradients of a random combination of both outputs."""
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(len(x), generator=generator) for x in outputs]
    parts = [(w.to(x.dtype) * x).sum() for w, x in zip(weights, outputs, strict=True)]
    return torch.autograd.grad(torch.stack(parts).sum(), (inputs.hidden, inputs.weight))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_chunked_equals_dense(chunk: int, temperature: float) -> None:
    inputs = Inputs.draw()
    ours = chunked_scores(
        inputs.hidden, inputs.weight, inputs.ids, illegal=inputs.illegal, temperature=temperature,
        chunk=chunk,
    )  # fmt: skip
    theirs = dense(inputs, temperature)
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x.double(), y, atol=3e-6, rtol=1e-6)
    for x, y in zip(gradients_of(tuple(ours), inputs), gradients_of(theirs, inputs), strict=True):
        torch.testing.assert_close(x, y.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_the_entropy_of_the_most_probable_ids_equals_the_dense_one(chunk: int) -> None:
    inputs = Inputs.draw()
    legal = inputs.hidden.double() @ inputs.weight.double()[~inputs.illegal].T / 0.7
    log_p = legal.log_softmax(-1)
    top = log_p.topk(math.ceil(0.2 * legal.shape[1])).values.log_softmax(-1)
    theirs = (log_p.gather(1, inputs.ids.unsqueeze(1)).squeeze(1), -(top.exp() * top).sum(-1))
    ours = chunked_scores(
        inputs.hidden, inputs.weight, inputs.ids, illegal=inputs.illegal, temperature=0.7,
        entropy_top=0.2, chunk=chunk,
    )  # fmt: skip
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x.double(), y, atol=3e-6, rtol=1e-6)
    for x, y in zip(gradients_of(tuple(ours), inputs), gradients_of(theirs, inputs), strict=True):
        torch.testing.assert_close(x, y.float(), atol=1e-5, rtol=1e-5)


def test_the_least_share_is_one_id_and_has_no_entropy() -> None:
    inputs = Inputs.draw(10)
    scores = chunked_scores(inputs.hidden, inputs.weight, inputs.ids, entropy_top=1e-9)
    assert scores.entropy.tolist() == [0.0] * 10


@pytest.mark.parametrize("output", [0, 1])
def test_each_output_alone_has_the_dense_gradient(output: int) -> None:
    inputs = Inputs.draw(30)
    ours = chunked_scores(inputs.hidden, inputs.weight, inputs.ids, chunk=7)[output]
    legal = inputs._replace(illegal=torch.zeros(V, dtype=torch.bool))
    theirs = dense(legal, 1.0)[output]
    for wanted in (inputs.hidden, inputs.weight):
        (x,) = torch.autograd.grad(ours.sum(), wanted, retain_graph=True)
        (y,) = torch.autograd.grad(theirs.sum(), wanted, retain_graph=True)
        assert y.abs().max() > 1e-2
        torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_no_tensor_exceeds_a_chunk_of_logits(chunk: int, largest_result: Watch) -> None:
    inputs = Inputs.draw()
    with largest_result() as forward:
        scores = chunked_scores(inputs.hidden, inputs.weight, inputs.ids, chunk=chunk)
    with largest_result() as backward:
        (scores.logprobs.sum() + scores.entropy.sum()).backward()
    unavoidable = max(N * D, V * D)  # the hidden states and the weight, and their gradients
    assert max(forward.numel, backward.numel) == max(chunk * V, unavoidable)


def test_the_watch_sees_dense_logits(largest_result: Watch) -> None:
    inputs = Inputs.draw()
    with largest_result() as seen:
        scaled_logits(inputs.hidden, inputs.weight, None, 1.0)
    assert seen.numel == N * V


def test_a_peaked_distribution_is_finite() -> None:
    hidden = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    weight = torch.tensor([[1.0], [0.5], [-1.0]])
    scores = chunked_scores(hidden, weight, torch.tensor([0, 0]))
    (scores.logprobs.sum() + scores.entropy.sum()).backward()
    assert scores.logprobs.tolist() == [0.0, -2e4]
    assert scores.entropy.tolist() == [0.0, 0.0]
    assert hidden.grad is not None
    assert bool(torch.isfinite(hidden.grad).all())


def test_no_positions_are_no_scores() -> None:
    inputs = Inputs.draw(0)
    scores = chunked_scores(inputs.hidden, inputs.weight, inputs.ids)
    (scores.logprobs.sum() + scores.entropy.sum()).backward()
    assert len(scores.logprobs) == len(scores.entropy) == 0
    assert inputs.weight.grad is not None
    assert float(inputs.weight.grad.abs().sum()) == 0.0


def test_bfloat16_hidden_states_are_multiplied_in_float32() -> None:
    inputs = Inputs.draw(50, 64)
    rounded = inputs._replace(hidden=inputs.hidden.detach().bfloat16())
    ours = chunked_scores(rounded.hidden, rounded.weight, rounded.ids, illegal=rounded.illegal)
    theirs = dense(rounded, 1.0)
    torch.testing.assert_close(ours.logprobs.double(), theirs[0], atol=1e-5, rtol=1e-5)
    assert ours.logprobs.dtype == ours.entropy.dtype == torch.float32


def test_a_frozen_weight_gets_no_gradient() -> None:
    inputs = Inputs.draw(10)
    frozen = inputs.weight.detach()
    scores = chunked_scores(inputs.hidden, frozen, inputs.ids)
    scores.logprobs.sum().backward()
    assert frozen.grad is None
    assert inputs.hidden.grad is not None


def test_the_default_chunk_is_512_positions() -> None:
    assert CHUNK_TOKENS == 512
