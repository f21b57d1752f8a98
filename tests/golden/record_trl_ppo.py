"""Record what TRL's PPOTrainer makes of a rollout, with TRL 1.10.0, the last that has one.

`python -m benchmarks ppo_speed` makes an environment with that version; run this file with its
Python and the repository in PYTHONPATH. The trainer's loss is a part of one long function, so it
is read where it is: when the trainer calls `backward`, the frame that does so holds the numbers.
A reward that differs between samples, a random value model and a policy that has drifted from its
reference make all of them differ from 0; the second epoch has ratios that differ from 1.
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2ForSequenceClassification
from trl.experimental.ppo import PPOConfig, PPOTrainer

from benchmarks import ppo_speed_model as work

FILE = Path(__file__).with_name("trl_ppo.json")
NUM_PROMPTS, LENGTH, NUM_EPOCHS = 6, 5, 2
CONFIG = {
    "gamma": 0.9, "lam": 0.8, "kl_coef": 0.3, "cliprange": 0.02, "cliprange_value": 0.01,
    "vf_coef": 0.7,
}  # fmt: skip


def model_config(**values: Any) -> Qwen2Config:
    """Return a model of two small layers."""
    return work.build_config(hidden_size=32, num_layers=2, **values)


def spread(model: Any, scale: float, seed: int) -> Any:
    """Return the model with random weights that are large enough to matter."""
    torch.manual_seed(seed)
    for p in model.parameters():
        p.data = scale * torch.randn_like(p)
    return model


def build_trainer(folder: str) -> PPOTrainer:
    """Return TRL's trainer of one rollout; the responses have no end, so no position is padding."""
    tokenizer = work.build_tokenizer()
    texts = work.make_prompts()[:NUM_PROMPTS]
    return PPOTrainer(
        args=PPOConfig(
            output_dir=folder,
            per_device_train_batch_size=NUM_PROMPTS,
            local_rollout_forward_batch_size=NUM_PROMPTS,
            num_mini_batches=1,
            num_ppo_epochs=NUM_EPOCHS,
            total_episodes=NUM_PROMPTS,
            response_length=LENGTH,
            stop_token=None,
            learning_rate=3e-3,
            num_sample_generations=0,
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            seed=0,
            **CONFIG,
        ),
        processing_class=tokenizer,
        model=spread(Qwen2ForCausalLM(model_config()), 0.3, 1),
        ref_model=spread(Qwen2ForCausalLM(model_config()), 0.3, 2),
        reward_model=spread(Qwen2ForSequenceClassification(model_config()), 0.2, 3),
        value_model=spread(Qwen2ForSequenceClassification(model_config()), 0.2, 4),
        train_dataset=Dataset.from_list([{"input_ids": tokenizer(t)["input_ids"]} for t in texts]),
    )


def read_rollout(frame: dict[str, Any]) -> dict[str, Tensor]:
    """Return the numbers of the rollout, in the order of its samples."""
    names = {
        "logprobs": "logprobs", "ref_logprobs": "reference", "values": "values",
        "scores": "scores", "returns": "returns", "advantages": "advantages",
    }  # fmt: skip
    assert not bool(frame["padding_mask_p1"].any())
    return {name: frame[key] for key, name in names.items()}


def read_step(frame: dict[str, Any]) -> dict[str, Tensor]:
    """Return the numbers of a step; `rows` are the samples of its minibatch."""
    names = {
        "micro_batch_inds": "rows", "new_logprobs": "new_logprobs", "vpred": "new_values",
        "pg_loss": "policy_loss", "vf_loss": "value_loss", "loss": "loss",
    }  # fmt: skip
    return {name: torch.as_tensor(frame[key]) for key, name in names.items()}


def main() -> None:
    """Write the file."""
    steps: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(folder)
        backward = trainer.accelerator.backward
        found: dict[str, Any] = {}

        def watch(loss: Tensor) -> None:
            frame = sys._getframe(1).f_locals
            found.update({k: x.detach().tolist() for k, x in read_rollout(frame).items()})
            steps.append({k: x.detach().tolist() for k, x in read_step(frame).items()})
            backward(loss)

        trainer.accelerator.backward = watch
        trainer.train()
    result = {"trl": version("trl"), **CONFIG, **found, "steps": steps}
    FILE.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
