"""Alarms: what in the metrics of an iteration means that a run is going wrong (spec section 8)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from textgym_agents.lm.engines.canary import WARN_ERROR

RATIO_ERROR: Mapping[str, float] = {"float32": 1e-3, "bf16": 5e-2}
"""How far rounding takes a ratio from 1 where a batch is put together in another way (T6)."""


class Alarms:
    """Watches the metrics and says each alarm once.

    Args:
        ratio_error: how far the first ratios of an update may be from 1; None where pi_old is not
            the trainer's own, and they may be anything.
    """

    def __init__(self, *, ratio_error: float | None = RATIO_ERROR["float32"]) -> None:
        self._ratio_error = math.inf if ratio_error is None else ratio_error
        self._first_entropy: float | None = None
        self._said: set[str] = set()

    def check(self, metrics: Mapping[str, float]) -> list[str]:
        """Return the alarms that this iteration raises for the first time."""
        entropy = metrics.get("ppo/entropy")
        if self._first_entropy is None:
            self._first_entropy = entropy
        floor = 0.1 * (self._first_entropy or 0.0)
        num_scored = metrics.get("rollout/num_scored", 0.0)
        num_failed = metrics.get("rollout/num_failed", 0.0)
        raised = {
            "ratio": (
                metrics.get("ppo/first_ratio_error", 0.0) > self._ratio_error,
                "the probability ratio is not 1 at the first minibatch of an update: the old and "
                "the new log-probabilities are computed differently",
            ),
            "entropy": (
                entropy is not None and entropy < floor,
                "the policy's entropy fell below a tenth of its start; fine while the reward "
                "rises, else raise ppo.entropy_coef or lower ppo.optimizer.learning_rate",
            ),
            "cut": (
                metrics.get("rollout/cut_share", 0.0) > 0.3,
                "more than 30 % of the completions are cut off by the length limit; raise "
                "rollout.max_new_tokens or look at the completions",
            ),
            "engine": (
                metrics.get("engine/effective_share", 1.0) < 0.5,
                "the engine samples from another distribution than the trainer evaluates "
                "(effective sample share below 0.5)",
            ),
            "canary": (
                metrics.get("engine/canary_error", 0.0) > WARN_ERROR,
                "the engine's log-probabilities of fixed text differ by "
                f"{metrics.get('engine/canary_error', 0.0):.3g} nats per token from the trainer's; "
                "rounding costs less: look at engine.dtype and policy.precision",
            ),
            "server": (
                metrics.get("engine/num_servers_lost", 0.0) > 0,
                f"{metrics.get('engine/num_servers_lost', 0.0):.0f} of the vLLM servers "
                "(engine.urls) do not answer; the others do their work",
            ),
            "kl": (
                metrics.get("kl/reference_nats_per_token", 0.0) > 0.5,
                "the policy is more than 0.5 nats per token away from the reference",
            ),
            "failed": (
                num_failed > 0.02 * (num_scored + num_failed),
                f"{num_failed:.0f} of {num_scored + num_failed:.0f} samples could not be scored; "
                "they are left out of the loss (rollouts/*.jsonl says why)",
            ),
        }
        new = [name for name, (is_on, _) in raised.items() if is_on and name not in self._said]
        self._said.update(new)
        return [raised[name][1] for name in new]
