"""The life of a run: cold start, evaluation, rollouts and updates, checkpoints, the last table.

The loop is a pure function of the configuration: each part draws from a stream that is derived from
the seed and the iteration, so a run that was killed and resumed writes the same metrics and the
same weights as one that was not (on one machine, with one number of threads).
"""

from __future__ import annotations

import json
import math
import time
from contextlib import ExitStack
from pathlib import Path

import torch

from textgym.config import dump_config
from textgym.errors import ConfigError
from textgym.seeding import Purpose, derive_seed
from textgym_agents.core.correction import Bypass
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.alarms import Alarms
from textgym_agents.lm.checkpoint import POLICY_FOLDER, load_checkpoint, save_checkpoint
from textgym_agents.lm.clock import Clock
from textgym_agents.lm.cold_start import ColdStart, make_demonstrator
from textgym_agents.lm.collection import Collector, group_metrics
from textgym_agents.lm.config import FullMode, TrainConfig
from textgym_agents.lm.engines.build import build_engine
from textgym_agents.lm.evaluation import EvaluationResult, evaluate, make_held_out
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.rollout import Rollout, make_envs
from textgym_agents.run.directory import RunDirectory
from textgym_agents.run.environment import describe_environment
from textgym_agents.run.interrupt import Interrupt
from textgym_agents.run.metrics import MetricsLog
from textgym_agents.run.plots import plot_run
from textgym_agents.run.progress import Progress, SilentProgress

COLD_START_LOG_EVERY = 50
MAX_ONE_THREAD_PARAMETERS = 20_000_000


def build_agent(config: TrainConfig, *, checkpoint: Path | None = None) -> PPOAgent:
    """Build the agent of a configuration, or of a checkpoint of its run.

    With a cold start the whole model learns first, and an adapter is added afterwards.
    """
    policy, device = config.policy, _find_device(config.device)
    if checkpoint is not None:
        network = PolicyValueNetwork.load(checkpoint / POLICY_FOLDER)
    else:
        if config.cold_start is not None:
            policy = policy.model_copy(update={"mode": FullMode()})
        seed = derive_seed(config.seed, Purpose.MODEL)
        network = PolicyValueNetwork.from_config(policy, seed=seed)
    set_threads(config.threads, network)
    network = network.to(device)
    return PPOAgent(network, config, engine=build_engine(network, config))


def _find_device(device: str) -> str:
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise ConfigError(
            "device is 'cuda', but torch finds no GPU that it can use; take 'auto' or 'cpu'. "
            "`textgym doctor` says what this machine has"
        )
    return ("cuda" if has_gpu else "cpu") if device == "auto" else device


def set_threads(threads: int | None, network: PolicyValueNetwork) -> None:
    """Set torch's threads: on a small model a second thread costs more than it brings."""
    if threads is None and sum(p.numel() for p in network.parameters()) < MAX_ONE_THREAD_PARAMETERS:
        threads = 1
    if threads is not None:
        torch.set_num_threads(threads)


def learn(
    agent: PPOAgent,
    run_path: Path,
    *,
    progress: Progress | None = None,
    resume_from: Path | None = None,
) -> Path:
    """Train an agent as its configuration says and return the run directory.

    Args:
        agent: built by `build_agent`.
        run_path: folder of the run; it must not hold a run already unless one is resumed.
        progress: is told what happens.
        resume_from: the checkpoint that the agent was built from.

    Raises:
        KeyboardInterrupt: after Ctrl-C, once a checkpoint is written.
    """
    run = RunDirectory(run_path)
    trainer = Trainer(agent, run, progress or SilentProgress())
    try:
        run.prepare()
        run.write_text("config.yaml", dump_config(agent.config))
        run.write_text("environment.json", json.dumps(describe_environment(), indent=2))
        trainer.train(resume_from)
    finally:
        trainer.close()
    return run.path


