"""The peer of the PPO speed benchmark: TRL's PPOTrainer, in its own virtual environment.

One iteration of TRL is: generation for all prompts (KV cache, the sampler's scores kept as the old
log-probabilities), one forward pass of the reference model, the value model and the reward model
each, advantages, then epochs x minibatches of forward and backward through policy and value model
with AdamW on both. As TRL demands, the value model is a second model of the policy's size. What
could slow TRL down without being part of the comparison is taken away:

- the reward model is the smallest legal one (one layer of width 32);
- saving, evaluation, sample generations, progress bars, reports and gradient checkpointing are off;
- one micro-batch a minibatch: the device batch holds the whole rollout, which TRL cuts into
  minibatches. (With a device batch of one minibatch and accumulation steps instead, Accelerate
  holds back the optimiser until the last of them.)

Float32 on the CPU. Without an end token every response has all its tokens; with one TRL generates
until the last response has ended, and computes what is after the end of the others like all else.

Prints one line of JSON, a `Measurement`; see `benchmarks.ppo_speed`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from typing import Any

import torch
from datasets import Dataset  # type: ignore[import-not-found]  # in TRL's environment alone
from transformers import (
    PrinterCallback,
    Qwen2ForSequenceClassification,
    TrainerCallback,
)
from trl.experimental.ppo import (  # type: ignore[import-not-found]  # as above
    PPOConfig,
    PPOTrainer,
)

from benchmarks import ppo_speed_model as work


class IterationClock(TrainerCallback):
    """Notes when each iteration ends."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.cpu_times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:  # called with the Trainer's whole state
        """Note the time."""
        self.times.append(time.perf_counter())
        self.cpu_times.append(time.process_time())


class Counts:
    """What TRL really did, to prove that both sides do the same: tokens and optimiser steps."""

    def __init__(self, policy: Any, optimizer: torch.optim.Optimizer, lengths: work.Work) -> None:
        self._lengths = lengths
        self.num_response_tokens: list[int] = []
        self.num_optimizer_steps = 0
        self._generate = policy.generate
        policy.generate = self._count_generated
        optimizer.register_step_post_hook(self._count_step)

    def _count_generated(
        self, **inputs: Any
    ) -> Any:  # stands in for `generate`, whose call it forwards
        output = self._generate(**inputs)
        prompt_length = inputs["input_ids"].shape[1]
        responses = output.sequences[:, prompt_length:]
        self.num_response_tokens.append(work.count_response_tokens(responses, self._lengths))
        return output

    def _count_step(self, *_: Any) -> None:
        self.num_optimizer_steps += 1


def build_arguments(output_dir: str, num_iterations: int, lengths: work.Work) -> PPOConfig:
    """Return TRL's configuration of the shared work."""
    return PPOConfig(
        output_dir=output_dir,
        per_device_train_batch_size=work.NUM_PROMPTS,
        gradient_accumulation_steps=1,
        local_rollout_forward_batch_size=work.NUM_PROMPTS,
        num_mini_batches=work.NUM_MINIBATCHES,
        num_ppo_epochs=work.NUM_EPOCHS,
        total_episodes=work.NUM_PROMPTS * num_iterations,
        response_length=lengths.response_length,
        stop_token=None if lengths.end_probability is None else "eos",
        temperature=work.TEMPERATURE,
        learning_rate=work.LEARNING_RATE,
        kl_coef=work.KL_COEF,
        num_sample_generations=0,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )


def build_trainer(output_dir: str, num_iterations: int, lengths: work.Work) -> PPOTrainer:
    """Return TRL's trainer with the four models it demands."""
    policy, reference = work.build_model(lengths), work.build_model(lengths)
    tokenizer = work.build_tokenizer()
    texts = work.make_prompts(lengths)
    prompts = [{"input_ids": tokenizer(text)["input_ids"]} for text in texts]
    trainer = PPOTrainer(
        args=build_arguments(output_dir, num_iterations, lengths),
        processing_class=tokenizer,
        model=policy,
        ref_model=reference,
        reward_model=Qwen2ForSequenceClassification(
            work.build_config(hidden_size=32, num_layers=1)
        ),
        value_model=Qwen2ForSequenceClassification(work.build_config()),
        train_dataset=Dataset.from_list(prompts),
    )
    trainer.remove_callback(PrinterCallback)  # it prints metrics where the result belongs
    return trainer


def measure(lengths: work.Work, num_threads: int, num_iterations: int) -> work.Measurement:
    """Return the speed and memory of TRL over `num_iterations`, after one for warming up."""
    import_rss_mib = work.read_peak_rss_mib()
    torch.set_num_threads(num_threads)
    with tempfile.TemporaryDirectory() as output_dir:
        trainer = build_trainer(output_dir, num_iterations + 1, lengths)
        clock = IterationClock()
        trainer.add_callback(clock)
        counts = Counts(trainer.policy_model, trainer.optimizer.optimizer, lengths)
        start_rss_mib = work.read_peak_rss_mib()
        with contextlib.redirect_stdout(sys.stderr):  # stdout carries the result alone
            trainer.train()
    seconds = differences(clock.times)
    return work.Measurement(
        side="trl",
        num_threads=num_threads,
        seconds=seconds,
        cpu_seconds=statistics.median(differences(clock.cpu_times)),
        tokens_per_second=work.tokens_per_second(counts.num_response_tokens[1:], seconds),
        num_response_tokens=round(statistics.mean(counts.num_response_tokens)),
        num_optimizer_steps=counts.num_optimizer_steps // len(clock.times),
        peak_rss_mib=work.read_peak_rss_mib(),
        import_rss_mib=import_rss_mib,
        start_rss_mib=start_rss_mib,
        versions={name: version(name) for name in ("trl", "torch", "transformers")},
    )


def differences(times: list[float]) -> list[float]:
    """Return the seconds between one iteration's end and the next."""
    return [end - start for start, end in itertools.pairwise(times)]


def main() -> None:
    """Measure as the command line asks and print the result as JSON."""
    parser = argparse.ArgumentParser(description="Measure one process of TRL's PPOTrainer.")
    arguments = work.parse_arguments(parser)
    lengths = work.WORKS[arguments.work]
    print(json.dumps(measure(lengths, arguments.threads, arguments.iterations)))


if __name__ == "__main__":
    main()
