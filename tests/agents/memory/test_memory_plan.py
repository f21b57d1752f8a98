"""What is predicted is what is measured, for every mode, and without any weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, PreTrainedConfig

from textgym_agents.core.config import KLPenaltyConfig, OptimizerConfig, PPOConfig
from textgym_agents.lm.config import (
    FullMode,
    LastLayersMode,
    LoraMode,
    PolicyConfig,
    QloraMode,
    ReferenceConfig,
    RolloutConfig,
    TrainConfig,
    TrainMode,
)
from textgym_agents.memory.live import LiveBytes
from textgym_agents.memory.plan import MemoryPlan, plan_memory
from textgym_agents.memory.process import peak_bytes, resident_bytes
from textgym_agents.memory.suggest import best, suggest

CLEAR_REFS = Path("/proc/self/clear_refs")
MEASURE = Path(__file__).with_name("measure_peak.py")
DEEP = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8, "vocab_size": 4000}
WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "vocab_size": 40_000}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
TOLERANCE = 0.15


def config_of(
    mode: TrainMode, *, precision: str = "float32", checkpointing: bool = False,
    rows: int = 16, prompt: int = 8, completion: int = 24, batch_size: int = 8,
    micro_batch_tokens: int | None = None, beta: float = 0.1, entropy_coef: float = 0.0,
) -> TrainConfig:  # fmt: skip
    return TrainConfig(
        policy=PolicyConfig(
            mode=mode, precision=precision, gradient_checkpointing=checkpointing
        ),
        rollout=RolloutConfig(
            num_episodes=rows, num_envs=rows, max_length=prompt + completion,
            max_new_tokens=completion,
        ),
        ppo=PPOConfig(
            batch_size=batch_size, micro_batch_tokens=micro_batch_tokens,
            update_epochs=2 if batch_size == rows else 1,  # so that there is a second step
            entropy_coef=entropy_coef, kl_penalty=KLPenaltyConfig(beta=beta),
        ),
    )  # fmt: skip


def model_config(shape: dict[str, int]) -> PreTrainedConfig:
    return AutoConfig.for_model("qwen2", **shape, **HEADS)


CASES: dict[str, tuple[TrainConfig, dict[str, int]]] = {
    "full": (config_of(FullMode()), DEEP),
    "full, large vocabulary": (config_of(FullMode(), entropy_coef=0.01), WIDE),
    "lora": (config_of(LoraMode(), batch_size=16), DEEP),
    "last layers": (config_of(LastLayersMode(share=0.25), rows=32, batch_size=32), DEEP),
}
MORE_CASES = {
    "full, many tokens": (config_of(FullMode(), rows=24, completion=56, batch_size=24), DEEP),
    "micro-batches": (config_of(FullMode(), rows=16, batch_size=16, micro_batch_tokens=128), DEEP),
    "checkpointing": (config_of(LoraMode(), rows=32, batch_size=16, checkpointing=True), DEEP),
    "bf16": (config_of(FullMode(), precision="bf16", rows=8), DEEP),
}


def measure(cases: Mapping[str, tuple[TrainConfig, dict[str, int]]]) -> dict[str, int]:
    """Return the peak of an iteration of each case; freed memory goes back at once."""
    given = [(config.model_dump(mode="json"), shape | HEADS) for config, shape in cases.values()]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(
        [sys.executable, str(MEASURE)], input=json.dumps(given), env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(zip(cases, json.loads(done.stdout.splitlines()[-1]), strict=True))


def predict(cases: Mapping[str, tuple[TrainConfig, dict[str, int]]]) -> dict[str, int]:
    return {
        name: plan_memory(config, model_config(shape), device="cpu").peak.total
        for name, (config, shape) in cases.items()
    }


@pytest.mark.skipif(not CLEAR_REFS.exists(), reason="peaks are read on Linux")
@pytest.mark.parametrize("cases", [CASES, pytest.param(MORE_CASES, marks=pytest.mark.slow)])
def test_the_prediction_is_near_the_measured_peak(
    cases: Mapping[str, tuple[TrainConfig, dict[str, int]]],
) -> None:
    assert predict(cases) == pytest.approx(measure(cases), rel=TOLERANCE)


def parts(plan: MemoryPlan, phase: str) -> dict[str, int]:
    return dict(next(p.parts for p in plan.phases if p.name == phase))


def test_what_each_mode_trains_and_holds() -> None:
    modes: dict[str, TrainMode] = {
        "full": FullMode(), "last": LastLayersMode(k=2), "lora": LoraMode(rank=8),
    }  # fmt: skip
    plans = {name: plan_memory(config_of(m), model_config(DEEP)) for name, m in modes.items()}
    with torch.device("meta"):
        from transformers import AutoModelForCausalLM

        lm: Any = AutoModelForCausalLM.from_config(model_config(DEEP))
    total = sum(p.numel() for p in lm.parameters())
    layer = sum(p.numel() for p in lm.model.layers[0].parameters())
    linear = [m.weight.shape for m in lm.model.layers[0].modules() if hasattr(m, "in_features")]
    adapter = 8 * sum(sum(shape) for shape in linear) * 8
    trained = {"full": total, "last": 2 * layer + 384, "lora": adapter}
    for name, plan in plans.items():
        assert plan.num_trainable == trained[name]
        update = parts(plan, "update")
        assert update["gradients"] == 4 * trained[name]
        assert update["optimizer"] == pytest.approx(8 * trained[name], rel=0.01)
        assert update.get("reference", 0) == (0 if name == "lora" else 4 * trained[name])
        assert update["weights"] == 4 * (total + (adapter if name == "lora" else 0))
        assert plan.num_parameters == total


def test_the_cache_and_the_optimizer_by_hand() -> None:
    config = config_of(FullMode(), rows=16, prompt=200, completion=80)
    eight_bit = config.ppo.model_copy(update={"optimizer": OptimizerConfig(kind="adamw_8bit")})
    plan = plan_memory(config, model_config(DEEP))
    per_position = 8 * 2 * 16 * 2 * (384 // 4) * 4  # layers, k and v, rows, heads, width, float32
    assert parts(plan, "rollout")["KV cache"] == per_position * 300  # 200 and half as much room
    small = plan_memory(config.model_copy(update={"ppo": eight_bit}), model_config(DEEP))
    ratio = parts(plan, "update")["optimizer"] / parts(small, "update")["optimizer"]
    assert ratio == pytest.approx(8 / 2.06, rel=1e-3)


def test_a_reference_elsewhere_takes_nothing_here() -> None:
    config = config_of(FullMode())
    away = config.model_copy(update={"reference": ReferenceConfig(url="http://127.0.0.1:1")})
    assert "reference" in parts(plan_memory(config, model_config(DEEP)), "update")
    assert "reference" not in parts(plan_memory(away, model_config(DEEP)), "update")


def test_more_tokens_and_more_vocabulary_need_more() -> None:
    def peak(shape: dict[str, int], **changes: Any) -> int:
        return plan_memory(config_of(FullMode(), **changes), model_config(shape)).peak.total

    assert peak(DEEP, batch_size=16) > peak(DEEP, batch_size=8)
    assert peak(DEEP | {"vocab_size": 8000}) > peak(DEEP)
    assert peak(DEEP, batch_size=16, micro_batch_tokens=64) < peak(DEEP, batch_size=16)
    assert peak(DEEP, batch_size=16, checkpointing=True) < peak(DEEP, batch_size=16)


def test_checkpointing_leaves_the_cache_of_the_rollout() -> None:
    def cache(**changes: Any) -> int:
        planned = plan_memory(config_of(FullMode(), **changes), model_config(DEEP))
        return parts(planned, "rollout")["KV cache"]

    assert cache(checkpointing=True) == cache() > 0


QWEN_7B = {
    "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
    "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152_064,
    "tie_word_embeddings": False,
}  # fmt: skip


def test_seven_billion_parameters_without_their_memory() -> None:
    before = resident_bytes()
    shape = AutoConfig.for_model("qwen2", **QWEN_7B)
    plan = plan_memory(config_of(QloraMode(), precision="bf16", rows=1, batch_size=1), shape)
    assert plan.num_parameters == pytest.approx(7.6e9, rel=0.01)
    # 6.5e9 weights of linear layers at 4.127 bits, 1.09e9 of embedding and head in bfloat16
    expected = 6.525e9 * 4.127 / 8 + 1.09e9 * 2
    assert parts(plan, "update")["weights"] == pytest.approx(expected, rel=0.05)
    assert peak_bytes() - before < 2**30


def test_a_small_memory_gets_a_leaner_mode() -> None:
    config, shape = config_of(FullMode(), rows=8), model_config(DEEP | {"num_hidden_layers": 2})
    whole = plan_memory(config, shape).peak.total
    chosen = {gib: best(suggest(config, shape, gib)) for gib in (10 * whole, whole // 2, 2**20)}
    plenty, half, nothing = chosen.values()
    assert plenty is not None
    assert (plenty.mode, plenty.has_checkpointing) == ("full", False)
    assert (plenty.micro_batch_sequences, plenty.num_envs) == (8, 8)
    assert half is not None
    assert half.mode == "lora"
    assert half.least <= 0.9 * whole / 2
    assert nothing is None


def test_live_bytes_count_what_is_there_and_forget_what_is_gone() -> None:
    known = torch.zeros(100)
    with LiveBytes([known]) as live:
        view = known.view(10, 10)
        a = view + 1
        assert live.now == 400
        b = a.T.reshape(100)  # a copy
        assert live.now == 800
        a.mul_(2)
        assert live.now == 800
        del a, view
        assert live.now == 400
        del b
    assert (live.now, live.peak) == (0, 800)
