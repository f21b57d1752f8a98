"""Presets of `textgym train`: where a configuration starts from.

`seed` is the model's defaults, spelled out; `llm` is a starting point for a model of some hundred
million parameters; `arithmetic` is the embedded world, minutes on two cores; `toy` is for
environments with an exact solution, from which the rest of it follows (`exact.limits_for`). The
presets of algorithms are put over one of the last three: the same algorithm at another scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textgym.config import merge

SEED: Mapping[str, Any] = {
    "epochs": 3,
    "rollout": {"num_episodes": 4, "num_envs": 4, "max_length": 512},
    "ppo": {
        "batch_size": 4,
        "update_epochs": 4,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "value_lambda": 0.95,
        "entropy_coef": 0.01,
        "aggregation": "token_mean",
        "whiten_advantages": True,
        "clip": {"low": 0.2, "high": 0.2},
        "value": {"coef": 0.5, "half": False},
        "kl_stop": {"target": 0.01, "statistic": "seed", "compare": "abs"},
        "kl_penalty": {"beta": 0.0},
        "optimizer": {"learning_rate": 1e-5, "schedule": "constant", "max_grad_norm": 0.5},
    },
}

LLM: Mapping[str, Any] = {
    "epochs": 1,
    "rollout": {"num_episodes": 256, "num_envs": 256, "max_length": 1024, "max_new_tokens": 512},
    "policy": {"mode": {"kind": "lora"}, "precision": "bf16"},
    "ppo": {
        "batch_size": 64,
        "micro_batch_tokens": 16_384,
        "update_epochs": 2,
        "gamma": 1.0,
        "gae_lambda": 0.95,
        "value_lambda": 1.0,
        "entropy_coef": 0.0,
        "clip": {"low": 0.2, "high": 0.28},
        "value": {"coef": 0.5, "half": True, "lr_mult": 10.0},
        "kl_stop": {"target": 0.02, "statistic": "k3"},
        "kl_penalty": {"beta": 0.02},
        "optimizer": {"learning_rate": 2e-5, "max_grad_norm": 1.0},
    },
}

ARITHMETIC: Mapping[str, Any] = {
    "iterations": 200,
    "checkpoint_every": 25,
    "env": {
        "prompts": [{"source": "arithmetic", "config": {"below": 50}}],
        "reward": "math",
    },
    "cold_start": {"steps": 1100, "batch_size": 128, "learning_rate": 3e-3, "wrong_share": 0.62},
    "rollout": {"num_episodes": 512, "num_envs": 512, "max_new_tokens": 6, "max_length": 64},
    "ppo": {
        "batch_size": 256,
        "update_epochs": 2,
        "gamma": 1.0,
        "gae_lambda": 0.95,
        "value_lambda": 0.95,
        "entropy_coef": 0.01,
        "value": {"coef": 0.5, "half": True, "lr_mult": 5.0},
        "kl_stop": {"target": 0.02, "statistic": "k3"},
        "optimizer": {"learning_rate": 4e-4, "schedule": "linear"},
    },
    "evaluation": {"every": 25, "num_episodes": 250},
}

TOY: Mapping[str, Any] = {
    "iterations": 600,
    "checkpoint_every": 50,
    "rollout": {"num_episodes": 1024, "num_envs": 1024},
    "ppo": {
        "batch_size": 256,
        "update_epochs": 2,
        "gamma": 1.0,
        "gae_lambda": 0.95,
        "value_lambda": 0.95,
        "entropy_coef": 0.1,  # with half of it some prompts are given up before they are solved
        "value": {"coef": 0.5, "half": True},
        "kl_stop": {"target": 0.02, "statistic": "k3"},
        "optimizer": {"learning_rate": 5e-4, "schedule": "linear", "eps": 1e-5},
    },
    "evaluation": {"every": 50},
}

ONE_STEP: Mapping[str, Any] = {
    "rollout": {"num_episodes": 256, "num_envs": 256},
    "ppo": {
        "batch_size": 256,
        "update_epochs": 1,
        "entropy_coef": 0.0,
        "kl_stop": {"target": None},
        "kl_penalty": {"beta": 0.02},
        "optimizer": {"max_grad_norm": 1.0},
    },
}
"""One optimiser step per rollout, on its own samples."""


def _grouped(kind: str, size: int, **ppo: Any) -> dict[str, Any]:
    """Return a preset of groups of `size` samples."""
    return {
        "rollout": {"samples_per_prompt": size},
        "ppo": {"estimator": {"kind": kind}, "entropy_coef": 0.0, **ppo},
    }


ALGORITHMS: Mapping[str, Mapping[str, Any]] = {
    "grpo": _grouped("grpo", 8, clip={"low": 0.2, "high": 0.2}, kl_penalty={"beta": 0.04}),
    "dr_grpo": _grouped("dr_grpo", 8, clip={"low": 0.2, "high": 0.2}, kl_penalty={"beta": 0.0}),
    "dapo": merge(
        _grouped("dapo", 8, clip={"low": 0.2, "high": 0.28}, kl_penalty={"beta": 0.0}),
        {"rollout": {"drop_equal": True, "overlong": {"penalty": 1.0}}},
    ),
    "rloo": merge(ONE_STEP, _grouped("rloo", 4)),
    "reinforce": merge(ONE_STEP, {"ppo": {"estimator": {"kind": "reinforce"}}}),
    "reinforce_pp": {
        "ppo": {
            "estimator": {"kind": "reinforce_pp"},
            "entropy_coef": 0.0,
            "clip": {"low": 0.2, "high": 0.2},
            "kl_penalty": {"beta": 0.02},
        }
    },
    "bestworst16": {
        "epochs": 1,
        "rollout": {
            "num_episodes": 256,
            "num_envs": 256,
            "samples_per_prompt": 16,
            "keep_ends": 2,
            "max_length": 512,
            "max_new_tokens": 256,
            "overlong": {"penalty": 1.0},
        },
        "ppo": {
            "estimator": {"kind": "gae", "group_reward": True},
            "batch_size": 64,
            "update_epochs": 2,
            "gamma": 1.0,
            "gae_lambda": 0.95,
            "value_lambda": 1.0,
            "entropy_coef": 0.0,
            "clip": {"low": 0.2, "high": 0.2},
            "value": {"coef": 0.5, "half": True},
            "kl_stop": {"target": 0.01, "statistic": "k3"},
            "kl_penalty": {"beta": 0.05, "adaptive": True, "entropy_floor": True},
            "optimizer": {"max_grad_norm": 0.5},
        },
    },
    "reinforce_qr": {
        "epochs": 3,
        "rollout": {
            "num_episodes": 64,
            "num_envs": 64,
            "samples_per_prompt": 4,
            "max_length": 256,
            "max_new_tokens": 64,
        },
        "ppo": {
            "estimator": {"kind": "rloo"},
            "batch_size": 64,
            "update_epochs": 1,
            "entropy_coef": 0.0,
            "kl_stop": {"target": None},
            "kl_penalty": {"beta": 0.02},
            "optimizer": {"learning_rate": 1e-4, "max_grad_norm": 1.0},
        },
    },
}
"""What an algorithm changes in a world."""

EMBEDDED_LENGTHS: Mapping[str, Any] = {"max_length": 64, "max_new_tokens": 6}
IN_ARITHMETIC: Mapping[str, Mapping[str, Any]] = {
    "grpo": {"iterations": 60},
    "dr_grpo": {"iterations": 60},
    "dapo": {"iterations": 60},
    "rloo": {"iterations": 120},
    "reinforce": {"iterations": 120},
    "reinforce_pp": {"iterations": 60},
    "bestworst16": {"iterations": 60, "rollout": EMBEDDED_LENGTHS},
    "reinforce_qr": {
        "iterations": 240,
        "rollout": EMBEDDED_LENGTHS,
        "ppo": {"optimizer": {"learning_rate": 4e-4}},
    },
}
"""What the embedded world needs besides: the length of the run, of its texts, and of a step."""

SOLVED = "toy"
WORLDS: Mapping[str, Mapping[str, Any]] = {
    "seed": SEED, "llm": LLM, "arithmetic": ARITHMETIC, SOLVED: TOY,
}  # fmt: skip
PRESETS = (*WORLDS, *ALGORITHMS)


def preset(name: str, world: str = "llm") -> Mapping[str, Any]:
    """Return the values of a preset.

    Args:
        name: one of `PRESETS`.
        world: one of `WORLDS`, over which an algorithm is put.
    """
    if name in WORLDS:
        return WORLDS[name]
    values = merge(WORLDS[world], ALGORITHMS[name])
    return merge(values, IN_ARITHMETIC[name]) if world == "arithmetic" else values
