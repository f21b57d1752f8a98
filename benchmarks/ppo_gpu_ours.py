"""Our side of the GPU benchmark of PPO; see `benchmarks.ppo_gpu`.

The trainer's own rollout and update, as in `benchmarks.ppo_speed_ours`: weights in float32, the
trunk under bfloat16 autocast, the early stop by KL off so that every optimiser step is taken.
Prints one line of JSON, a `Measurement`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import textgym
from benchmarks import ppo_gpu_work as work
from benchmarks.ppo_speed_model import make_prompts
from benchmarks.ppo_speed_ours import Brevity
from textgym.plugins import Contribution, Plugin
from textgym_agents.core.config import (
    KLPenaltyConfig,
    KLStopConfig,
    OptimizerConfig,
    PPOConfig,
    ValueConfig,
)
from textgym_agents.lm import agent as agent_module
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.clock import Clock
from textgym_agents.lm.collection import Collector
from textgym_agents.lm.config import EnvConfig, PolicyConfig, RolloutConfig, TrainConfig
from textgym_agents.lm.engines.build import build_engine
from textgym_agents.lm.engines.config import (
    EngineConfig,
    TransformersEngineConfig,
    VllmEngineConfig,
)
from textgym_agents.lm.envs import make_envs
from textgym_agents.lm.network import PolicyValueNetwork


def build_config(folder: Path, options: work.Options) -> TrainConfig:
    """Return the configuration of the shared work; model and prompts are in `folder`."""
    engine: EngineConfig = TransformersEngineConfig()
    if options.engine == "vllm":
        engine = VllmEngineConfig(max_num_seqs=options.prompts)
    return TrainConfig(
        device=options.device,
        engine=engine,
        policy=PolicyConfig(model=str(folder / "model"), precision=options.precision),
        env=EnvConfig(
            prompts=str(folder / "prompts.jsonl"),
            reward=Brevity.name,
            kwargs={"score_length_cut": True, "evaluation_share": 0.0},
        ),
        rollout=RolloutConfig(
            num_episodes=options.prompts,
            num_envs=options.prompts,
            max_new_tokens=options.new_tokens,
            max_length=options.prompt_tokens + options.new_tokens,
        ),
        ppo=PPOConfig(
            batch_size=options.prompts // options.minibatches,
            micro_batch_tokens=options.micro_batch_tokens,
            update_epochs=options.epochs,
            gamma=1.0,
            entropy_coef=0.0,
            value=ValueConfig(coef=0.1, half=True, clip=0.2),
            kl_stop=KLStopConfig(target=None),
            kl_penalty=KLPenaltyConfig(beta=work.KL_COEF),
            optimizer=OptimizerConfig(learning_rate=work.LEARNING_RATE, max_grad_norm=1.0),
        ),
    )


def write_prompts(path: Path, options: work.Options) -> None:
    """Write the shared prompts as JSONL."""
    texts = make_prompts(options.lengths, count=options.prompts)
    rows = [{"id": str(i), "messages": text, "target": ""} for i, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


class Bench:
    """The agent, its environments, and a stopwatch on the phases of an iteration."""

    def __init__(self, folder: Path, options: work.Options) -> None:
        work.save_model(folder / "model", options.shape)
        write_prompts(folder / "prompts.jsonl", options)
        plugin = Plugin("bench", "benchmarks", "0")
        textgym.plugin_manager().rewards[Brevity.name] = Contribution(Brevity, plugin)
        config = build_config(folder, options)
        network = PolicyValueNetwork.from_config(config.policy, seed=0).to(options.device)
        self.watch = work.Stopwatch(options.device)
        self.agent = PPOAgent(network, config, engine=build_engine(network, config))
        self.agent.start_reference()
        self.agent.engine.sync(0)
        self.clock = Clock()
        self.envs = make_envs(config.env, options.prompts)
        self.collector = Collector(
            [self.envs], self.agent.engine, network, config.rollout, seed=0, clock=self.clock
        )
        self.num_response_tokens = self.num_optimizer_steps = 0
        self.agent.optimizer.register_step_post_hook(self._count_step)

    def _count_step(self, *_: Any) -> None:
        self.num_optimizer_steps += 1

    def iterate(self, index: int) -> None:
        """Do one rollout and one update."""
        self.watch.lap()
        rollout = self.collector.collect(index)
        self.watch.lap("generation")
        self.watch.move("generation", "scoring", self.clock.take()["environment"])
        self.agent.update(rollout, iteration=index, progress=0.0)
        self.watch.lap("update")  # with what engine and optimiser do after the last step
        self.watch.end_iteration()
        self.num_response_tokens = sum(sum(t.is_action) for t in rollout.scored())

    def close(self) -> None:
        """Release engine and environments."""
        self.agent.engine.close()
        self.envs.close()


def watch_update(watch: work.Stopwatch) -> None:
    """Let the watch note where the trainer's scoring ends and its epochs begin."""
    ppo_update = agent_module.ppo_update

    def watched(*args: Any, **kwargs: Any) -> dict[str, float]:  # forwards the trainer's call
        watch.lap("scoring")
        return ppo_update(*args, **kwargs)

    agent_module.ppo_update = watched


def measure(options: work.Options) -> work.Measurement:
    """Return seconds and memory of our iterations, the first of which warms up."""
    work.prepare(options)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options)
        watch_update(bench.watch)
        for index in range(work.WARMUPS + options.iterations):
            bench.iterate(index)
        bench.close()
    return work.Measurement(
        side="textgym",
        device=work.device_name(options.device),
        seconds=bench.watch.measured(),
        num_response_tokens=bench.num_response_tokens,
        num_optimizer_steps=bench.num_optimizer_steps // (work.WARMUPS + options.iterations),
        peak_bytes=work.peak_bytes(options.device),
        versions={name: version(name) for name in ("textgym", "torch", "transformers")},
    )


def main() -> None:
    """Measure as the command line asks and print the result as JSON."""
    parser = argparse.ArgumentParser(description="Measure our PPO on a GPU.")
    work.add_options(parser)
    print(json.dumps(measure(work.Options.of(parser.parse_args()))))


if __name__ == "__main__":
    main()
