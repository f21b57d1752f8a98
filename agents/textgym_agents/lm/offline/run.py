"""One run of SFT or DPO, in the run directory that every other run has."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from textgym.config import dump_config
from textgym.errors import ConfigError
from textgym.seeding import Purpose, derive_seed
from textgym_agents.core.guard import NotFiniteError, StepGuard
from textgym_agents.lm.build import find_device, set_threads
from textgym_agents.lm.checkpoint import (
    REFERENCE_FOLDER,
    BestCheckpoint,
    checkpoint_bytes,
    save_base,
)
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.offline.config import DPORunConfig, SFTRunConfig
from textgym_agents.lm.offline.data import Examples, read_examples
from textgym_agents.lm.offline.state import (
    TuningState,
    digest_of,
    load_state,
    restore_trainer,
    save_optimizer,
)
from textgym_agents.lm.offline.trl_trainers import RunCallback, input_records, make_trainer
from textgym_agents.lm.policy_files import POLICY_FOLDER
from textgym_agents.processes import ONE, Processes
from textgym_agents.reports.writing import refresh_report
from textgym_agents.run.directory import RunDirectory, write_records
from textgym_agents.run.disk import check_room, disk_errors
from textgym_agents.run.environment import describe_environment
from textgym_agents.run.interrupt import MESSAGE, Interrupt
from textgym_agents.run.metrics import MetricsLog, SilentLog
from textgym_agents.run.plots import plot_tuning_run
from textgym_agents.run.progress import Progress, SilentProgress
from textgym_agents.run.trackers import check_trackers


def tune(
    config: SFTRunConfig | DPORunConfig,
    run_path: Path,
    *,
    progress: Progress | None = None,
    processes: Processes = ONE,
    resume: bool = False,
) -> Path:
    """Learn from demonstrations or preferences and return the run directory.

    Args:
        config: what to do.
        run_path: folder of the run; it must not hold one already unless it is resumed.
        progress: is told what happens.
        processes: those of the run.
        resume: go on from the last checkpoint, or from the start where there is none yet. Metrics,
            but for `time/`, and weights become those of a run without the break.

    Raises:
        ConfigError: the model, the data or a tracker cannot be used.
        PromptError: a file of data that cannot be read.
        KeyboardInterrupt: after Ctrl-C, once what was learnt is saved.
        NotFiniteError: too many steps in a row had a gradient that is not finite.
        DiskError: there is no room for the run; what was saved stays.
    """
    run = RunDirectory(run_path)
    checkpoint = processes.from_main(run.latest_checkpoint) if resume else None
    with processes.together():
        check_trackers(config.report_to)
        tuning = Tuning(config, run, progress or SilentProgress(), processes, checkpoint)
    with disk_errors(run):
        try:
            tuning.train()
        finally:
            tuning.log.close()
    return run_path


class Tuning:
    """One run in progress.

    Args:
        config: what to do.
        run: where to write.
        progress: is told what happens.
        processes: those of the run.
        checkpoint: to go on from; None starts anew.
    """

    def __init__(
        self,
        config: SFTRunConfig | DPORunConfig,
        run: RunDirectory,
        progress: Progress,
        processes: Processes,
        checkpoint: Path | None,
    ) -> None:
        self.config, self.run, self.progress, self.processes = config, run, progress, processes
        self.checkpoint = checkpoint
        try:
            config.micro_batch(processes.size)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        self.network = self._load_network().to(find_device(config.device))
        set_threads(config.threads, self.network)
        self.examples: Examples = read_examples(self.network, config)
        self.state = None if checkpoint is None else load_state(checkpoint, self.examples)
        self.best = None if self.state is None else self.state.best
        self.log: MetricsLog | SilentLog = SilentLog()
        self._trainer: Any = None
        self._callback: RunCallback | None = None
        self._whole: PolicyValueNetwork | None = None

    def _load_network(self) -> PolicyValueNetwork:
        if self.checkpoint is not None:
            return PolicyValueNetwork.load(self.checkpoint / POLICY_FOLDER)
        seed = derive_seed(self.config.seed, Purpose.MODEL)
        return PolicyValueNetwork.from_config(self.config.policy, seed=seed)

    def train(self) -> None:
        """Do everything that is left of the run."""
        self.progress.note(self.examples.summary())
        self.processes.from_main(self._prepare)
        was_stopped = False
        if self.state is None or self.state.iteration < self.state.num_steps:
            was_stopped = self._learn()
        self.processes.from_main(self._show)
        if was_stopped:
            raise KeyboardInterrupt

    def _show(self) -> None:
        plot_tuning_run(self.run, self.config.kind)
        refresh_report(self.run)

    def _learn(self) -> bool:
        """Take the steps that are left and return whether Ctrl-C left some."""
        with (
            tempfile.TemporaryDirectory() as folder,
            Interrupt(MESSAGE if self.processes.is_main else None) as interrupt,
        ):
            callback = self._callback = RunCallback(
                self.config,
                self.processes,
                self.progress,
                StepGuard(self.config.max_skipped_steps),
                write=self._write,
                must_stop=lambda: interrupt.requested,
            )
            trainer = self._trainer = self._make_trainer(Path(folder))
            trainer.save, trainer.restore = self._save, self._restore
            callback.trainer = trainer
            trainer.add_callback(callback)
            if self.state is not None:
                callback.num_skipped = self.state.num_skipped
                callback.guard.num_in_a_row = self.state.skipped_in_a_row
            with self._kept_batch(trainer):
                trainer.train(resume_from_checkpoint=folder if self.state else None)
        return callback.was_stopped and trainer.state.global_step < trainer.state.max_steps

    def _make_trainer(self, folder: Path) -> Any:
        return make_trainer(
            self.network,
            self.examples,
            self.config,
            folder=folder,
            processes=self.processes,
            reference=self._load_reference(),
            done=0 if self.state is None else self.state.iteration,
        )

    def _load_reference(self) -> PolicyValueNetwork | None:
        """Return the reference of DPO that the run began with; None where it begins now."""
        path = self.run.path / REFERENCE_FOLDER
        if self.state is None or not path.exists():
            return None
        reference = self.network.frozen_copy()  # shares what does not learn
        reference.lm.load_state_dict(PolicyValueNetwork.load(path).lm.state_dict())
        return reference

    def _prepare(self) -> None:
        self.run.prepare()
        self.run.write_text("config.yaml", dump_config(self.config))
        self.run.write_text("environment.json", json.dumps(describe_environment(), indent=2))
        check_room(self.run, checkpoint_bytes(self.network))
        self.run.truncate_metrics(0 if self.state is None else self.state.metrics_size)
        if self.checkpoint is not None:
            self.run.set_aside_after(self.checkpoint)
        if isinstance(self.config, DPORunConfig) and self.state is None:
            save_base(self.network, self.run)
            with self.run.new_part(REFERENCE_FOLDER) as folder:
                self.network.save(folder)
        self.log = MetricsLog(
            self.run,
            first_step=0 if self.state is None else self.state.iteration + 1,
            report_to=self.config.report_to,
            config=self.config,
        )

    def _write(self, phase: str, step: int, metrics: Mapping[str, float]) -> bool:
        """Write metrics and return whether they are those of the best policy so far."""
        self.log.write(phase, step, metrics)
        loss = metrics.get("evaluation/loss")
        if loss is None or step == 0 or (self.best is not None and loss >= self.best.value):
            return False
        self.best = BestCheckpoint(iteration=step, value=loss)
        return True

    def _save(self) -> None:
        weights = self._gathered_weights()
        self.processes.from_main(lambda: self._save_checkpoint(weights))

    def _gathered_weights(self) -> dict[str, Tensor] | None:
        """Return the whole weights where sharding has divided them; None where they are whole."""
        trainer = self._trainer
        if not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
            return None
        weights: dict[str, Tensor] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
        return weights

    def _save_checkpoint(self, weights: Mapping[str, Tensor] | None) -> None:
        network, keep = self.network, self.config.keep_checkpoints
        if weights is not None:
            network = self._whole = self._whole or self._load_network()
            network.lm.load_state_dict(weights)
        check_room(self.run, checkpoint_bytes(network))
        save_base(network, self.run)
        best, state = self.best.iteration if self.best else None, self._current_state()
        with self.run.new_checkpoint(state.iteration, keep=keep, best=best) as folder:
            network.save(folder / POLICY_FOLDER)
            if weights is None:
                save_optimizer(self._trainer, folder)
            state.save(folder)

    def _current_state(self) -> TuningState:
        assert self._callback is not None
        return TuningState(
            iteration=self._trainer.state.global_step,
            num_steps=self._trainer.state.max_steps,
            learning_rate=self._trainer.lr_scheduler.get_last_lr()[0],
            num_skipped=self._callback.num_skipped,
            skipped_in_a_row=self._callback.guard.num_in_a_row,
            metrics_size=self.run.metrics_size(),
            data=digest_of(self.examples),
            best=self.best,
        )

    def _restore(self) -> None:
        assert self.checkpoint is not None
        assert self.state is not None
        restore_trainer(self._trainer, self.checkpoint, self.state)

    @contextmanager
    def _kept_batch(self, trainer: Any) -> Iterator[None]:
        try:
            yield
        except NotFiniteError as error:
            path = self.run.path / f"not-finite-step-{trainer.state.global_step + 1:07d}.jsonl"
            if self.processes.is_main:
                write_records(path, input_records(self.network, error.batch))
            raise NotFiniteError(
                f"{error}. The batch is in {path}; a lower learning rate, or float32 as "
                "policy.precision, may help",
                error.batch,
            ) from error
