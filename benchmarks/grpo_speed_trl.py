"""The peer of the GRPO speed benchmark: TRL's GRPOTrainer, in the environment of this library.

One iteration of TRL is: generation for 16 prompts with 4 samples each (KV cache), rewards in plain
Python on the decoded completions, one forward pass of the policy (the old log-probabilities, which
several optimiser steps on one rollout need), advantages, then 4 passes over 4 minibatches of 16
completions. As on our side there is no reference (`beta` is 0). Progress bars, reports, saving and
gradient checkpointing are off; float32 on the CPU. TRL computes in every minibatch as many columns
as the longest prompt and the longest completion of it have.

Prints one line of JSON, a `Measurement`; see `benchmarks.ppo_speed`.
"""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks import ppo_speed_model as work
from benchmarks.trl_measure import main

STEPS = work.NUM_EPOCHS * work.NUM_MINIBATCHES


def brevity(completions: list[str], **_: Any) -> list[float]:  # TRL hands over every column
    """Return 1.0 for an empty completion, falling linearly to 0.0."""
    return [max(0.0, 1.0 - len(text) / 1000) for text in completions]


def build_arguments(output_dir: str, num_iterations: int, lengths: work.Work) -> GRPOConfig:
    """Return TRL's configuration of the shared work."""
    return GRPOConfig(
        output_dir=output_dir,
        per_device_train_batch_size=work.NUM_PROMPTS // work.NUM_MINIBATCHES,
        gradient_accumulation_steps=1,
        steps_per_generation=work.NUM_MINIBATCHES,
        num_iterations=work.NUM_EPOCHS,
        num_generations=work.NUM_SAMPLES,
        max_steps=STEPS * num_iterations,
        max_completion_length=lengths.response_length,
        temperature=work.TEMPERATURE,
        top_k=0,
        learning_rate=work.LEARNING_RATE,
        max_grad_norm=1.0,
        beta=0.0,
        loss_type="grpo",
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )


def build_trainer(output_dir: str, num_iterations: int, lengths: work.Work) -> GRPOTrainer:
    """Return TRL's trainer."""
    tokenizer = work.build_tokenizer()
    if lengths.end_probability is None:  # TRL demands an end token; this one is never sampled
        tokenizer.add_special_tokens({"eos_token": "<never>"})
    texts = work.make_prompts(lengths, count=work.NUM_PROMPTS // work.NUM_SAMPLES)
    trainer = GRPOTrainer(
        model=work.build_model(lengths),
        reward_funcs=brevity,
        args=build_arguments(output_dir, num_iterations, lengths),
        train_dataset=Dataset.from_list([{"prompt": text} for text in texts]),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)  # it prints metrics where the result belongs
    return trainer


if __name__ == "__main__":
    main("Measure one process of TRL's GRPOTrainer.", build_trainer, calls=STEPS)
