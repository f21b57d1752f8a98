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
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks import ppo_speed_model as work

STEPS = work.NUM_EPOCHS * work.NUM_MINIBATCHES


class IterationClock(TrainerCallback):
    """Notes when each iteration, which is several steps, ends."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.cpu_times: list[float] = []
        self.num_steps = 0

    def on_step_end(self, *_: Any, **__: Any) -> None:  # called with the Trainer's whole state
        """Note the time of every last step of an iteration."""
        self.num_steps += 1
        if self.num_steps % STEPS == 0:
            self.times.append(time.perf_counter())
            self.cpu_times.append(time.process_time())


class Counts:
    """How many tokens TRL really generated."""

    def __init__(self, policy: Any, lengths: work.Work) -> None:
        self._lengths = lengths
        self.num_response_tokens: list[int] = []
        self._generate = policy.generate
        policy.generate = self._count_generated

    def _count_generated(
        self, **inputs: Any
    ) -> Any:  # stands in for `generate`, whose call it forwards
        output = self._generate(**inputs)
        responses = output[:, inputs["input_ids"].shape[1] :]
        self.num_response_tokens.append(work.count_response_tokens(responses, self._lengths))
        return output


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


def measure(lengths: work.Work, num_threads: int, num_iterations: int) -> work.Measurement:
    """Return the speed and memory of TRL over `num_iterations`, after one for warming up."""
    import_rss_mib = work.read_peak_rss_mib()
    torch.set_num_threads(num_threads)
    with tempfile.TemporaryDirectory() as output_dir:
        trainer = build_trainer(output_dir, num_iterations + 1, lengths)
        clock = IterationClock()
        trainer.add_callback(clock)
        counts = Counts(trainer.model, lengths)
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
        num_optimizer_steps=clock.num_steps // len(clock.times),
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
    parser = argparse.ArgumentParser(description="Measure one process of TRL's GRPOTrainer.")
    arguments = work.parse_arguments(parser)
    lengths = work.WORKS[arguments.work]
    print(json.dumps(measure(lengths, arguments.threads, arguments.iterations)))


if __name__ == "__main__":
    main()
