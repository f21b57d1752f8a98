"""Our side of the speed benchmarks of PPO and GRPO: the trainer's own rollout and update, timed.

One iteration is: generation for all prompts (KV cache), the completions as text through the
text-mode vector environment and a reward in plain Python, one forward pass each of the policy (old
log-probabilities and values) and of the frozen reference, advantages, then epochs x minibatches of
forward and backward through policy and value head with AdamW. The early stop by KL is off, so that
every optimiser step is taken. GRPO has 16 prompts with 4 samples each, no value and no reference.

Prints one line of JSON, a `Measurement`; see `benchmarks.ppo_speed`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
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
from textgym_agents.core.estimators import GroupEstimator
from textgym_agents.lm import cpu_matmul
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.collection import Collector
from textgym_agents.lm.config import EnvConfig, PolicyConfig, RolloutConfig, TrainConfig
from textgym_agents.lm.envs import make_envs
from textgym_agents.lm.network import PolicyValueNetwork


class Brevity(textgym.Reward):
    """1.0 for an empty completion, falling linearly to 0.0: any cheap function of the text."""

    name: ClassVar[str] = "bench_brevity"
    isolation: ClassVar[Isolation] = "inline"

    def score(self, sample: textgym.Sample) -> textgym.Score:
        """Return the score of one sample."""
        return textgym.Score(max(0.0, 1.0 - len(sample.completion) / 1000))


STEPS: Mapping[str, Any] = {
    "batch_size": work.NUM_PROMPTS // work.NUM_MINIBATCHES,
    "update_epochs": work.NUM_EPOCHS,
    "entropy_coef": 0.0,
    "kl_stop": KLStopConfig(target=None),
    "optimizer": OptimizerConfig(learning_rate=work.LEARNING_RATE, max_grad_norm=1.0),
}
PPO = PPOConfig(
    gamma=1.0,
    value=ValueConfig(coef=0.1, half=True, clip=0.2),
    kl_penalty=KLPenaltyConfig(beta=work.KL_COEF),
    **STEPS,
)
GRPO = PPOConfig(estimator=GroupEstimator(kind="grpo"), **STEPS)


def build_config(
    model: Path, prompts: Path, lengths: work.Work, algorithm: str, micro_batch_tokens: int
) -> TrainConfig:
    """Return the configuration of the shared work."""
    ppo = GRPO if algorithm == "grpo" else PPO
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
            samples_per_prompt=work.NUM_SAMPLES if algorithm == "grpo" else 1,
            max_new_tokens=lengths.response_length,
            temperature=work.TEMPERATURE,
        ),
        ppo=ppo.model_copy(update={"micro_batch_tokens": micro_batch_tokens}),
    )


def write_prompts(path: Path, lengths: work.Work) -> None:
    """Write the shared prompts as JSONL."""
    lines = [
        json.dumps({"id": str(index), "messages": text, "target": ""})
        for index, text in enumerate(work.make_prompts(lengths))
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


class Bench:
    """The agent, its environments, and what one iteration of them did."""

    def __init__(
        self, folder: Path, lengths: work.Work, algorithm: str, micro_batch_tokens: int
    ) -> None:
        work.save_model(folder / "model", lengths)
        write_prompts(folder / "prompts.jsonl", lengths)
        plugin = Plugin("bench", "benchmarks", "0")
        textgym.plugin_manager().rewards[Brevity.name] = Contribution(Brevity, plugin)
        config = build_config(
            folder / "model", folder / "prompts.jsonl", lengths, algorithm, micro_batch_tokens
        )
        network = PolicyValueNetwork.from_config(config.policy, seed=0)
        self.agent = PPOAgent(network, config)
        self.agent.start_reference()
        self.envs: VectorEnv[Any, Any, Any] = make_envs(config.env, work.NUM_PROMPTS)
        self.collector = Collector(
            [self.envs], self.agent.engine, network, config.rollout, seed=config.seed
        )
        self.num_response_tokens: list[int] = []
        self.num_optimizer_steps = 0
        self.agent.optimizer.register_step_post_hook(self._count_step)

    def _count_step(self, *_: Any) -> None:
        self.num_optimizer_steps += 1

    def iterate(self, index: int) -> None:
        """Do one rollout and one update."""
        rollout = self.collector.collect(index)
        self.agent.update(rollout, iteration=index, progress=0.0)
        self.num_response_tokens.append(sum(sum(t.is_action) for t in rollout.scored()))


def measure(
    lengths: work.Work,
    algorithm: str,
    micro_batch_tokens: int,
    num_threads: int,
    num_iterations: int,
) -> work.Measurement:
    """Return our speed and memory over `num_iterations`, after one for warming up."""
    import_rss_mib = work.read_peak_rss_mib()
    torch.set_num_threads(num_threads)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), lengths, algorithm, micro_batch_tokens)
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
        tokens_per_second=work.tokens_per_second(bench.num_response_tokens[1:], seconds),
        num_response_tokens=round(statistics.mean(bench.num_response_tokens)),
        num_optimizer_steps=bench.num_optimizer_steps // (num_iterations + 1),
        peak_rss_mib=work.read_peak_rss_mib(),
        import_rss_mib=import_rss_mib,
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
    parser = argparse.ArgumentParser(description="Measure one process of our PPO or GRPO.")
    parser.add_argument("--algorithm", choices=("ppo", "grpo"), default="ppo")
    parser.add_argument(
        "--torch-products", action="store_true", help="take torch's own matrix products everywhere"
    )
    parser.add_argument(
        "--micro-batch-tokens", type=int, default=1024, help="tokens of one forward and backward"
    )
    arguments = work.parse_arguments(parser)
    if arguments.torch_products:
        cpu_matmul.prefers_onednn = lambda: False
    lengths = work.WORKS[arguments.work]
    measured = measure(
        lengths,
        arguments.algorithm,
        arguments.micro_batch_tokens,
        arguments.threads,
        arguments.iterations,
    )
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
