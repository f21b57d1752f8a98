"""Runs of a comparison: what each is, doing one in a worker process, and what is left to do.

A run is done when its `result.json` says so for the same configuration; a comparison that was
stopped goes on with the others. A run that raised, crashed or took too long has a result as well,
which says so: it is shown as failed, and tried again the next time.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from textgym.errors import TextGymError
from textgym.workers import Outcome, WorkerPool
from textgym_agents.agent import ActsInBatches, Agent
from textgym_agents.baselines.random_agent import RandomAgent
from textgym_agents.baselines.suites import Task, task_name
from textgym_agents.env_source import exact_solution_of, opened, spec_of
from textgym_agents.run.agent_run import AgentRunConfig, train_agent
from textgym_agents.run.directory import RunDirectory, rows_of, write_atomically

RESULT_FILE = "result.json"
EVALUATIONS = 5
POLL_SECONDS = 0.5


class Job(BaseModel):
    """One agent, one task, one seed, one folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: AgentRunConfig
    path: Path

    @property
    def title(self) -> str:
        """What progress and errors call it."""
        return f"{self.config.agent} on {task_name(self.config.env)}, seed {self.config.seed}"


class RunResult(BaseModel):
    """What came of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: AgentRunConfig
    status: Literal["done", "failed"]
    error: str = ""
    score: float | None = None
    """Mean return of the last evaluation."""
    exact: float | None = None
    """Expected return of the best actions, where the environment can compute it."""
    num_episodes: int = 0
    """Episodes of that evaluation that were scored."""
    train_seconds: float = 0.0
    """Wall-clock of learning, evaluations left out."""
    curve: tuple[tuple[int, float], ...] = ()
    """Environment steps and mean return of each evaluation."""

    @property
    def task(self) -> str:
        """The name of the task."""
        return task_name(self.config.env)

    @property
    def best_score(self) -> float | None:
        """The exact expected return where it is known, else the mean of the last evaluation."""
        return self.score if self.exact is None else self.exact

    @property
    def steps_per_second(self) -> float | None:
        """Environment steps per second of learning; None for a planner, which takes none."""
        steps = self.curve[-1][0] if self.curve else 0
        return steps / self.train_seconds if steps and self.train_seconds else None


def make_jobs(
    tasks: Sequence[Task],
    agents: Sequence[str],
    *,
    num_seeds: int,
    budget: int | None,
    out: Path,
) -> list[Job]:
    """Return the runs of a comparison, seeds last, so that every agent is seen early."""
    return [
        Job(
            config=AgentRunConfig(
                agent=agent,
                env=task.env,
                env_kwargs=task.env_kwargs,
                settings=task.agents[agent],
                total_steps=budget or task.budget,
                seed=seed,
                evaluations=EVALUATIONS,
                evaluation_episodes=task.evaluation_episodes,
            ),
            path=out / "runs" / task_name(task.env) / agent.replace(":", "-") / f"seed-{seed:03d}",
        )
        for seed in range(num_seeds)
        for task in tasks
        for agent in agents
        if agent in task.agents
    ]


def read_result(job: Job) -> RunResult | None:
    """Return the result of a run, or None where it has none for this configuration."""
    try:
        result = RunResult.model_validate_json((job.path / RESULT_FILE).read_text())
    except (OSError, ValidationError):
        return None
    return result if result.config == job.config else None


def run_jobs(
    jobs: Sequence[Job],
    *,
    num_workers: int,
    time_limit: float,
    on_result: Callable[[Job, RunResult], None],
) -> None:
    """Do the runs that are left, each in a worker process that may crash or hang.

    Args:
        jobs: those that are done already are only reported.
        num_workers: runs at once, with one thread each.
        time_limit: seconds of one run.
        on_result: told of each run as it ends.
    """
    left = []
    for job in jobs:
        result = read_result(job)
        if result is None or result.status == "failed":
            (job.path / RESULT_FILE).unlink(missing_ok=True)
            left.append(job)
        else:
            on_result(job, result)
    watch = _Watch(left, on_result)
    with WorkerPool(min(num_workers, max(1, len(left)))) as pool, watch:
        outcomes = pool.run(run_job, left, time_limit=time_limit)
    for job, outcome in zip(left, outcomes, strict=True):
        _write_lost(job, outcome)
    watch.look()


class _Watch:
    """Reports results as they appear, while the main thread waits for the workers."""

    def __init__(self, jobs: Sequence[Job], on_result: Callable[[Job, RunResult], None]) -> None:
        self._open = list(jobs)
        self._on_result = on_result
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(POLL_SECONDS):
            self.look()

    def look(self) -> None:
        """Report what has ended since the last look."""
        for job in list(self._open):
            result = read_result(job)
            if result is not None:
                self._open.remove(job)
                self._on_result(job, result)


def run_job(job: Job) -> None:
    """Do one run and write its result, whatever comes of it but the death of the process."""
    shutil.rmtree(job.path, ignore_errors=True)
    started = time.perf_counter()
    try:
        agent = train_agent(job.config, job.path)
        result = _result(job, time.perf_counter() - started)
        if result.status == "done":
            result = result.model_copy(update={"exact": exact_return(agent, job.config)})
    except TextGymError as error:
        result = _failed(job, str(error))
    except Exception as error:  # an agent's or an environment's own: the others go on
        result = _failed(job, f"{type(error).__name__}: {error}")
    _write(job, result)


def _result(job: Job, seconds: float) -> RunResult:
    rows = rows_of(RunDirectory(job.path).read_metrics(), "evaluation")
    last: dict[str, Any] = rows[-1]
    if last["evaluation/reward"] is None:
        return _failed(job, "no episode of the last evaluation was scored")
    return RunResult(
        config=job.config,
        status="done",
        score=last["evaluation/reward"],
        num_episodes=int(last["evaluation/num_episodes"]),
        train_seconds=seconds - sum(row["time/evaluation_seconds"] for row in rows),
        curve=tuple(
            (row["iteration"], row["evaluation/reward"])
            for row in rows
            if row["evaluation/reward"] is not None
        ),
    )


def exact_return(agent: Agent, config: AgentRunConfig) -> float | None:
    """Return the expected return of an agent's best actions; None where nobody knows it.

    The environment's `exact_solution()` knows it of any policy, and a random agent has no policy.
    """
    if config.agent == RandomAgent.name:
        return None
    with opened(spec_of(config.env, **config.env_kwargs)) as env:
        solution = exact_solution_of(env)
        if solution is None:
            return None
        observations = solution.observations()
        if isinstance(agent, ActsInBatches):
            actions = agent.act_batch(observations)
        else:
            actions = np.array([agent.act(observation) for observation in observations])
        return float(solution.value(np.eye(solution.num_actions)[actions]))


def _failed(job: Job, error: str) -> RunResult:
    return RunResult(config=job.config, status="failed", error=error)


def _write_lost(job: Job, outcome: Outcome[None]) -> None:
    """Write the result of a run whose process did not live to write it."""
    if outcome.failure is not None and read_result(job) is None:
        _write(job, _failed(job, f"{outcome.failure.kind}: {outcome.failure.message}"))


def _write(job: Job, result: RunResult) -> None:
    job.path.mkdir(parents=True, exist_ok=True)
    write_atomically(job.path / RESULT_FILE, json.dumps(result.model_dump(mode="json")))
