"""The peer of the benchmark of time to 95 %: TRL's GRPOTrainer, in the environment of this library.

What is chosen for it, and why that is fair:

- as much work a rollout as ours: 512 completions, here of 64 prompts with 8 samples each, and two
  passes over two minibatches of 256;
- the same prompts in the same text, the same reward (0 for a completion that was cut off), the
  same limit of 6 tokens, temperature 1, and the whole distribution (`top_k` 0);
- TRL's defaults for GRPO otherwise: no reference (`beta` 0), advantages by the group's standard
  deviation, the loss `dapo`; the learning rate is given and constant, so that a run that takes long
  is not slowed down by a schedule;
- nothing but training: no evaluation of its own, log, report, checkpoint or progress bar, no
  gradient checkpointing; one micro-batch a step; float32.

The held-out prompts are answered by our engine, with TRL's weights; that is not timed. Prints one
line of JSON, a `Measurement`; see `benchmarks.time_to_95`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from typing import Any, cast

import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
)
from trl import GRPOConfig, GRPOTrainer

import textgym
from benchmarks import time_to_95_work as work
from textgym_agents.lm.build import build_agent
from textgym_agents.lm.config import TrainConfig
from textgym_agents.lm.envs import make_envs

NUM_SAMPLES = 8
NUM_MINIBATCHES = 2
NUM_PASSES = 2


class Prompts:
    """The training prompts, and the reward of a completion of each."""

    def __init__(self, config: TrainConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        envs = make_envs(config.env, 1)
        pool = cast(Any, envs.unwrapped).pool
        self.prompts = [pool.prompt(index) for index in range(len(pool))]
        texts = [pool.render(index, 0, 0) for index in range(len(pool))]
        envs.close()
        self.rows = [{"prompt": text, "index": index} for index, text in enumerate(texts)]
        self._end = tokenizer.eos_token_id
        self._reward = textgym.make_reward(str(config.env.reward))

    def score(
        self, completions: list[str], completion_ids: list[list[int]], index: list[int], **_: Any
    ) -> list[float]:  # TRL hands over every column
        """Return the rewards of completions; 0 for those that have no end."""
        return [
            self._score(text, number) if self._end in ids else 0.0
            for text, ids, number in zip(completions, completion_ids, index, strict=True)
        ]

    def _score(self, text: str, index: int) -> float:
        sample = textgym.Sample(prompt=self.prompts[index], completion=text)
        return self._reward.score(sample).value


class RaceCallback(TrainerCallback):
    """Starts the race with training, and ends training with the race."""

    def __init__(self, race: work.Race) -> None:
        self.race = race
        self.num_steps = 0

    def on_train_begin(self, *_: Any, **__: Any) -> None:  # called with the Trainer's whole state
        """Start the clock."""
        self.race.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Evaluate if it is time to."""
        self.num_steps += 1
        control.should_training_stop = self.race.is_over()


def build_arguments(output_dir: str, config: TrainConfig, learning_rate: float) -> GRPOConfig:
    """Return TRL's configuration."""
    return GRPOConfig(
        output_dir=output_dir,
        per_device_train_batch_size=config.rollout.num_episodes // NUM_MINIBATCHES,
        gradient_accumulation_steps=1,
        steps_per_generation=NUM_MINIBATCHES,
        num_iterations=NUM_PASSES,
        num_generations=NUM_SAMPLES,
        max_steps=1_000_000,
        max_completion_length=config.rollout.max_new_tokens,
        temperature=config.rollout.temperature,
        top_k=0,
        learning_rate=learning_rate,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=config.seed,
    )


def measure(arguments: argparse.Namespace) -> work.Measurement:
    """Train until the race is over."""
    config = work.train_config(arguments.seed, arguments.model)
    agent = build_agent(config)  # it answers the held-out prompts
    torch.set_num_threads(arguments.threads)
    tokenizer = agent.network.tokenizer
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    prompts = Prompts(config, tokenizer)
    with tempfile.TemporaryDirectory() as output_dir:
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=prompts.score,
            args=build_arguments(output_dir, config, arguments.learning_rate),
            train_dataset=Dataset.from_list(prompts.rows),
            processing_class=tokenizer,
        )
        race = work.Race(agent, every=arguments.every, budget=arguments.budget, trained=model)
        callback = RaceCallback(race)
        trainer.add_callback(callback)
        trainer.remove_callback(PrinterCallback)  # it prints metrics where the result belongs
        with contextlib.redirect_stdout(sys.stderr):  # stdout carries the result alone
            trainer.train()
    num_rollouts = -(-callback.num_steps // (NUM_MINIBATCHES * NUM_PASSES))
    return race.measured("trl", "trl", num_iterations=num_rollouts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--learning-rate", type=float, required=True)
    print(json.dumps(measure(work.parse(parser))))
