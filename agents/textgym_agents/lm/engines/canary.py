"""The canary: fixed sequences that trainer and engine score after every sync.

Two things go wrong without a sign. An engine computes something else than the trainer (another
temperature, other legal ids, half of the weights), or it goes on with old weights, because an
adapter never arrived. The first shows as a distance between the scores of the two; the second as
engine scores that stand still while the trainer's move.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from textgym_agents.lm.engine import Generation
from textgym_agents.lm.engines.errors import EngineError
from textgym_agents.lm.head import chunked_scores
from textgym_agents.lm.network import PolicyValueNetwork

MAX_ERROR = 0.1
"""Mean |log pi - log mu| in nats per token that is no longer rounding (spec section 4.16)."""
WARN_ERROR = 0.02
"""The same, from which the trainer warns."""
MIN_MOVE = 1e-4
"""Mean move of the trainer's scores in nats per token that must reach the engine."""
TEXTS = (
    "To find the area of a triangle, multiply its base by its height and divide the result by 2.",
    "def total(xs):\n    s = 0\n    for x in xs:\n        s += x\n    return s\n",
    "If x + 3 = 10 then x = 7, so 2x + 1 = 15. A, B and C agree: the answer is 15.",
    "今天天气很好，我们先去公园散步，然后回家吃晚饭。",
)
NUM_TOKENS = 32
NUM_OPENING_TOKENS = 4
"""How much of a text a sample goes on from."""

Score = Callable[[list[list[int]]], list[list[float]]]
"""Scores sequences: log-probability of each token but the first; temperature 1, nothing masked."""
Sample = Callable[[list[list[int]], int, float], list[Generation]]
"""Samples a number of tokens after each prompt at a temperature."""


class _Seen(NamedTuple):
    """The scores when an engine last moved."""

    trainer: Tensor
    engine: Tensor


class Canary:
    """The fixed sequences of a run, and what each engine said of them.

    Args:
        network: the trainer's.
    """

    def __init__(self, network: PolicyValueNetwork) -> None:
        self.network = network
        ids = network.tokenizer(list(TEXTS), add_special_tokens=False)["input_ids"]
        self.sequences: list[list[int]] = [row[:NUM_TOKENS] for row in ids]
        self._seen: dict[str, _Seen] = {}

    def check(self, score: Score, engine: str) -> float:
        """Return the mean distance in nats per token between the trainer and an engine.

        Args:
            score: asks the engine.
            engine: its name, for the message; each is followed by itself.

        Raises:
            EngineError: the engine is too far away, or has stood still.
        """
        theirs = torch.tensor([x for row in score(self.sequences) for x in row])
        ours = torch.cat([trainer_scores(self.network, ids) for ids in self.sequences])
        error = float((ours - theirs).abs().mean())
        if not error <= MAX_ERROR:
            raise EngineError(
                f"{engine} does not compute the trainer's policy: after the sync their "
                f"log-probabilities of fixed text differ by {error:.3g} nats per token "
                f"(at most {MAX_ERROR}); it has other weights, another adapter or another model"
            )
        seen = self._seen.get(engine)
        if seen is None or not torch.equal(seen.engine, theirs):
            self._seen[engine] = _Seen(ours, theirs)
            return error
        move = float((seen.trainer - ours).abs().mean())
        if move > MIN_MOVE:
            raise EngineError(
                f"{engine} has not taken the new weights: the trainer's log-probabilities of fixed "
                f"text have moved by {move:.3g} nats per token, its own not at all; the sync does "
                "not reach it, or rounds the update away (engine.sync, engine.dtype)"
            )
        return error

    @torch.no_grad()
    def check_sampler(self, sample: Sample, engine: str) -> None:
        """Raise unless the engine reports the log-probabilities that the trainer trains with.

        Raises:
            EngineError: it samples at another temperature, among other ids or by more settings.
        """
        openings = [ids[:NUM_OPENING_TOKENS] for ids in self.sequences]
        tau = self.network.temperature
        distances = []
        for opening, generation in zip(openings, sample(openings, NUM_TOKENS, tau), strict=True):
            if generation.failure is not None:
                raise EngineError(f"{engine} cannot sample: {generation.failure}")
            ids = torch.tensor([[*opening, *generation.token_ids]], device=self.network.device)
            hidden = _hidden_before(self.network, ids, start=len(opening))
            scores = self.network.score_tokens(hidden, ids[0, len(opening) :])
            distances.append((scores.logprobs.cpu() - torch.tensor(generation.logprobs)).abs())
        error = float(torch.cat(distances).mean())
        if not error <= MAX_ERROR:
            raise EngineError(
                f"{engine} does not report the distribution that is trained on: its "
                f"log-probabilities of its own samples at temperature {tau:g} differ by "
                f"{error:.3g} nats per token from the trainer's (at most {MAX_ERROR}). A server "
                "must be started by `textgym vllm-server`, or with --logprobs-mode "
                "processed_logprobs, without settings of sampling of its own"
            )


def trainer_scores(network: PolicyValueNetwork, ids: Sequence[int]) -> Tensor:
    """Return log pi of each token but the first, (T - 1,), at temperature 1, nothing masked."""
    rows = torch.tensor([list(ids)], device=network.device)
    hidden = _hidden_before(network, rows, start=1)
    with torch.no_grad():
        scores = chunked_scores(hidden, network.head_weight, rows[0, 1:])
    return scores.logprobs.cpu()


@torch.no_grad()
def _hidden_before(network: PolicyValueNetwork, rows: Tensor, *, start: int) -> Tensor:
    """Return the hidden states (N, d) that predict the tokens from `start` on of one sequence."""
    return network.hidden_states(rows[:, :-1])[0, start - 1 :]
