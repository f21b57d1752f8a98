"""The canary: what it lets pass, and what it does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from textgym_agents.lm.engines.canary import MAX_ERROR, MIN_MOVE, Canary, trainer_scores
from textgym_agents.lm.engines.errors import EngineError
from textgym_agents.lm.network import PolicyValueNetwork

MakePolicy = Callable[..., PolicyValueNetwork]
Rows = list[list[float]]


def honest(network: PolicyValueNetwork) -> Rows:
    return [trainer_scores(network, ids).tolist() for ids in Canary(network).sequences]


def moved(rows: Rows, by: float) -> Rows:
    return [[x + by for x in row] for row in rows]


def test_scores_are_those_of_the_model(tiny_policy: PolicyValueNetwork) -> None:
    tiny_policy.temperature = 0.5  # which the scores of fixed text do not know
    ids = [9, 3, 7, 6, 1]
    with torch.no_grad():
        logprobs = tiny_policy.lm(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    wanted = [float(logprobs[j, token]) for j, token in enumerate(ids[1:])]
    assert trainer_scores(tiny_policy, ids).tolist() == pytest.approx(wanted, abs=1e-5)


def test_rounding_passes_and_is_reported(tiny_policy: PolicyValueNetwork) -> None:
    rows = honest(tiny_policy)
    assert Canary(tiny_policy).check(lambda _: rows, "it") == 0.0
    error = Canary(tiny_policy).check(lambda _: moved(rows, 0.05), "it")
    assert error == pytest.approx(0.05, abs=1e-5)


@pytest.mark.parametrize("by", [1.1 * MAX_ERROR, -1.1 * MAX_ERROR, float("nan")])
def test_another_policy_does_not_pass(tiny_policy: PolicyValueNetwork, by: float) -> None:
    rows = moved(honest(tiny_policy), by)
    with pytest.raises(EngineError, match="it does not compute the trainer's policy"):
        Canary(tiny_policy).check(lambda _: rows, "it")


def test_an_engine_that_stands_still_does_not_pass(tiny_policy: PolicyValueNetwork) -> None:
    """However small the updates are: what counts is how far the trainer has gone since."""
    canary, rows = Canary(tiny_policy), honest(tiny_policy)
    canary.check(lambda _: rows, "it")
    canary.check(lambda _: rows, "it")  # nothing was learnt, nothing had to arrive
    weight, num_passed = tiny_policy.trainable()[0], 0

    def learn_without_syncing() -> None:
        nonlocal num_passed
        for _ in range(1000):
            weight.data.mul_(1 + 1e-6)
            canary.check(lambda _: rows, "it")
            num_passed += 1

    with pytest.raises(EngineError, match=r"it has not taken the new weights: .* have moved by"):
        learn_without_syncing()
    assert num_passed > 3  # a move too small for the engine's precision is no alarm
    still = torch.tensor([x for row in rows for x in row])
    now = torch.tensor([x for row in honest(tiny_policy) for x in row])
    assert MIN_MOVE < float((now - still).abs().mean()) < 2 * MIN_MOVE
    canary.check(lambda _: rows, "another")  # of which nothing is known


def test_an_engine_that_follows_passes(tiny_policy: PolicyValueNetwork) -> None:
    canary = Canary(tiny_policy)
    for _ in range(3):
        tiny_policy.trainable()[0].data.mul_(1.01)
        assert canary.check(lambda _: honest(tiny_policy), "it") == 0.0
