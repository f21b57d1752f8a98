"""One agent learning in one environment, in a run directory: what a table and a network share.

The same files as a language model's run has: config.yaml, environment.json, metrics.jsonl,
TensorBoard events, checkpoints and curves.png. `iteration` counts environment steps.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, JsonValue, NonNegativeInt, PositiveInt, ValidationError

from textgym.config import dump_config
from textgym.errors import ConfigError
from textgym.seeding import Purpose, derive_seed
from textgym.validation import explain
from textgym_agents.agent import Agent, AgentConfig, Part, evaluate
from textgym_agents.agent_files import agent_class, load_agent
from textgym_agents.env_source import spec_of
from textgym_agents.reports.writing import refresh_report
from textgym_agents.run.directory import STATE_FILE, RunDirectory
from textgym_agents.run.disk import disk_errors
from textgym_agents.run.environment import describe_environment
from textgym_agents.run.interrupt import Interrupt
from textgym_agents.run.metrics import MetricsLog
from textgym_agents.run.plots import plot_agent_run
from textgym_agents.run.progress import Progress, SilentProgress
from textgym_agents.run.trackers import TrackerName, check_trackers

AGENT_FOLDER = "agent"
NUM_EPISODES = "rollout/num_episodes"


class AgentRunConfig(AgentConfig):
    """A run of any agent but the language model's."""

    agent: str
    """Name of the agent, e.g. `q_learning`, `ppo` or `sb3:dqn`."""
    env: str
    """Gymnasium id, with the module to import in front where it needs one."""
    env_kwargs: dict[str, JsonValue] = Field(default_factory=dict)
    """Keyword arguments of the environment."""
    evaluation_kwargs: dict[str, JsonValue] = Field(default_factory=dict)
    """More of them, for the environment that is evaluated in, e.g. its split."""
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    """Fields of the agent's configuration."""
    total_steps: PositiveInt = 100_000
    """Budget of environment steps."""
    seed: NonNegativeInt = 0
    """The one seed of the run."""
    evaluations: PositiveInt = 10
    """Evaluations, evenly over the budget; the last one is at its end. Each is a checkpoint too."""
    evaluation_episodes: PositiveInt = 20
    """Episodes of each evaluation."""
    keep_checkpoints: PositiveInt = 1
    """How many of the latest checkpoints stay."""
    report_to: tuple[TrackerName, ...] = ()
    """Trackers besides TensorBoard: wandb, mlflow, trackio."""


class RunState(AgentConfig):
    """What a checkpoint knows besides the agent."""

    num_steps: NonNegativeInt
    """Environment steps of the run."""
    num_episodes: NonNegativeInt
    """Episodes that ended in them."""
    is_finished: bool
    """Whether nothing is left to do."""
    metrics_size: NonNegativeInt
    """Bytes of metrics.jsonl."""


