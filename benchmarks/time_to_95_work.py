"""The task of the benchmark of time to 95 %: its policy, prompts, reward, evaluation and clock.

The task is the one of `textgym train`: sums of two numbers below 50, in the preset `arithmetic`,
from the policy that its cold start leaves, which is right in about half of its answers. Both sides
start from that policy's folder, in this environment.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypedDict, cast

import torch

from textgym.config import merge
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.build import build_agent
from textgym_agents.lm.cold_start import ColdStart, make_demonstrator
from textgym_agents.lm.config import TrainConfig
from textgym_agents.lm.envs import make_envs
from textgym_agents.lm.presets import ARITHMETIC
from textgym_agents.lm.rollout import collect

TARGET = 0.95
NUM_SAMPLES = 4
"""Of each held-out prompt: about a thousand answers, so that 95 % is known to 0.7 %."""


class Measurement(TypedDict):
    """What one run of one side prints, as one line of JSON."""

    side: str
    seconds: float | None
    """Of training until the target was reached; None: not within the budget."""
    cpu_seconds: float
    """Processor seconds of training; with one thread far below the clock on a busy machine."""
    curve: list[tuple[float, float]]
    """Seconds of training, and the share of sampled held-out answers that were right then."""
    num_iterations: int
    """Rollouts of 512 completions, of which the last may be cut short by the clock."""
    versions: dict[str, str]


def train_config(seed: int, model: Path | None = None) -> TrainConfig:
    """Return the preset; from a policy's folder, if one is given, and then without cold start."""
    changes: dict[str, Any] = {"seed": seed, "device": "cpu"}
    if model is not None:
        changes |= {"policy": {"model": str(model)}, "cold_start": None}
    return TrainConfig.model_validate(merge(ARITHMETIC, changes))


def save_cold_start(folder: Path) -> None:
    """Write the policy that the preset's cold start leaves."""
    config = train_config(0)
    assert config.cold_start is not None
    agent = build_agent(config)
    envs = make_envs(config.env, 1)
    cold_start = ColdStart(
        agent.network,
        config.cold_start,
        make_demonstrator(config.cold_start, cast(Any, envs.unwrapped).pool),
        seed=config.seed,
        max_length=config.rollout.max_length,
    )
    for step in range(config.cold_start.steps):
        cold_start.step(step)
    envs.close()
    agent.end_cold_start()
    agent.save(folder)


class Race:
    """A clock of training alone, that stops for evaluations at fixed intervals.

    Args:
        agent: the policy; it answers the held-out prompts.
        every: seconds of training between evaluations.
        budget: seconds of training after which a run has lost.
        trained: the model whose weights the policy takes over first; None if it is the policy's.
    """

    def __init__(
        self,
        agent: PPOAgent,
        *,
        every: float,
        budget: float,
        trained: torch.nn.Module | None = None,
    ) -> None:
        self.agent = agent
        self.every = every
        self.budget = budget
        self.trained = trained
        self.curve: list[tuple[float, float]] = []
        probe = make_envs(agent.config.env, 1, split="evaluation")
        prompts = list(range(cast(Any, probe.unwrapped).num_prompts)) * NUM_SAMPLES
        probe.close()
        self._envs = make_envs(agent.config.env, len(prompts), split="evaluation")
        self._options = {"prompt_index": prompts}
        self._seconds = self._cpu_seconds = 0.0
        self._resume()

    def start(self) -> None:
        """Evaluate the policy as it is, and start the clock."""
        self._evaluate()
        self._resume()

    def _resume(self) -> None:
        self._resumed, self._cpu_resumed = time.perf_counter(), time.process_time()

    def is_over(self) -> bool:
        """Evaluate if it is time to; return whether target or budget are reached."""
        now = self._seconds + time.perf_counter() - self._resumed
        if now - self.curve[-1][0] < self.every and now < self.budget:
            return False
        self._seconds = now
        self._cpu_seconds += time.process_time() - self._cpu_resumed
        self._evaluate()
        self._resume()
        return self.curve[-1][1] >= TARGET or now >= self.budget

    def _evaluate(self) -> None:
        """Sample answers to every held-out prompt; the same random numbers every time."""
        network = self.agent.network
        if self.trained is not None:
            network.lm.load_state_dict(self.trained.state_dict())
        answers = collect(
            self._envs,
            self.agent.engine,
            network,
            self.agent.config.rollout,
            seed=0,
            generator=torch.Generator().manual_seed(0),
            temperature=1.0,
            options=self._options,
        )
        right = answers.metrics()["rollout/success"]
        self.curve.append((self._seconds, right))
        print(f"  {self._seconds:.1f} s: {right:.1%}", file=sys.stderr, flush=True)

    def measured(self, side: str, *packages: str, num_iterations: int) -> Measurement:
        """Return what this run comes to."""
        self._envs.close()
        seconds = next((seconds for seconds, right in self.curve if right >= TARGET), None)
        return Measurement(
            side=side,
            seconds=seconds,
            cpu_seconds=self._cpu_seconds,
            curve=self.curve,
            num_iterations=num_iterations,
            versions={name: version(name) for name in (*packages, "torch", "transformers")},
        )


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line of a side, with the options that both have."""
    parser.add_argument("--model", type=Path, required=True, help="folder of the first policy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between evaluations")
    parser.add_argument("--budget", type=float, default=600.0, help="seconds of training at most")
    return parser.parse_args()
