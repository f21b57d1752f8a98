"""What a run writes down: metrics, alarms, sampled episodes, and which checkpoint is the best.

Every process of a run has a recorder, and all of them know the same; the main one's writes.
"""

from __future__ import annotations

import math
from typing import Any

from transformers import PreTrainedTokenizerBase

from textgym.errors import ConfigError, did_you_mean
from textgym_agents.lm.alarms import Alarms
from textgym_agents.lm.checkpoint import BestCheckpoint, TrainState
from textgym_agents.lm.config import TrainConfig
from textgym_agents.lm.evaluation import EvaluationResult
from textgym_agents.lm.token_records import token_record
from textgym_agents.lm.transcript import Rollout, Transcript
from textgym_agents.processes import Processes
from textgym_agents.run.directory import RunDirectory, rows_of
from textgym_agents.run.metrics import MetricsLog, SilentLog
from textgym_agents.run.progress import Progress


class Recorder:
    """The log of one run.

    Args:
        run: where to write.
        config: of the run.
        processes: of the run.
        progress: is told of every step.
        alarms: look at the metrics of each iteration.
        tokenizer: gives the texts of single tokens.
    """

    def __init__(
        self,
        run: RunDirectory,
        config: TrainConfig,
        processes: Processes,
        progress: Progress,
        alarms: Alarms,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self.run, self.config, self.processes = run, config, processes
        self.progress, self.alarms, self.tokenizer = progress, alarms, tokenizer
        self.best: BestCheckpoint | None = None
        self._log: MetricsLog | SilentLog = SilentLog()

    def start(self, state: TrainState | None = None) -> None:
        """Open the log, cutting off what a run that goes on from a checkpoint has measured after.

        Args:
            state: of the checkpoint; None for a new run.
        """
        self.processes.from_main(lambda: self._open(state))
        if state is not None:
            self.best = state.best
            for row in rows_of(self.run.read_metrics(), "ppo"):  # what was said is not said again
                self.alarms.check({k: v for k, v in row.items() if isinstance(v, float)})

    def _open(self, state: TrainState | None) -> None:
        self.run.truncate_metrics(state.metrics_size if state else 0)
        if state is not None:
            self.run.set_aside_after(self.run.checkpoint_path(state.iteration))
        self._log = MetricsLog(
            self.run,
            first_step=state.iteration + 1 if state else 0,
            report_to=self.config.report_to,
            config=self.config,
        )

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    def cold_start(self, step: int, metrics: dict[str, float]) -> None:
        """Write the metrics of a step of the cold start."""
        self._log.write("cold_start", step, metrics)

    def iteration(self, number: int, metrics: dict[str, float], rollout: Rollout) -> None:
        """Write what an iteration gave, and tell of it."""
        self._log.write("ppo", number, metrics)
        self._keep(f"iteration-{number:07d}", rollout)
        self.progress.advance(metrics, metrics["time/tokens_per_second"])
        for alarm in self.alarms.check(metrics):
            self.progress.note(f"warning: iteration {number}: {alarm}")
            self._log.alarm(number, alarm)

    def evaluation(self, iteration: int, result: EvaluationResult, seconds: float) -> bool:
        """Write an evaluation that took so long; return whether the policy is the best so far.

        Raises:
            ConfigError: it has no metric of the name `best_metric`.
        """
        metrics, name = result.metrics(), self.config.best_metric
        self._log.write("evaluation", iteration, {**metrics, "time/evaluation_seconds": seconds})
        self._keep(f"evaluation-{iteration:07d}", result.greedy)
        if name not in metrics:
            raise ConfigError(
                f"best_metric: there is no metric '{name}'.{did_you_mean(name, metrics)} An "
                f"evaluation has: {', '.join(metrics)}"
            )
        is_best = metrics[name] > (self.best.value if self.best else -math.inf)
        if is_best:
            self.best = BestCheckpoint(iteration=iteration, value=metrics[name])
        return is_best

    def _keep(self, name: str, rollout: Rollout) -> None:
        kept = rollout.transcripts[: self.config.log_rollouts]
        kept += [t for t in rollout.transcripts[len(kept) :] if t.failure is not None]
        if kept and self.processes.is_main:
            self.run.write_rollouts(name, [self._record(t) for t in kept])

    def _record(self, transcript: Transcript) -> dict[str, Any]:
        tokens = token_record(transcript, self.tokenizer) if self.config.log_tokens else {}
        return {**transcript.record(), **tokens}
