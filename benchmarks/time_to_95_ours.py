"""Our side of the benchmark of time to 95 %: PPO as `textgym train` does it.

Rollouts and updates of the preset `arithmetic`, without its log and checkpoints. Prints one line of
JSON, a `Measurement`; see `benchmarks.time_to_95`.
"""

from __future__ import annotations

import argparse
import json

import torch

from benchmarks import time_to_95_work as work
from textgym_agents.lm.build import build_agent
from textgym_agents.lm.collection import Collector
from textgym_agents.lm.envs import make_envs


def measure(arguments: argparse.Namespace) -> work.Measurement:
    """Train until the race is over."""
    config = work.train_config(arguments.seed, arguments.model)
    assert config.iterations is not None
    agent = build_agent(config)
    torch.set_num_threads(arguments.threads)
    agent.start_reference()
    envs = make_envs(config.env, config.rollout.num_rows)
    collector = Collector([envs], agent.engine, agent.network, config.rollout, seed=config.seed)
    race = work.Race(agent, every=arguments.every, budget=arguments.budget)
    race.start()
    done = 0
    while done < config.iterations:
        agent.update(collector.collect(done), iteration=done, progress=done / config.iterations)
        done += 1
        if race.is_over():
            break
    envs.close()
    return race.measured("textgym", "textgym", num_iterations=done)


if __name__ == "__main__":
    print(json.dumps(measure(work.parse(argparse.ArgumentParser(description=__doc__)))))