class Trainer:
    """One run in progress: the agent, its environments, its directory."""

    def __init__(self, agent: PPOAgent, run: RunDirectory, progress: Progress) -> None:
        self.agent = agent
        self.config = agent.config
        self.run = run
        self.progress = progress
        rollout = self.config.rollout
        self._open = ExitStack()
        self._open.callback(agent.engine.close)
        self.envs = make_envs(self.config.env, rollout.num_rows)
        num_parts = rollout.num_episodes // rollout.num_rows
        self.env_sets = [self.envs] + [
            make_envs(self.config.env, rollout.num_rows)
            for _ in range(min(rollout.parts_in_flight, num_parts) - 1)
        ]
        for envs in self.env_sets:
            self._open.callback(envs.close)
        self.held_out = make_held_out(agent)
        self._open.callback(self.held_out.envs.close)
        self.alarms = Alarms(expects_ratio_1=not isinstance(agent.correction, Bypass))
        self.clock = Clock()
        self.collector = Collector(
            self.env_sets,
            agent.engine,
            agent.network,
            rollout,
            seed=self.config.seed,
            clock=self.clock,
        )
        self.num_iterations = self._count_iterations()
        agent.plan(self.num_iterations * rollout.num_episodes)

    def _count_iterations(self) -> int:
        if self.config.iterations is not None:
            return self.config.iterations
        num_prompts: int | None = getattr(self.envs.unwrapped, "num_prompts", None)
        if num_prompts is None:
            raise ConfigError(
                f"iterations: {self.config.env.id} does not say how many prompts it has, so the "
                "length of the run cannot be counted in epochs; set iterations"
            )
        rollout = self.config.rollout
        num_samples = num_prompts * rollout.samples_per_prompt
        return math.ceil(self.config.epochs * num_samples / rollout.num_episodes)

    def close(self) -> None:
        """Release the environments and the log."""
        self._open.close()

    def train(self, resume_from: Path | None) -> None:
        """Do everything that is left of the run."""
        with Interrupt() as interrupt:
            done = self._start(resume_from, interrupt)
            self.progress.start_phase("PPO", self.num_iterations, done)
            for iteration in range(done, self.num_iterations):
                if interrupt.requested:
                    plot_run(self.run)
                    raise KeyboardInterrupt
                self._iterate(iteration)
                done = iteration + 1
                is_last = done == self.num_iterations
                if done % self.config.evaluation.every == 0 or is_last:
                    self._evaluate(done)
                if done % self.config.checkpoint_every == 0 or is_last or interrupt.requested:
                    save_checkpoint(self.agent, self.run, done)
            plot_run(self.run)

    def _start(self, resume_from: Path | None, interrupt: Interrupt) -> int:
        """Begin or take up the run and return how many iterations are done."""
        if resume_from is not None:
            state = load_checkpoint(self.agent, self.run, resume_from)
            self.agent.engine.sync(state.iteration)
            self._start_log(first_step=state.iteration + 1)
            return state.iteration
        self.run.truncate_metrics(0)
        self._start_log(first_step=0)
        if self.config.cold_start is not None:
            self._cold_start(interrupt)
        self.agent.start_reference()
        self.agent.engine.sync(0)
        self.progress.note(f"answering {self.held_out.envs.num_envs} held-out prompts before PPO")
        self._evaluate(0)
        save_checkpoint(self.agent, self.run, 0)
        return 0

    def _start_log(self, *, first_step: int) -> None:
        self.log = MetricsLog(self.run, first_step=first_step)
        self._open.callback(self.log.close)

    def _cold_start(self, interrupt: Interrupt) -> None:
        config = self.config.cold_start
        assert config is not None
        cold_start = ColdStart(
            self.agent.network,
            config,
            make_demonstrator(config, getattr(self.envs.unwrapped, "pool", None)),
            seed=self.config.seed,
            max_length=self.config.rollout.max_length,
        )
        self.progress.start_phase("cold start", config.steps)
        for step in range(config.steps):
            started = time.perf_counter()
            metrics = cold_start.step(step)
            seconds = time.perf_counter() - started
            self.progress.advance(metrics, metrics["cold_start/num_tokens"] / seconds)
            if (step + 1) % COLD_START_LOG_EVERY == 0 or step + 1 == config.steps:
                self.log.write("cold_start", step + 1, metrics)
            if interrupt.requested:
                raise KeyboardInterrupt
        self.agent.end_cold_start()

    def _iterate(self, iteration: int) -> None:
        started = time.perf_counter()
        self.clock.take()
        rollout = self.collector.collect(iteration)
        collected = time.perf_counter()
        metrics = rollout.metrics() | group_metrics(rollout)
        metrics |= self.agent.update(
            rollout, iteration=iteration, progress=iteration / self.num_iterations
        )
        updated = time.perf_counter()
        num_tokens = sum(sum(t.is_action) for t in rollout.transcripts)
        times = {
            "time/rollout_seconds": collected - started,
            "time/update_seconds": updated - collected,
            "time/rollout_tokens_per_second": num_tokens / (collected - started),
            "time/update_tokens_per_second": num_tokens / (updated - collected),
            "time/tokens_per_second": num_tokens / (updated - started),
            **self._phase_times(updated - started),
        }
        self.log.write("ppo", iteration + 1, {**metrics, **times})
        self._keep_rollouts(f"iteration-{iteration + 1:07d}", rollout)
        self.progress.advance(metrics, times["time/tokens_per_second"])
        for alarm in self.alarms.check(metrics):
            self.progress.note(f"warning: iteration {iteration + 1}: {alarm}")

    def _phase_times(self, seconds: float) -> dict[str, float]:
        """Return the seconds of each phase of an iteration, and how long the engine had nothing."""
        phases = self.clock.take()
        generation = phases.get("generation", 0.0)
        return {
            "time/generation_seconds": generation,
            "time/environment_seconds": phases.get("environment", 0.0),
            "time/engine_idle_share": 1 - generation / seconds,
        }

    def _evaluate(self, iteration: int) -> EvaluationResult:
        result = evaluate(self.agent, self.held_out)
        self.log.write("evaluation", iteration, result.metrics())
        self._keep_rollouts(f"evaluation-{iteration:07d}", result.greedy)
        return result

    def _keep_rollouts(self, name: str, rollout: Rollout) -> None:
        kept = rollout.transcripts[: self.config.log_rollouts]
        kept += [t for t in rollout.transcripts[len(kept) :] if t.failure is not None]
        if kept:
            self.run.write_rollouts(name, [t.record() for t in kept])
