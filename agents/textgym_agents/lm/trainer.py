"""The life of a run: cold start, evaluation, rollouts and updates, checkpoints, the last table.

The loop is a pure function of the configuration: each part draws from a stream that is derived from
the seed and the iteration, so a run that was killed and resumed writes the same metrics and the
same weights as one that was not (on one machine, with one number of threads).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from textgym.config import dump_config
from textgym.errors import ConfigError, did_you_mean
from textgym.seeding import Purpose, derive_seed
from textgym_agents.core.guard import NotFiniteError
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.alarms import Alarms
from textgym_agents.lm.bad_batch import batch_records, spoilt_parameters
from textgym_agents.lm.checkpoint import (
    BestCheckpoint,
    TrainState,
    checkpoint_bytes,
    load_checkpoint,
    save_checkpoint,
)
from textgym_agents.lm.cold_start import ColdStart, make_demonstrator
from textgym_agents.lm.config import FullMode, TrainConfig
from textgym_agents.lm.evaluation import evaluate, make_held_out
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.policy_files import POLICY_FOLDER
from textgym_agents.lm.rollout import Rollout, collect, make_envs
from textgym_agents.processes import ONE, PeerError, Processes
from textgym_agents.run.directory import RunDirectory, write_records
from textgym_agents.run.disk import check_room, disk_errors
from textgym_agents.run.environment import describe_environment
from textgym_agents.run.interrupt import Interrupt
from textgym_agents.run.metrics import MetricsLog, SilentLog, rows_of
from textgym_agents.run.plots import plot_run
from textgym_agents.run.progress import Progress, SilentProgress
from textgym_agents.run.trackers import check_trackers

COLD_START_LOG_EVERY = 50
MAX_ONE_THREAD_PARAMETERS = 20_000_000


def build_agent(
    config: TrainConfig, *, checkpoint: Path | None = None, processes: Processes = ONE
) -> PPOAgent:
    """Build the agent of a configuration, or of a checkpoint of its run.

    With a cold start the whole model learns first, and an adapter is added afterwards. Every
    process builds the same.
    """
    policy, device = config.policy, find_device(config.device)
    if checkpoint is not None:
        network = PolicyValueNetwork.load(checkpoint / POLICY_FOLDER)
    else:
        if config.cold_start is not None:
            policy = policy.model_copy(update={"mode": FullMode()})
        seed = derive_seed(config.seed, Purpose.MODEL)
        network = PolicyValueNetwork.from_config(policy, seed=seed)
    set_threads(config.threads, network)
    return PPOAgent(network.to(device), config, processes=processes)


def find_device(device: str) -> str:
    """Return `cpu` or `cuda`.

    Raises:
        ConfigError: a GPU was asked for, and there is none.
    """
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


def episodes_per_part(config: TrainConfig, num_processes: int) -> int:
    """Return how many episodes are collected at a time; a process collects whole parts.

    Raises:
        ConfigError: they do not divide the rollout.
    """
    rollout = config.rollout
    per_part = min(rollout.num_envs, rollout.num_episodes // num_processes)
    if per_part == 0 or rollout.num_episodes % per_part:
        raise ConfigError(
            f"rollout.num_episodes ({rollout.num_episodes}) cannot be divided among "
            f"{num_processes} processes with at most {rollout.num_envs} episodes at a time; make "
            "it a multiple of the number of processes"
        )
    return per_part


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
        self.envs = make_envs(self.config.env, episodes_per_part(self.config, self.processes.size))
        self._open.callback(self.envs.close)
        self.held_out = make_held_out(agent)
        self._open.callback(self.held_out.envs.close)
        self.alarms = Alarms()
        self.best: BestCheckpoint | None = None
        self.log: MetricsLog | SilentLog = SilentLog()
        self.num_iterations = self._count_iterations()

    def _count_iterations(self) -> int:
        if self.config.iterations is not None:
            return self.config.iterations
        num_prompts: int | None = getattr(self.envs.unwrapped, "num_prompts", None)
        if num_prompts is None:
            raise ConfigError(
                f"iterations: {self.config.env.id} does not say how many prompts it has, so the "
                "length of the run cannot be counted in epochs; set iterations"
            )
        return math.ceil(self.config.epochs * num_prompts / self.config.rollout.num_episodes)

    def close(self) -> None:
        """Release the environments and the log."""
        self._open.close()

    def train(self, resume_from: Path | None) -> None:
        """Do everything that is left of the run."""
        with Interrupt(is_silent=not self.processes.is_main) as interrupt:
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
            self.processes.from_main(lambda: plot_run(self.run))

    def _end_if(self, must_end: bool) -> None:
        if must_end:
            self.processes.from_main(lambda: plot_run(self.run))
            raise KeyboardInterrupt

    def _save(self, done: int) -> None:
        """Write a checkpoint, and see that there is room for the next while nothing is lost yet."""
        check_equal(self.agent.network, self.processes)

        def save() -> None:
            save_checkpoint(self.agent, self.run, done, self.best)
            if done < self.num_iterations:
                check_room(self.run, checkpoint_bytes(self.agent))

        self.processes.from_main(save)

    def _start(self, resume_from: Path | None, interrupt: Interrupt) -> int:
        """Begin or take up the run and return how many iterations are done."""
        if resume_from is not None:
            with self.processes.together():
                state = load_checkpoint(self.agent, self.run, resume_from)
            self.best = state.best
            self._start_log(state)
            for row in rows_of(self.run.read_metrics(), "ppo"):  # what was said is not said again
                self.alarms.check({k: v for k, v in row.items() if isinstance(v, float)})
            return state.iteration
        self._start_log()
        if self.config.cold_start is not None:
            self._cold_start(interrupt)
        self.agent.start_reference()
        num_prompts = sum(self.processes.gather(self.held_out.envs.num_envs))
        self.progress.note(f"answering {num_prompts} held-out prompts before PPO")
        self._evaluate(0)
        self._save(0)
        return 0

    def _start_log(self, state: TrainState | None = None) -> None:
        """Cut off what a run that goes on from a checkpoint has measured after it."""

        def start() -> None:
            self.run.truncate_metrics(state.metrics_size if state else 0)
            if state is not None:
                self.run.set_aside_after(self.run.checkpoint_path(state.iteration))
            self.log = MetricsLog(
                self.run,
                first_step=state.iteration + 1 if state else 0,
                report_to=self.config.report_to,
                config=self.config,
            )
            self._open.callback(self.log.close)

        self.processes.from_main(start)

    def _cold_start(self, interrupt: Interrupt) -> None:
        config = self.config.cold_start
        assert config is not None
        cold_start = ColdStart(
            self.agent.network,
            config,
            make_demonstrator(config, getattr(self.envs.unwrapped, "pool", None)),
            seed=self.config.seed,
            max_length=self.config.rollout.max_length,
            processes=self.processes,
        )
        self.progress.start_phase("cold start", config.steps)
        for step in range(config.steps):
            started = time.perf_counter()
            with self._finite(f"cold-start-{step + 1:07d}"):
                metrics = cold_start.step(step)
            seconds = time.perf_counter() - started
            self.progress.advance(metrics, metrics["cold_start/num_tokens"] / seconds)
            if (step + 1) % COLD_START_LOG_EVERY == 0 or step + 1 == config.steps:
                self.log.write("cold_start", step + 1, metrics)
            if self.processes.any(interrupt.requested):
                raise KeyboardInterrupt
        self.agent.end_cold_start()

    def _iterate(self, iteration: int) -> None:
        started = time.perf_counter()
        rollout = self._collect(iteration)
        collected = time.perf_counter()
        metrics = rollout.metrics()
        with self._finite(f"iteration-{iteration + 1:07d}"):
            metrics |= self.agent.update(
                rollout, iteration=iteration, progress=iteration / self.num_iterations
            )
        updated = time.perf_counter()
        num_tokens = sum(sum(t.is_action) for t in rollout.transcripts)
        times = {
            "time/rollout_seconds": collected - started,
            "time/update_seconds": updated - collected,
            "time/tokens_per_second": num_tokens / (updated - started),
        }
        self.log.write("ppo", iteration + 1, {**metrics, **times})
        self._keep_rollouts(f"iteration-{iteration + 1:07d}", rollout)
        self.progress.advance(metrics, times["time/tokens_per_second"])
        for alarm in self.alarms.check(metrics):
            self.progress.note(f"warning: iteration {iteration + 1}: {alarm}")
            self.log.alarm(iteration + 1, alarm)

    def _collect(self, iteration: int) -> Rollout:
        """Return the whole rollout, of whose parts each process has collected a share.

        A part draws from streams of its own: which process collects it makes no difference.
        """
        processes = self.processes
        num_parts = self.config.rollout.num_episodes // self.envs.num_envs
        with processes.together():
            own = [
                self._collect_part(iteration, part)
                for part in range(processes.rank, num_parts, processes.size)
            ]
        shares = processes.gather(own)
        parts = [shares[i % processes.size][i // processes.size] for i in range(num_parts)]
        return Rollout([t for part in parts for t in part.transcripts])

    def _collect_part(self, iteration: int, part: int) -> Rollout:
        seed, device = self.config.seed, self.agent.network.device
        sampling = derive_seed(seed, Purpose.SAMPLING, iteration, part)
        return collect(
            self.envs,
            self.agent.engine,
            self.agent.network,
            self.config.rollout,
            seed=derive_seed(seed, Purpose.ROLLOUT_ENV, iteration, part),
            generator=torch.Generator(device).manual_seed(sampling),
        )

    def _evaluate(self, iteration: int) -> bool:
        """Answer the held-out prompts and return whether the policy is the best so far."""
        result = evaluate(self.agent, self.held_out)
        metrics = result.metrics()
        self.log.write("evaluation", iteration, metrics)
        self._keep_rollouts(f"evaluation-{iteration:07d}", result.greedy)
        name = self.config.best_metric
        if name not in metrics:
            raise ConfigError(
                f"best_metric: there is no metric '{name}'.{did_you_mean(name, metrics)} An "
                f"evaluation has: {', '.join(metrics)}"
            )
        is_best = metrics[name] > (self.best.value if self.best else -math.inf)
        if is_best:
            self.best = BestCheckpoint(iteration=iteration, value=metrics[name])
        return is_best

    @contextmanager
    def _finite(self, name: str) -> Iterator[None]:
        """End the run where its losses or weights are not finite, and leave the batch to be read.

        Raises:
            NotFiniteError: they are not.
        """
        network = self.agent.network
        advice = "a lower learning rate, or float32 as policy.precision, may help"
        try:
            yield
        except NotFiniteError as error:
            path = self.run.path / f"not-finite-{name}.jsonl"
            limit = self.config.ppo.micro_batch_tokens
            if self.processes.is_main:
                write_records(path, batch_records(network, error.batch, limit))
            raise NotFiniteError(
                f"{name}: {error}. The batch is in {path}, token by token: look there for what is "
                f"not finite; {advice}",
                error.batch,
            ) from error
        if spoilt := spoilt_parameters(network):
            raise NotFiniteError(
                f"{name}: the update was finite and left weights that are not, in "
                f"{', '.join(spoilt[:3])}; {advice}",
                None,
            )

    def _keep_rollouts(self, name: str, rollout: Rollout) -> None:
        kept = rollout.transcripts[: self.config.log_rollouts]
        kept += [t for t in rollout.transcripts[len(kept) :] if t.failure is not None]
        if kept and self.processes.is_main:
            self.run.write_rollouts(name, [t.record() for t in kept])
