"""The presets hold the constants they promise (T30)."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from textgym.config import load_config
from textgym_agents.core.config import ClipConfig, PPOConfig
from textgym_agents.lm.config import TrainConfig
from textgym_agents.lm.presets import ALGORITHMS, LLM, SEED, preset

SEED_COLUMN = {
    "rollout.max_length": 512,  # MAX_LENGTH
    "ppo.batch_size": 4,  # BATCH_SIZE
    "rollout.num_episodes": 4,  # sequences per rollout
    "epochs": 3,  # EPOCHS
    "ppo.update_epochs": 4,  # UPDATE_EPOCHS
    "ppo.optimizer.learning_rate": 1e-5,  # LR
    "ppo.optimizer.schedule": "constant",
    "ppo.optimizer.eps": 1e-8,
    "ppo.clip.low": 0.2,  # CLIP
    "ppo.clip.high": 0.2,
    "ppo.clip.dual": None,
    "ppo.gamma": 0.99,  # GAMMA
    "ppo.gae_lambda": 0.95,  # GAE_LAMBDA, policy and value
    "ppo.value_lambda": 0.95,
    "ppo.discount_unit": "token",
    "ppo.value.coef": 0.5,  # VALUE_COEF
    "ppo.value.half": False,  # plain squared error
    "ppo.value.clip": None,
    "ppo.value.grad_to_trunk": 1.0,
    "ppo.value.lr_mult": 1.0,
    "ppo.value.warmup_iterations": 0,
    "ppo.entropy_coef": 0.01,  # ENTROPY_COEF
    "ppo.optimizer.max_grad_norm": 0.5,  # MAX_GRAD_NORM
    "ppo.kl_stop.target": 0.01,  # TARGET_KL
    "ppo.kl_stop.statistic": "seed",
    "ppo.kl_stop.compare": "abs",
    "ppo.kl_penalty.beta": 0.0,  # beta
    "ppo.aggregation": "token_mean",
    "ppo.whiten_advantages": True,
    "rollout.temperature": 1.0,
}

LLM_COLUMN = {
    "rollout.max_length": 1024,
    "ppo.batch_size": 64,
    "rollout.num_episodes": 256,
    "epochs": 1,
    "ppo.update_epochs": 2,
    "ppo.clip.low": 0.2,
    "ppo.clip.high": 0.28,
    "ppo.gamma": 1.0,
    "ppo.gae_lambda": 0.95,
    "ppo.value_lambda": 1.0,
    "ppo.value.coef": 0.5,
    "ppo.value.half": True,
    "ppo.entropy_coef": 0.0,
    "ppo.optimizer.max_grad_norm": 1.0,
    "ppo.kl_stop.target": 0.02,
    "ppo.kl_stop.statistic": "k3",
    "ppo.kl_penalty.beta": 0.02,
    "ppo.aggregation": "token_mean",
    "ppo.whiten_advantages": True,
}

BESTWORST16_COLUMN = {
    "rollout.max_length": 512,
    "ppo.batch_size": 64,
    "rollout.num_episodes": 256,  # 16 prompts x 16 samples
    "rollout.samples_per_prompt": 16,
    "rollout.keep_ends": 2,  # 4 of 16
    "rollout.overlong.penalty": 1.0,
    "epochs": 1,
    "ppo.update_epochs": 2,
    "ppo.estimator.kind": "gae",
    "ppo.estimator.group_reward": True,
    "ppo.optimizer.learning_rate": LLM["ppo"]["optimizer"]["learning_rate"],  # same as llm
    "ppo.clip.low": 0.2,
    "ppo.clip.high": 0.2,
    "ppo.gamma": 1.0,
    "ppo.gae_lambda": 0.95,
    "ppo.value_lambda": 1.0,
    "ppo.value.coef": 0.5,
    "ppo.value.half": True,
    "ppo.entropy_coef": 0.0,
    "ppo.kl_penalty.entropy_floor": True,
    "ppo.kl_penalty.adaptive": True,
    "ppo.kl_penalty.beta": 0.05,
    "ppo.kl_penalty.target_nats_per_sequence": 6.0,
    "ppo.optimizer.max_grad_norm": 0.5,
    "ppo.kl_stop.target": 0.01,
    "ppo.kl_stop.statistic": "k3",
    "ppo.aggregation": "token_mean",
    "ppo.whiten_advantages": True,
}

REINFORCE_QR_COLUMN = {
    "rollout.max_length": 256,
    "rollout.max_new_tokens": 64,
    "ppo.batch_size": 64,
    "rollout.num_episodes": 64,  # 16 prompts x 4 samples, one step
    "rollout.samples_per_prompt": 4,
    "epochs": 3,
    "ppo.update_epochs": 1,
    "ppo.estimator.kind": "rloo",
    "ppo.optimizer.learning_rate": 1e-4,
    "policy.mode.kind": "lora",
    "policy.mode.rank": 16,
    "ppo.ratio": "none",
    "ppo.gamma": 1.0,
    "ppo.entropy_coef": 0.0,
    "ppo.optimizer.max_grad_norm": 1.0,
    "ppo.kl_stop.target": None,
    "ppo.kl_penalty.beta": 0.02,
    "ppo.kl_penalty.form": "k1_in_score",
    "ppo.aggregation": "seq_mean_token_sum",
    "ppo.whiten_advantages": False,
}


def value_of(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = getattr(config, part)
    return config


@pytest.mark.parametrize(("name", "expected"), SEED_COLUMN.items())
def test_seed_preset_holds_the_constants(name: str, expected: object) -> None:
    """T30."""
    assert value_of(load_config(TrainConfig, preset=SEED), name) == expected


def test_seed_preset_is_the_default_of_the_algorithm() -> None:
    assert load_config(TrainConfig, preset=SEED).ppo == PPOConfig()


@pytest.mark.parametrize(("name", "expected"), LLM_COLUMN.items())
def test_llm_preset_holds_its_column(name: str, expected: object) -> None:
    assert value_of(load_config(TrainConfig, preset=LLM), name) == expected


def test_llm_preset_has_the_step_size_of_its_mode() -> None:
    config = load_config(TrainConfig, preset=LLM)
    assert config.policy.mode.kind == "lora"
    assert 1e-5 <= config.ppo.optimizer.learning_rate <= 1e-4


@pytest.mark.parametrize(("name", "expected"), BESTWORST16_COLUMN.items())
def test_bestworst16_preset_holds_its_column(name: str, expected: object) -> None:
    config = load_config(TrainConfig, preset=preset("bestworst16"))
    assert value_of(config, name) == expected


@pytest.mark.parametrize(("name", "expected"), REINFORCE_QR_COLUMN.items())
def test_reinforce_qr_preset_holds_its_column(name: str, expected: object) -> None:
    config = load_config(TrainConfig, preset=preset("reinforce_qr"))
    assert value_of(config, name) == expected


@pytest.mark.parametrize("world", ["arithmetic", "llm", "toy"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_presets_of_algorithms_stand_at_every_scale(name: str, world: str) -> None:
    config = load_config(TrainConfig, preset=preset(name, world))
    assert (config.cold_start is not None) == (world == "arithmetic")
    assert (config.policy.mode.kind == "lora") == (world == "llm")
    kinds = {"bestworst16": "gae", "reinforce_qr": "rloo"}
    assert config.ppo.estimator.kind == kinds.get(name, name)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gae_lambda": 1.5}, "gae_lambda is 1.5; it must be between 0 and 1"),
        ({"gae_lambda": "adaptive"}, "length_adaptive"),
        ({"gamma": 0.0}, "greater than 0"),
        ({"gamma": 1.01}, "less than or equal to 1"),
        ({"entropy_coef": -0.01}, "greater than or equal to 0"),
        ({"clip": {"low": 1.0}}, "less than 1"),
        ({"clip": {"dual": 1.0}}, "greater than 1"),
        ({"kl_stop": {"target": 0.0}}, "greater than 0"),
        ({"kl_penalty": {"target_nats_per_sequence": 0.0}}, "greater than 0"),
        ({"clip_range": 0.2}, "Extra inputs are not permitted"),
    ],
)
def test_config_rejects_values_that_mean_nothing(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PPOConfig(**values)


def test_config_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ClipConfig().low = 0.1  # type: ignore[misc]
