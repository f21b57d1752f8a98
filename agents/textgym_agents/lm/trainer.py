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
from textgym_agents.core.correction import Bypass
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.alarms import RATIO_ERROR, Alarms
from textgym_agents.lm.bad_batch import kept_if_not_finite
from textgym_agents.lm.checkpoint import checkpoint_bytes, load_checkpoint, save_checkpoint
from textgym_agents.lm.clock import Clock
from textgym_agents.lm.cold_start import ColdStart, make_demonstrator
from textgym_agents.lm.collection import Collector, group_metrics, rows_per_part
from textgym_agents.lm.config import TrainConfig
from textgym_agents.lm.envs import make_envs
from textgym_agents.lm.evaluation import evaluate, make_held_out
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.recorder import Recorder
from textgym_agents.lm.syllabus import make_syllabus
from textgym_agents.processes import PeerError, Processes
from textgym_agents.reports.writing import refresh_report
from textgym_agents.run.directory import RunDirectory
from textgym_agents.run.disk import check_room, disk_errors
from textgym_agents.run.environment import describe_environment
from textgym_agents.run.interrupt import MESSAGE, Interrupt
from textgym_agents.run.plots import plot_run
from textgym_agents.run.progress import Progress, SilentProgress
from textgym_agents.run.trackers import check_trackers

