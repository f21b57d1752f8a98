"""Record what the GRPO, RLOO and DPO trainers of TRL make of one batch.

Run `python tests/golden/record_trl.py`. The numbers in `trl.json` are TRL 1.16.0's own. The
trainers are real; what they are fed is not: in place of a model and of generation stand
log-probabilities, rewards and lengths that are written into the file with the results, so that the
test needs neither TRL nor a model. Each case holds the advantages, the loss, and the gradient of
the loss with respect to the log-probabilities.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    RLOOConfig,
    RLOOTrainer,
    __version__,
)

from textgym_agents.lm.tiny import tiny_model, tiny_tokenizer

FILE = Path(__file__).with_name("trl.json")
GROUP, NUM_PROMPTS, LENGTH = 4, 3, 7
LENGTHS = (7, 2, 5, 1, 4, 7, 3, 6, 2, 2, 7, 5)
REWARDS = (1.0, 0.0, 0.25, 1.0, 0.5, 0.5, -1.0, 2.0, 0.0, 1.0, 0.0, 0.0)
MAX_NEW = 16


def recorded_logprobs() -> dict[str, Tensor]:
    """Return log-probabilities under four policies (B, T), ratios far enough from 1 to be cut."""
    generator = torch.Generator().manual_seed(7)

    def noise(scale: float) -> Tensor:
        return scale * torch.randn(len(LENGTHS), LENGTH, generator=generator)

    old = -noise(1.5).abs() - 0.05
    new, reference = (old + noise(scale) for scale in (0.5, 0.5))
    mask = torch.arange(LENGTH) < torch.tensor(LENGTHS).unsqueeze(1)
    found = {"old": old, "new": new, "reference": reference, "engine": old + noise(0.6)}
    return {name: torch.where(mask, x, 0.0) for name, x in found.items()}


def settings(folder: str, **values: Any) -> dict[str, Any]:
    """Return what the configurations have in common."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": len(LENGTHS),
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        **values,
    }


def online_case(trainer_class: type[Any], config_class: type[Any], **values: Any) -> dict[str, Any]:
    """Return the advantages, the loss and its gradient of a trainer that samples."""
    ell = recorded_logprobs()
    tokenizer = tiny_tokenizer()
    with tempfile.TemporaryDirectory() as folder:
        tiny_model(tokenizer, seed=0).save_pretrained(folder)
        trainer = trainer_class(
            model=folder,  # the reference is loaded from here as well
            reward_funcs=lambda completions, **_: list(REWARDS),
            args=config_class(
                **settings(
                    folder, num_generations=GROUP, max_completion_length=MAX_NEW,
                    num_iterations=2, **values,
                )
            ),
            train_dataset=Dataset.from_list([{"prompt": "1+1="}] * NUM_PROMPTS),
            processing_class=tokenizer,
        )  # fmt: skip
    ids = [[5] * length for length in LENGTHS]
    generated = {
        GRPOTrainer: ([[5]] * len(ids), ids, None, ids, None, {}, None, None),
        RLOOTrainer: ([[5]] * len(ids), ids, ids),
    }
    trainer._generate = lambda prompts: generated[trainer_class]

    def score(model: Any, *_: Any, **__: Any) -> tuple[Tensor, Tensor, None]:
        is_reference = trainer.ref_model is not None and model is trainer.ref_model
        return ell["reference" if is_reference else "old"], torch.zeros_like(ell["old"]), None

    trainer._get_per_token_logps_and_entropies = score
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    batch = trainer._generate_and_score_completions([{"prompt": "1+1="}] * len(LENGTHS))
    leaf = ell["new"].clone().requires_grad_()
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (
        leaf,
        torch.zeros_like(leaf),
        None,
    )
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    return {
        "advantages": batch["advantages"].tolist(),
        "loss": float(loss.detach()),
        "gradient": leaf.grad.tolist(),
    }


def dpo_case(loss_type: str, beta: float) -> dict[str, Any]:
    """Return loss, rewards and gradient of DPO; the first half of the batch was preferred."""
    ell, tokenizer = recorded_logprobs(), tiny_tokenizer()
    pair = {"prompt": "1+1=", "chosen": "2", "rejected": "3"}
    with tempfile.TemporaryDirectory() as folder:
        trainer = DPOTrainer(
            model=tiny_model(tokenizer, seed=0),
            ref_model=tiny_model(tokenizer, seed=0),
            args=DPOConfig(**settings(folder, loss_type=[loss_type], beta=beta)),
            train_dataset=Dataset.from_list([pair] * 2),
            processing_class=tokenizer,
        )
    mask = torch.arange(LENGTH) < torch.tensor(LENGTHS).unsqueeze(1)
    leaf = ell["new"].clone().requires_grad_()
    zeros = torch.zeros_like(leaf)

    def says(logprobs: Tensor) -> Any:
        return lambda **_: SimpleNamespace(
            log_probs=logprobs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool()
        )

    trainer.ref_model = says(ell["reference"])
    completion_mask = torch.cat([torch.zeros(len(LENGTHS), 1), mask.float()], dim=1)
    inputs = {
        "input_ids": torch.full(completion_mask.shape, 5),
        "attention_mask": torch.ones_like(completion_mask),
        "completion_mask": completion_mask,
    }
    loss = trainer._compute_loss(says(leaf), inputs, False)
    loss.backward()
    metrics = trainer._metrics["train" if trainer.model.training else "eval"]
    return {
        "beta": beta,
        "loss": float(loss.detach()),
        "gradient": leaf.grad.tolist(),
        "reward_chosen": metrics["rewards/chosen"][-1],
        "reward_rejected": metrics["rewards/rejected"][-1],
    }


def main() -> None:
    """Write the file."""
    grpo = (GRPOTrainer, GRPOConfig)
    cases = {
        "grpo": online_case(*grpo, loss_type="grpo", beta=0.0),
        "grpo_without_std": online_case(*grpo, loss_type="grpo", beta=0.0, scale_rewards="none"),
        "dr_grpo": online_case(*grpo, loss_type="dr_grpo", beta=0.0, scale_rewards="none"),
        "dapo": online_case(*grpo, loss_type="dapo", beta=0.0, epsilon_high=0.28),
        "dapo_with_kl": online_case(
            *grpo, loss_type="dapo", beta=0.04, use_bias_correction_kl=False
        ),
        "dual_clip": online_case(*grpo, loss_type="dapo", beta=0.0, delta=1.5),
        "gspo": online_case(
            *grpo, loss_type="grpo", beta=0.0, importance_sampling_level="sequence", epsilon=0.1
        ),
        "rloo": online_case(RLOOTrainer, RLOOConfig, beta=0.0),
        "rloo_with_kl": online_case(RLOOTrainer, RLOOConfig, beta=0.1),
    }
    found = {
        "trl": __version__,
        "group_size": GROUP,
        "max_new_tokens": MAX_NEW,
        "lengths": LENGTHS,
        "rewards": REWARDS,
        "logprobs": {name: x.tolist() for name, x in recorded_logprobs().items()},
        "online": cases,
        "dpo": {"sigmoid": dpo_case("sigmoid", 0.1), "ipo": dpo_case("ipo", 0.3)},
    }
    FILE.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