class AgentRun:
    """A run in progress; its method `report` is the callback of `learn`.

    The evaluations divide the budget into segments. Each is one call of the agent's `learn` with a
    seed of its own, ends with an evaluation and a checkpoint, and is a function of the checkpoint
    before it: a run that was killed goes on exactly as it would have.

    Args:
        config: what to do.
        run: where to write; `prepare`d.
        progress: is told what happens.
    """

    def __init__(
        self, config: AgentRunConfig, run: RunDirectory, progress: Progress | None = None
    ) -> None:
        self.config, self.run = config, run
        self.progress = progress or SilentProgress()
        self.env = spec_of(config.env, **config.env_kwargs)
        self.evaluation_env = spec_of(self.env, **config.evaluation_kwargs)
        self.agent: Agent = make_agent(config.agent, config.settings)
        self._done = self._num_episodes = 0
        self._evaluated = -1
        self._is_finished = False
        self._interrupt = Interrupt("stopping; what came after the last evaluation is redone")

    def learn(self, *, resume: bool = False) -> Agent:
        """Spend what is left of the budget and return the agent.

        Args:
            resume: go on from the last checkpoint, or from the start where there is none yet. The
                metrics and the agent become those of a run without the break, but for `time/`.

        Raises:
            KeyboardInterrupt: after Ctrl-C; the last checkpoint stands.
        """
        checkpoint = self.run.latest_checkpoint() if resume else None
        if checkpoint is None:
            self.run.truncate_metrics(0)
        else:
            self._restore(checkpoint)
        self._log = MetricsLog(
            self.run,
            first_step=self._done + 1 if resume else 0,
            report_to=self.config.report_to,
            config=self.config,
        )
        try:
            with self._interrupt:
                self._learn()
        finally:
            self._log.close()
            plot_agent_run(self.run)
            refresh_report(self.run)
        return self.agent

    def _learn(self) -> None:
        total = self.config.total_steps
        self.progress.start_phase(self.config.agent, total, self._done, unit="steps")
        while not self._is_finished:
            before = self._done
            self._learn_segment()
            self._is_finished = self._done >= total or self._done == before
            if self._done > self._evaluated:
                self._evaluate()
                self._save()
            if self._interrupt.requested:
                raise KeyboardInterrupt

    def _learn_segment(self) -> None:
        """Learn up to the next evaluation; rollouts may go on a little further."""
        config, total = self.config, self.config.total_steps
        index = self._done * config.evaluations // total
        end = -(-(index + 1) * total // config.evaluations)
        self._before = self._reported = self._done
        self._reported_at = time.perf_counter()
        self._episodes_before = self._num_episodes
        self.agent.learn(
            self.env,
            total_steps=end - self._done,
            seed=derive_seed(config.seed, Purpose.SEGMENT, index),
            on_metrics=self.report,
            part=Part(before=self._done, after=total - end),
        )

    def report(self, num_steps: int, metrics: Mapping[str, float]) -> None:
        """Write metrics that tell of the segment; stop when Ctrl-C was pressed.

        `rollout/num_episodes` counts those of the segment, and is written for the whole run.
        """
        if self._interrupt.requested:
            raise KeyboardInterrupt
        self._done = self._before + num_steps
        if NUM_EPISODES in metrics:
            self._num_episodes = self._episodes_before + int(metrics[NUM_EPISODES])
            metrics = {**metrics, NUM_EPISODES: float(self._num_episodes)}
        self._log.write("train", self._done, metrics)
        now, advanced = time.perf_counter(), self._done - self._reported
        self.progress.advance(metrics, advanced / (now - self._reported_at), num_steps=advanced)
        self._reported, self._reported_at = self._done, now

    def _evaluate(self) -> None:
        """Play held-out episodes and write what came of them."""
        started = time.perf_counter()
        result = evaluate(
            self.agent,
            self.evaluation_env,
            num_episodes=self.config.evaluation_episodes,
            seed=derive_seed(self.config.seed, Purpose.EVALUATION),
        )
        seconds = {"time/evaluation_seconds": time.perf_counter() - started}
        self._log.write("evaluation", self._done, {**result.metrics(), **seconds})
        self._evaluated = self._done

    def _save(self) -> None:
        with self.run.new_checkpoint(self._done, keep=self.config.keep_checkpoints) as folder:
            self.agent.save(folder / AGENT_FOLDER)
            state = RunState(
                num_steps=self._done,
                num_episodes=self._num_episodes,
                is_finished=self._is_finished,
                metrics_size=self.run.metrics_size(),
            )
            (folder / STATE_FILE).write_text(state.model_dump_json())

    def _restore(self, checkpoint: Path) -> None:
        try:
            state = RunState.model_validate_json((checkpoint / STATE_FILE).read_bytes())
        except ValidationError:
            raise ConfigError(
                f"{checkpoint} is not a checkpoint that this version can go on from; start a new "
                "run"
            ) from None
        self.run.set_aside_after(checkpoint)
        self.agent = load_agent(checkpoint / AGENT_FOLDER)
        self._done = self._evaluated = state.num_steps
        self._num_episodes, self._is_finished = state.num_episodes, state.is_finished
        self.run.truncate_metrics(state.metrics_size)


def make_agent(name: str, settings: Mapping[str, Any]) -> Agent:
    """Make an agent from its name and the fields of its configuration.

    Raises:
        UnknownNameError: there is no agent of this name.
        ConfigError: a field that its configuration does not have, or a value it does not take.
    """
    make: Any = agent_class(name)
    model = type(make().config)
    try:
        return make(model.model_validate(dict(settings)))  # type: ignore[no-any-return]
    except ValidationError as error:
        lines = "; ".join(line for _, line in explain(error, model, settings))
        raise ConfigError(f"the agent '{name}': {lines}") from None


def train_agent(
    config: AgentRunConfig,
    run_path: Path,
    *,
    progress: Progress | None = None,
    resume: bool = False,
) -> Agent:
    """Run `config` in a run directory and return the agent; see `AgentRun.learn`.

    A run that is refused before its first step does not keep the folder from another one.
    """
    check_trackers(config.report_to)
    run = RunDirectory(run_path)
    agent_run = AgentRun(config, run, progress)
    with disk_errors(run):
        run.prepare()
        run.write_text("config.yaml", dump_config(config))
        run.write_text("environment.json", json.dumps(describe_environment(), indent=2))
        try:
            return agent_run.learn(resume=resume)
        except ConfigError:
            if not resume and not run.metrics_size():
                run.remove("config.yaml")
            raise


def load_trained(run_path: Path) -> Agent:
    """Return the agent of a run's last checkpoint.

    Raises:
        ConfigError: there is none.
    """
    checkpoint = RunDirectory.open(run_path).latest_checkpoint()
    if checkpoint is None:
        raise ConfigError(f"{run_path} has no checkpoint yet; continue it with --resume {run_path}")
    return load_agent(checkpoint / AGENT_FOLDER)