COLD_START_LOG_EVERY = 50


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
        DiskError: there is no room for the run; what was saved stays.
        PeerError: another process failed.
    """
    run, processes = RunDirectory(run_path), agent.processes
    with processes.together():
        check_trackers(agent.config.report_to)
        trainer = Trainer(agent, run, progress or SilentProgress())
    with disk_errors(run):
        try:
            processes.from_main(lambda: _prepare(run, agent.config))
            trainer.train(resume_from)
        finally:
            trainer.close()
    return run.path


def _prepare(run: RunDirectory, config: TrainConfig) -> None:
    run.prepare()
    run.write_text("config.yaml", dump_config(config))
    run.write_text("environment.json", json.dumps(describe_environment(), indent=2))


def check_equal(network: PolicyValueNetwork, processes: Processes) -> None:
    """See that all processes have the same weights.

    Raises:
        PeerError: they have not.
    """
    if processes.size == 1:
        return
    learnt = (*network.trainable(), *network.value_head.parameters())
    norms = [float(torch.linalg.vector_norm(p.detach(), dtype=torch.float64)) for p in learnt]
    if any(others != norms for others in processes.gather(norms)):
        raise PeerError(
            "the weights of the processes are no longer equal, so they do not train one policy; "
            "continue from the last checkpoint on machines of one kind"
        )


class Trainer:
    """One run in progress: the agent, its environments, its directory."""

    def __init__(self, agent: PPOAgent, run: RunDirectory, progress: Progress) -> None:
        self.agent = agent
        self.config = agent.config
        self.run = run
        self.progress = progress
        self.processes = agent.processes
        self._open = ExitStack()
        self._open.callback(agent.engine.close)
        self.clock = Clock()
        self.collector = self._make_collector()
        self.syllabus = make_syllabus(self.config, self.collector.envs)
        self.held_out = make_held_out(agent)
        self._open.callback(self.held_out.envs.close)
        is_own = not isinstance(agent.correction, Bypass)
        alarms = Alarms(ratio_error=RATIO_ERROR[self.config.policy.precision] if is_own else None)
        self.recorder = Recorder(
            run, self.config, self.processes, progress, alarms, agent.network.tokenizer
        )
        self._open.callback(self.recorder.close)
        self.num_iterations = self._count_iterations()
        agent.plan(self.num_iterations * self.config.rollout.num_episodes)

    def _make_collector(self) -> Collector:
        rollout, processes = self.config.rollout, self.processes
        num_rows = rows_per_part(rollout, processes.size)
        num_parts = -(-rollout.num_episodes // (num_rows * processes.size))
        env_sets = []
        for _ in range(min(rollout.parts_in_flight, num_parts)):
            envs = make_envs(self.config.env, num_rows)
            self._open.callback(envs.close)
            env_sets.append(envs)
        return Collector(
            env_sets,
            self.agent.engine,
            self.agent.network,
            rollout,
            seed=self.config.seed,
            clock=self.clock,
            processes=processes,
        )

    def _count_iterations(self) -> int:
        if self.config.iterations is not None:
            return self.config.iterations
        envs = self.collector.envs[0]
        num_prompts: int | None = getattr(envs.unwrapped, "num_prompts", None)
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
        with Interrupt(MESSAGE if self.processes.is_main else None) as interrupt:
            done = self._start(resume_from, interrupt)
            self.progress.start_phase("PPO", self.num_iterations, done)
            self._end_if(self.processes.any(interrupt.requested))
            for iteration in range(done, self.num_iterations):
                self._iterate(iteration)
                done = iteration + 1
                is_last = done == self.num_iterations
                must_save = done % self.config.checkpoint_every == 0 or is_last
                if done % self.config.evaluation.every == 0 or is_last:
                    must_save |= self._evaluate(done)
                must_end = self.processes.any(interrupt.requested)
                if must_save or must_end:
                    self._save(done)
                self._end_if(must_end and not is_last)
            self.processes.from_main(self._show)

    def _end_if(self, must_end: bool) -> None:
        if must_end:
            self.processes.from_main(self._show)
            raise KeyboardInterrupt

    def _show(self) -> None:
        plot_run(self.run)
        refresh_report(self.run)

    def _save(self, done: int) -> None:
        """Write a checkpoint, and see that there is room for the next while nothing is lost yet."""
        check_equal(self.agent.network, self.processes)

        def save() -> None:
            state = None if self.syllabus is None else self.syllabus.state()
            save_checkpoint(self.agent, self.run, done, self.recorder.best, state)
            if done < self.num_iterations:
                check_room(self.run, checkpoint_bytes(self.agent.network))

        self.processes.from_main(save)

    def _start(self, resume_from: Path | None, interrupt: Interrupt) -> int:
        """Begin or take up the run and return how many iterations are done."""
        if resume_from is not None:
            with self.processes.together():
                state = load_checkpoint(self.agent, self.run, resume_from)
            if self.syllabus is not None and state.curriculum is not None:
                self.syllabus.restore(state.curriculum)
            self.agent.engine.sync(state.iteration)
            self.recorder.start(state)
            return state.iteration
        self.recorder.start()
        if self.config.cold_start is not None:
            self._cold_start(interrupt)
        self.agent.start_reference()
        self.agent.engine.sync(0)
        num_prompts = sum(self.processes.gather(self.held_out.envs.num_envs))
        self.progress.note(f"answering {num_prompts} held-out prompts before PPO")
        self._evaluate(0)
        self._save(0)
        return 0

    def _cold_start(self, interrupt: Interrupt) -> None:
        config = self.config.cold_start
        assert config is not None
        pool = getattr(self.collector.envs[0].unwrapped, "pool", None)
        cold_start = ColdStart(
            self.agent.network,
            config,
            make_demonstrator(config, pool),
            seed=self.config.seed,
            max_length=self.config.rollout.max_length,
            processes=self.processes,
        )
        self.progress.start_phase("cold start", config.steps)
        since_row = time.perf_counter()
        for step in range(config.steps):
            started = time.perf_counter()
            with kept_if_not_finite(self.agent, self.run, f"cold-start-{step + 1:07d}"):
                metrics = cold_start.step(step)
            seconds = time.perf_counter() - started
            self.progress.advance(metrics, metrics["cold_start/num_tokens"] / seconds)
            if (step + 1) % COLD_START_LOG_EVERY == 0 or step + 1 == config.steps:
                now = time.perf_counter()
                times = {"time/cold_start_seconds": now - since_row}
                self.recorder.cold_start(step + 1, {**metrics, **times})
                since_row = now
            if self.processes.any(interrupt.requested):
                raise KeyboardInterrupt
        self.agent.end_cold_start()

    def _iterate(self, iteration: int) -> None:
        started = time.perf_counter()
        self.clock.take()
        rollout = self.collector.collect(iteration)
        collected = time.perf_counter()
        metrics = rollout.metrics() | group_metrics(rollout)
        if self.syllabus is not None:
            metrics |= self.syllabus.observe(rollout)
        with kept_if_not_finite(self.agent, self.run, f"iteration-{iteration + 1:07d}"):
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
        self.recorder.iteration(iteration + 1, {**metrics, **times}, rollout)

    def _phase_times(self, seconds: float) -> dict[str, float]:
        """Return the seconds of each phase of an iteration, and how long the engine had nothing."""
        phases = self.clock.take()
        generation = phases.get("generation", 0.0)
        return {
            "time/generation_seconds": generation,
            "time/environment_seconds": phases.get("environment", 0.0),
            "time/engine_idle_share": 1 - generation / seconds,
        }

    def _evaluate(self, iteration: int) -> bool:
        """Answer the held-out prompts and return whether the policy is the best so far."""
        started = time.perf_counter()
        result = evaluate(self.agent, self.held_out)
        return self.recorder.evaluation(iteration, result, time.perf_counter() - started)
