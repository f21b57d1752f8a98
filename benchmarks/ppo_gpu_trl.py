"""The peer of the GPU benchmark of PPO: TRL's PPOTrainer, in its own virtual environment.

What `benchmarks.ppo_speed_trl` says of an iteration and of what is switched off holds here too.
For the sake of the GPU, and in TRL's favour:

- policy and value model keep float32 weights and compute under bfloat16 autocast in the update, as
  ours do. TRL samples and scores outside of it, in float32; here generation and the value model's
  scoring are put under autocast too, and reference and reward model are cast to bfloat16 outright,
  which also halves their memory;
- the rollout is generated in one batch. Smaller ones would save no memory: TRL keeps the scores of
  every response position over the whole vocabulary until the last one is generated.

The last phase ends with TRL's own metrics, a few scalars. Prints one line of JSON, a `Measurement`;
see `benchmarks.ppo_gpu`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from importlib.metadata import version
from typing import Any

import torch
from datasets import Dataset  # type: ignore[import-not-found,unused-ignore]  # TRL's environment
from transformers import PrinterCallback, Qwen2ForSequenceClassification, TrainerCallback
from trl.experimental.ppo import (  # type: ignore[import-not-found,unused-ignore]  # as above
    PPOConfig,
    PPOTrainer,
)

from benchmarks import ppo_gpu_work as work
from benchmarks.ppo_speed_model import build_tokenizer, make_prompts


class PhaseWatch(TrainerCallback):
    """Notes where phases end: at `generate`, the first training pass, the end of an iteration."""

    def __init__(self, trainer: PPOTrainer, options: work.Options) -> None:
        self.watch = work.Stopwatch(options.device)
        self.num_response_tokens = self.num_optimizer_steps = 0
        self._options = options
        self._is_updating = False
        policy = trainer.policy_model
        self._generate, policy.generate = policy.generate, self._watch_generation
        trainer.model.register_forward_pre_hook(self._start_update)
        trainer.optimizer.optimizer.register_step_post_hook(self._count_step)

    def _watch_generation(self, **inputs: Any) -> Any:  # stands in for `generate`
        self.watch.lap("scoring")
        with work.autocast(self._options):
            output = self._generate(**inputs)
        self.watch.lap("generation")
        prompt_length = inputs["input_ids"].shape[1]
        self.num_response_tokens = output.sequences[:, prompt_length:].numel()
        return output

    def _start_update(self, *_: Any) -> None:
        if not self._is_updating:
            self.watch.lap("scoring")
        self._is_updating = True

    def _count_step(self, *_: Any) -> None:
        self.num_optimizer_steps += 1

    def on_train_begin(self, *_: Any, **__: Any) -> None:  # called with the Trainer's whole state
        """Start the watch."""
        self.watch.lap()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """End an iteration."""
        self.watch.lap("update")
        self.watch.end_iteration()
        self._is_updating = False


def build_arguments(output_dir: str, options: work.Options) -> PPOConfig:
    """Return TRL's configuration of the shared work."""
    return PPOConfig(
        output_dir=output_dir,
        per_device_train_batch_size=options.prompts,
        gradient_accumulation_steps=1,
        local_rollout_forward_batch_size=options.prompts,
        num_mini_batches=options.minibatches,
        num_ppo_epochs=options.epochs,
        total_episodes=options.prompts * (work.WARMUPS + options.iterations),
        response_length=options.new_tokens,
        stop_token=None,
        temperature=1.0,
        learning_rate=work.LEARNING_RATE,
        kl_coef=work.KL_COEF,
        num_sample_generations=0,
        bf16=options.precision == "bf16",
        gradient_checkpointing=False,
        use_cpu=options.device == "cpu",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )


def build_trainer(output_dir: str, options: work.Options) -> PPOTrainer:
    """Return TRL's trainer with the four models it demands."""
    shape, tokenizer = options.shape, build_tokenizer(num_ids=options.shape.vocabulary)
    frozen = torch.bfloat16 if options.precision == "bf16" else torch.float32
    value_model = Qwen2ForSequenceClassification(work.build_config(shape))
    compute_under_autocast(value_model.model, options)
    texts = make_prompts(options.lengths, count=options.prompts)
    trainer = PPOTrainer(
        args=build_arguments(output_dir, options),
        processing_class=tokenizer,
        model=work.build_model(shape),
        ref_model=work.build_model(shape).to(frozen),
        reward_model=Qwen2ForSequenceClassification(
            work.build_config(work.Shape(shape.vocabulary, hidden=64, layers=1))
        ).to(frozen),
        value_model=value_model,
        train_dataset=Dataset.from_list([{"input_ids": tokenizer(t)["input_ids"]} for t in texts]),
    )
    trainer.remove_callback(PrinterCallback)  # it prints metrics where the result belongs
    return trainer


def compute_under_autocast(module: torch.nn.Module, options: work.Options) -> None:
    """Let every pass of a module be under autocast, also where TRL has none."""
    forward = module.forward

    def under_autocast(*args: Any, **kwargs: Any) -> Any:  # forwards the call
        with work.autocast(options):
            return forward(*args, **kwargs)

    module.forward = under_autocast


def measure(options: work.Options) -> work.Measurement:
    """Return seconds and memory of TRL's iterations, the first of which warms up."""
    work.prepare(options)
    with tempfile.TemporaryDirectory() as output_dir:
        trainer = build_trainer(output_dir, options)
        phases = PhaseWatch(trainer, options)
        trainer.add_callback(phases)
        with contextlib.redirect_stdout(sys.stderr):  # stdout carries the result alone
            trainer.train()
    return work.Measurement(
        side="trl",
        device=work.device_name(options.device),
        seconds=phases.watch.measured(),
        num_response_tokens=phases.num_response_tokens,
        num_optimizer_steps=phases.num_optimizer_steps // (work.WARMUPS + options.iterations),
        peak_bytes=work.peak_bytes(options.device),
        versions={name: version(name) for name in ("trl", "torch", "transformers")},
    )


def main() -> None:
    """Measure as the command line asks and print the result as JSON."""
    parser = argparse.ArgumentParser(description="Measure TRL's PPOTrainer on a GPU.")
    work.add_options(parser)
    print(json.dumps(measure(work.Options.of(parser.parse_args()))))


if __name__ == "__main__":
    main()
