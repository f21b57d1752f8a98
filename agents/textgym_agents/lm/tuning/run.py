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
from textgym_agents.lm.checkpoint import BestCheckpoint, policy_bytes, save_base
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.policy_files import POLICY_FOLDER
from textgym_agents.lm.tuning.config import DPORunConfig, SFTRunConfig
from textgym_agents.lm.tuning.data import Examples, read_examples
from textgym_agents.lm.tuning.trl_trainers import RunCallback, input_records, make_trainer
from textgym_agents.processes import ONE, Processes
from textgym_agents.run.directory import STATE_FILE, RunDirectory, write_records
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
) -> Path:
    """Learn from demonstrations or preferences and return the run directory.

    Args:
        config: what to do.
        run_path: folder of the run; it must not hold one already.
        progress: is told what happens.
        processes: those of the run.

    Raises:
        ConfigError: the model, the data or a tracker cannot be used.
        PromptError: a file of data that cannot be read.
        KeyboardInterrupt: after Ctrl-C, once what was learnt is saved.
        NotFiniteError: too many steps in a row had a gradient that is not finite.
        DiskError: there is no room for the run; what was saved stays.
    """
    with processes.together():
        check_trackers(config.report_to)
        tuning = Tuning(config, RunDirectory(run_path), progress or SilentProgress(), processes)
    with disk_errors(tuning.run):
        try:
            tuning.train()
        finally:
            tuning.log.close()
    return run_path


class Tuning:
    """One run in progress."""

    def __init__(
        self,
        config: SFTRunConfig | DPORunConfig,
        run: RunDirectory,
        progress: Progress,
        processes: Processes,
    ) -> None:
        self.config, self.run, self.progress, self.processes = config, run, progress, processes
        try:
            config.micro_batch(processes.size)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        self.network = self._load_network().to(find_device(config.device))
        set_threads(config.threads, self.network)
        self.examples: Examples = read_examples(self.network, config)
        self.log: MetricsLog | SilentLog = SilentLog()
        self.best: BestCheckpoint | None = None
        self._saved = -1
        self._trainer: Any = None
        self._whole: PolicyValueNetwork | None = None

    def _load_network(self) -> PolicyValueNetwork:
        seed = derive_seed(self.config.seed, Purpose.MODEL)
        return PolicyValueNetwork.from_config(self.config.policy, seed=seed)

    def train(self) -> None:
        """Do everything there is to do."""
        self.progress.note(self.examples.summary())
        self.processes.from_main(self._prepare)
        with (
            tempfile.TemporaryDirectory() as folder,
            Interrupt(MESSAGE if self.processes.is_main else None) as interrupt,
        ):
            callback = RunCallback(
                self.config,
                self.processes,
                self.progress,
                StepGuard(self.config.max_skipped_steps),
                write=self._write,
                save=self._save,
                must_stop=lambda: interrupt.requested,
            )
            trainer: Any = make_trainer(
                self.network,
                self.examples,
                self.config,
                folder=Path(folder),
                processes=self.processes,
            )
            self._trainer = callback.trainer = trainer
            trainer.add_callback(callback)
            with self._kept_batch(trainer):
                trainer.train()
            done = int(trainer.state.global_step)
            self._save(done)
        self.processes.from_main(lambda: plot_tuning_run(self.run, self.config.kind))
        if callback.was_stopped and done < trainer.state.max_steps:
            raise KeyboardInterrupt

    def _prepare(self) -> None:
        self.run.prepare()
        self.run.write_text("config.yaml", dump_config(self.config))
        self.run.write_text("environment.json", json.dumps(describe_environment(), indent=2))
        check_room(self.run, policy_bytes(self.network))
        self.log = MetricsLog(self.run, report_to=self.config.report_to, config=self.config)

    def _write(self, phase: str, step: int, metrics: Mapping[str, float]) -> None:
        self.log.write(phase, step, metrics)
        loss = metrics.get("evaluation/loss")
        if loss is not None and step > 0 and (self.best is None or loss < self.best.value):
            self.best = BestCheckpoint(iteration=step, value=loss)
            self._save(step)

    def _save(self, step: int) -> None:
        """Write a checkpoint, once for each step."""
        if step != self._saved:
            self._saved = step
            state = self._gathered_state()
            self.processes.from_main(lambda: self._save_checkpoint(step, state))

    def _gathered_state(self) -> dict[str, Tensor] | None:
        """Return the whole weights where sharding has divided them; None where they are whole."""
        trainer = self._trainer
        if not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
            return None
        state: dict[str, Tensor] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
        return state

    def _save_checkpoint(self, step: int, state: Mapping[str, Tensor] | None) -> None:
        network, keep = self.network, self.config.keep_checkpoints
        if state is not None:
            network = self._whole = self._whole or self._load_network()
            network.lm.load_state_dict(state)
        check_room(self.run, policy_bytes(network))
        save_base(network, self.run)
        best = self.best
        with self.run.new_checkpoint(
            step, keep=keep, best=best.iteration if best else None
        ) as folder:
            network.save(folder / POLICY_FOLDER)
            state_row = {"iteration": step, "best": best.model_dump() if best else None}
            (folder / STATE_FILE).write_text(json.dumps(state_row))

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
