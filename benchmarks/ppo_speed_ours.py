"""Our side of the PPO speed benchmark: the trainer's own rollout and update, timed.

One iteration is: generation for all prompts (KV cache), the completions as text through the
text-mode vector environment and a reward in plain Python, one forward pass each of the policy (old
log-probabilities and values) and of the frozen reference, advantages, then epochs x minibatches of
forward and backward through policy and value head with AdamW. The early stop by KL is off, so that
every optimiser step is taken, and the sampling goes on for all tokens, as no end token is defined.

Prints one line of JSON, a `Measurement`; see `benchmarks.ppo_speed`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import torch
from gymnasium.vector import VectorEnv

import textgym
from benchmarks import ppo_speed_model as work
from textgym.plugins import Contribution, Plugin
from textgym.reward import Isolation
from textgym_agents.core.config import (
    KLPenaltyConfig,
    KLStopConfig,
    OptimizerConfig,
    PPOConfig,
    ValueConfig,
)
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.config import EnvConfig, PolicyConfig, RolloutConfig, TrainConfig
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.rollout import collect, make_envs


class Brevity(textgym.Reward):
    """1.0 for an empty completion, falling linearly to 0.0: any cheap function of the text."""

    name: ClassVar[str] = "bench_brevity"
    isolation: ClassVar[Isolation] = "inline"

    def score(self, sample: textgym.Sample) -> textgym.Score:
        """Return the score of one sample."""
        return textgym.Score(max(0.0, 1.0 - len(sample.completion) / 1000))


def build_config(model: Path, prompts: Path) -> TrainConfig:
    """Return the configuration of the shared work."""
    return TrainConfig(
        policy=PolicyConfig(model=str(model)),
        env=EnvConfig(
            prompts=str(prompts),
            reward=Brevity.name,
            kwargs={"score_length_cut": True, "evaluation_share": 0.0},
        ),
        rollout=RolloutConfig(
            num_episodes=work.NUM_PROMPTS,
            num_envs=work.NUM_PROMPTS,
            max_new_tokens=work.RESPONSE_LENGTH,
            temperature=work.TEMPERATURE,
        ),
        ppo=PPOConfig(
            batch_size=work.NUM_PROMPTS // work.NUM_MINIBATCHES,
            update_epochs=work.NUM_EPOCHS,
            gamma=1.0,
            entropy_coef=0.0,
            value=ValueConfig(coef=0.1, half=True, clip=0.2),
            kl_stop=KLStopConfig(target=None),
            kl_penalty=KLPenaltyConfig(beta=work.KL_COEF),
            optimizer=OptimizerConfig(learning_rate=work.LEARNING_RATE, max_grad_norm=1.0),
        ),
    )


def write_prompts(path: Path) -> None:
    """Write the shared prompts as JSONL."""
    lines = [
        json.dumps({"id": str(index), "messages": text, "target": ""})
        for index, text in enumerate(work.make_prompts())
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


class Bench:
    """The agent, its environments, and what one iteration of them did."""

    def __init__(self, folder: Path) -> None:
        work.save_model(folder / "model")
        write_prompts(folder / "prompts.jsonl")
        plugin = Plugin("bench", "benchmarks", "0")
        textgym.plugin_manager().rewards[Brevity.name] = Contribution(Brevity, plugin)
        self.config = build_config(folder / "model", folder / "prompts.jsonl")
        network = PolicyValueNetwork.from_config(self.config.policy, seed=0)
        self.agent = PPOAgent(network, self.config)
        self.agent.start_reference()
        self.envs: VectorEnv[Any, Any, Any] = make_envs(self.config.env, work.NUM_PROMPTS)
        self.num_response_tokens = 0
        self.num_optimizer_steps = 0
        self.agent.optimizer.register_step_post_hook(self._count_step)

    def _count_step(self, *_: Any) -> None:
        self.num_optimizer_steps += 1

    def iterate(self, index: int) -> None:
        """Do one rollout and one update."""
        rollout = collect(
            self.envs,
            self.agent.engine,
            self.agent.network,
            self.config.rollout,
            seed=index,
            generator=torch.Generator().manual_seed(index),
        )
        self.agent.update(rollout, iteration=index, progress=0.0)
        for transcript in rollout.scored():
            self.num_response_tokens += sum(transcript.is_action)


def measure(num_threads: int, num_iterations: int) -> work.Measurement:
    """Return our speed and memory over `num_iterations`, after one for warming up."""
    torch.set_num_threads(num_threads)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        start_rss_mib = work.read_peak_rss_mib()
        bench.iterate(0)  # warms up
        timings = [time_iteration(bench, index + 1) for index in range(num_iterations)]
        bench.envs.close()
    seconds = [wall for wall, _ in timings]
    return work.Measurement(
        side="textgym",
        num_threads=num_threads,
        seconds=seconds,
        cpu_seconds=statistics.median(cpu for _, cpu in timings),
        tokens_per_second=work.NUM_PROMPTS * work.RESPONSE_LENGTH / statistics.median(seconds),
        num_response_tokens=bench.num_response_tokens // (num_iterations + 1),
        num_optimizer_steps=bench.num_optimizer_steps // (num_iterations + 1),
        peak_rss_mib=work.read_peak_rss_mib(),
        start_rss_mib=start_rss_mib,
        versions={name: version(name) for name in ("textgym", "torch", "transformers")},
    )


def time_iteration(bench: Bench, index: int) -> tuple[float, float]:
    """Return wall-clock and processor seconds of one iteration."""
    start, cpu_start = time.perf_counter(), time.process_time()
    bench.iterate(index)
    return time.perf_counter() - start, time.process_time() - cpu_start


def main() -> None:
    """Measure as the command line asks and print the result as JSON."""
    parser = argparse.ArgumentParser(description="Measure one process of our PPO.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=5)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.threads, arguments.iterations)))


if __name__ == "__main__":
    main()
