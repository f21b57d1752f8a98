"""TRL's own GRPO trainer with a rubric of ours as its reward."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from textgym.interop import TRLReward
from textgym_agents.lm.tiny import BUILT_IN, tiny_model, tiny_tokenizer

PARITY = """
from textgym import Score

calls = 0

def parity(sample):
    global calls
    calls += 1
    if calls % 4 == 0:
        return Score.unscored("every fourth one cannot be judged")
    return float(len(sample.completion) % 2)
"""


def test_grpo_trains_on_a_rubric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "parity_reward.py").write_text(PARITY)
    seen: list[list[float | None]] = []

    class Watched(TRLReward):
        def __call__(self, *args: object, **columns: object) -> list[float | None]:
            values = super().__call__(*args, **columns)  # type: ignore[arg-type]
            seen.append(values)
            return values

    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer, seed=0, shape=BUILT_IN["tiny"])
    before = [p.detach().clone() for p in model.parameters()]
    reward = Watched([f"{tmp_path}/parity_reward.py:parity", {"reward": "math", "weight": 0.5}])
    rows = [{"prompt": f"{a}+1=", "target": str(a + 1)} for a in range(4)]
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=8,
            num_generations=4, max_completion_length=5, report_to="none", use_cpu=True,
            learning_rate=1e-2, logging_steps=1, save_strategy="no", disable_tqdm=True, bf16=False,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    reward.close()
    assert trainer.state.global_step == 2
    values = [value for batch in seen for value in batch]
    assert len(values) == 16
    assert values.count(None) == 4  # what the reward abstained from is no 0.0
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    logged = [row for row in trainer.state.log_history if "reward" in row]
    scored = [value for value in seen[0] if value is not None]
    assert logged[0]["reward"] == pytest.approx(sum(scored) / len(scored), abs=1e-4)
