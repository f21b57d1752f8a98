"""Which metrics of a run belong into one picture: what curves.png and the report draw."""

from __future__ import annotations

from collections.abc import Container

Series = tuple[tuple[str, str], ...]
"""Metric and label of each line of a panel."""
PANELS: tuple[tuple[str, Series], ...] = (
    ("reward", (("rollout/reward", "rollout"),)),
    ("entropy (nats per token)", (("ppo/entropy", "policy"),)),
    ("KL(old || new) (k3, nats per token)", (("ppo/kl_k3", "one update"),)),
    ("explained variance", (("ppo/explained_variance", "value head"),)),
    ("completion length (tokens)", (("rollout/length", "rollout"),)),
)
SUCCESS: Series = (("evaluation/greedy", "greedy"), ("evaluation/sampled", "sampled"))
REWARD: Series = (("evaluation/greedy_reward", "greedy"), ("evaluation/sampled_reward", "sampled"))
EXACT: Series = (
    ("evaluation/exact_greedy", "greedy"),
    ("evaluation/exact_sampled", "sampled"),
    ("evaluation/optimum", "optimum"),
)


AGENT_PANELS: tuple[tuple[str, Series], ...] = (
    ("episode length", (("rollout/length", "training"), ("evaluation/length", "evaluation"))),
    ("entropy (nats)", (("ppo/entropy", "policy"),)),
    ("KL(old || new) (k3, nats)", (("ppo/kl_k3", "one update"),)),
    ("explained variance", (("ppo/explained_variance", "value function"),)),
    ("steps per second", (("time/steps_per_second", "training"),)),
)
TUNING_PANELS: dict[str, Series] = {
    "sft": (
        ("loss", "loss (nats per token)"),
        ("mean_token_accuracy", "token accuracy"),
        ("entropy", "entropy (nats per token)"),
        ("grad_norm", "gradient norm"),
        ("learning_rate", "learning rate"),
        ("skipped_steps", "skipped steps"),
    ),
    "dpo": (
        ("loss", "loss"),
        ("rewards/margins", "margin of the implicit reward"),
        ("rewards/accuracies", "pairs the right way round"),
        ("rewards/chosen", "implicit reward of the chosen"),
        ("rewards/rejected", "implicit reward of the rejected"),
        ("grad_norm", "gradient norm"),
    ),
}
RETURN: Series = (("rollout/reward", "training"), ("evaluation/reward", "evaluation"))

HELD_OUT: tuple[tuple[str, Series], ...] = (
    ("exact return", EXACT),
    ("held-out success", SUCCESS),
    ("held-out reward", REWARD),
)
"""What says best how good a language model is, best first."""


def held_out_panel(known: Container[str]) -> tuple[str, Series]:
    """Return title and series of the first of `HELD_OUT` that has a metric that is known."""
    return next(
        (panel for panel in HELD_OUT if any(key in known for key, _ in panel[1])), HELD_OUT[-1]
    )
