"""TRL's trainers on our rows of ids, and the callback that keeps our run directory.

The loss, the batches and the step are TRL's. Ours are the ids, the place where metrics and
checkpoints go, what Ctrl-C does, and that a gradient which is not finite costs its step alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset  # type: ignore[import-untyped]  # it has no stubs
from torch import Tensor
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from textgym.seeding import Purpose, derive_seed
from textgym_agents.core.guard import StepGuard
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.offline.config import DPORunConfig, TuningConfig
from textgym_agents.lm.offline.data import Encoded, Examples
from textgym_agents.processes import Processes
from textgym_agents.run.progress import Progress

TRAINER_STATE_NAME = "trainer_state.json"
IGNORED = -100
"""The label of tokens that are not learnt."""
LEFT_OUT = ("epoch", "total_flos", "train_", "_runtime", "_per_second", "num_tokens")
"""Parts of the names of what TRL logs and the run directory does not need."""


class RunMixin:
    """Leaves saving and going on to the run, and keeps the inputs of the last step for it."""

    last_inputs: Mapping[str, Tensor] | None = None
    save: Callable[[], None]
    """Writes a checkpoint of ours; called once the metrics of its step are written."""
    restore: Callable[[], None]
    """Brings optimiser and schedule to where the run goes on."""

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Do what TRL does."""
        self.last_inputs = inputs
        loss: Tensor = super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        return loss

    def _save_checkpoint(self, *_: Any) -> None:
        self.save()

    def _load_from_checkpoint(self, *_: Any) -> None:
        """Do nothing: the network was loaded before."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self.restore()


class IdsSFTTrainer(RunMixin, SFTTrainer):
    """TRL's SFT trainer; rows with `input_ids` and `labels` it takes as they are."""


class IdsDPOTrainer(RunMixin, DPOTrainer):
    """TRL's DPO trainer on rows of ids, which it would otherwise make of text."""

    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        return dataset


def make_trainer(
    network: PolicyValueNetwork,
    examples: Examples,
    config: TuningConfig,
    *,
    folder: Path,
    processes: Processes,
    reference: PolicyValueNetwork | None = None,
    done: int = 0,
) -> Trainer:
    """Return TRL's trainer of a configuration.

    Args:
        network: what learns; its adapter if it has one.
        examples: what from.
        config: how.
        folder: where TRL may write; nothing of it is needed afterwards.
        processes: those of the run.
        reference: of DPO; None is the network as it is.
        done: steps of the run that are behind it; `folder` gets what TRL asks about them.
    """
    datasets = {
        split: Dataset.from_list([_row(row, config) for row in rows]) if rows else None
        for split, rows in (("train", examples.train), ("eval", examples.evaluation))
    }
    arguments = _arguments(network, config, folder, processes, bool(examples.evaluation))
    if done:
        arguments["eval_on_start"] = False
        state = TrainerState(
            global_step=done,
            logging_steps=1,
            eval_steps=config.evaluate_every,
            train_batch_size=config.micro_batch(processes.size),
        )
        state.save_to_json(str(folder / TRAINER_STATE_NAME))
    common: dict[str, Any] = {
        "model": network.lm,
        "train_dataset": datasets["train"],
        "eval_dataset": datasets["eval"],
        "processing_class": network.tokenizer,
    }
    trainer: Trainer
    if isinstance(config, DPORunConfig):
        settings = DPOConfig(**arguments, beta=config.beta, **_loss(config))
        frozen = reference or network.frozen_copy()
        trainer = IdsDPOTrainer(ref_model=frozen.lm, args=settings, **common)
    else:
        trainer = IdsSFTTrainer(args=SFTConfig(**arguments), **common)
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    return trainer


def _loss(config: DPORunConfig) -> dict[str, Any]:
    """Return TRL's settings of a loss.

    TRL's `sigmoid` ignores label smoothing. With a = softplus(-beta D) and c = softplus(beta D),
    its `robust` is r = ((1 - s) a - s c) / (1 - 2 s), so (1 - s) a + s c is
    2 (1 - s) a - (1 - 2 s) r.
    """
    s = config.label_smoothing
    if s == 0:
        return {"loss_type": [config.loss]}
    return {
        "loss_type": ["sigmoid", "robust"],
        "loss_weights": [2 * (1 - s), 2 * s - 1],
        "label_smoothing": s,
    }


def _row(row: Encoded, config: TuningConfig) -> dict[str, list[int]]:
    if isinstance(config, DPORunConfig):
        return {f"{name}_ids": ids for name, ids in row.items()}
    prompt, completion = row["prompt"], row["completion"]
    return {
        "input_ids": prompt + completion,
        "labels": [IGNORED] * len(prompt) + completion,
    }


def _arguments(
    network: PolicyValueNetwork,
    config: TuningConfig,
    folder: Path,
    processes: Processes,
    has_held_out: bool,
) -> dict[str, Any]:
    on_gpu, rows = network.device.type == "cuda", config.micro_batch(processes.size)
    return {
        "output_dir": str(folder),
        "num_train_epochs": config.epochs,
        "max_steps": config.steps or -1,
        "per_device_train_batch_size": rows,
        "per_device_eval_batch_size": rows,
        "gradient_accumulation_steps": config.batch_size // (rows * processes.size),
        "learning_rate": config.peak_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": config.warmup_share,
        "max_grad_norm": config.max_grad_norm,
        "max_length": None,  # the encoder has cut them
        "seed": derive_seed(config.seed, Purpose.SHUFFLING),
        "bf16": config.policy.precision == "bf16",
        "use_cpu": not on_gpu,
        "gradient_checkpointing": config.policy.gradient_checkpointing,
        "dataloader_pin_memory": on_gpu,
        "ddp_find_unused_parameters": False,
        "save_strategy": "no",
        "eval_strategy": "steps" if has_held_out else "no",
        "eval_steps": config.evaluate_every,
        "eval_on_start": has_held_out,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
    }


class RunCallback(TrainerCallback):
    """Tells a run what TRL does, and TRL when to stop.

    Args:
        config: of the run.
        processes: those of the run.
        progress: told of each step.
        guard: counts steps that are not finite.
        write: takes phase, step and metrics; returns whether a checkpoint is to follow.
        must_stop: whether Ctrl-C was pressed.
    """

    def __init__(
        self,
        config: TuningConfig,
        processes: Processes,
        progress: Progress,
        guard: StepGuard,
        *,
        write: Callable[[str, int, Mapping[str, float]], bool],
        must_stop: Callable[[], bool],
    ) -> None:
        self.config, self.processes, self.progress, self.guard = config, processes, progress, guard
        self._write, self._must_stop = write, must_stop
        self.trainer: Any = None
        self.was_stopped = False
        self.num_skipped = 0
        self._num_tokens, self._since = 0.0, time.perf_counter()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Show a bar."""
        self.progress.start_phase(self.config.kind.upper(), state.max_steps, state.global_step)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Take the gradients away from a step that would spoil the weights.

        Raises:
            NotFiniteError: it was one too many.
        """
        model = self.trainer.model
        norms = [p.grad.norm() for p in model.parameters() if p.grad is not None]
        if all(bool(norm.isfinite()) for norm in norms):
            self.guard.take()
            return
        self.num_skipped += 1
        model.zero_grad(set_to_none=True)
        self.guard.skip(self.trainer.last_inputs)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Save where it is time, and stop where asked to."""
        self.was_stopped = self.processes.any(self._must_stop())
        control.should_training_stop |= self.was_stopped
        is_due = state.global_step % self.config.checkpoint_every == 0
        is_last = state.global_step >= state.max_steps
        control.should_save |= is_due or is_last or self.was_stopped

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Keep the metrics of a step, or of the held-out rows."""
        if not logs:
            return
        kind, phase, prefix = self.config.kind, "evaluation", "eval_"
        if "loss" in logs:
            phase, prefix = kind, ""
        elif "eval_loss" not in logs:
            return  # the summary of TRL
        metrics = {
            f"{phase}/{name.removeprefix(prefix)}": float(value)
            for name, value in logs.items()
            if not any(part in name for part in LEFT_OUT)
        }
        if phase == kind:
            metrics |= {f"{kind}/skipped_steps": float(self.num_skipped), **self._speed(logs)}
            self.progress.advance(metrics, metrics["time/tokens_per_second"])
        control.should_save |= self._write(phase, state.global_step, metrics)

    def _speed(self, logs: Mapping[str, float]) -> dict[str, float]:
        now, num_tokens = time.perf_counter(), float(logs.get("num_tokens", math.nan))
        per_second = (num_tokens - self._num_tokens) / (now - self._since)
        self._since, self._num_tokens = now, num_tokens
        return {"time/tokens_per_second": per_second}


def input_records(
    network: PolicyValueNetwork, inputs: Mapping[str, Tensor]
) -> Sequence[dict[str, Any]]:
    """Return a record per row of a batch of TRL: its ids, which are learnt, and their text."""
    ids, mask = inputs["input_ids"].cpu(), inputs["attention_mask"].cpu().bool()
    learnt = inputs["labels"] != IGNORED if "labels" in inputs else inputs["completion_mask"]
    learnt = learnt.cpu().bool() & mask
    return [
        {
            "text": network.tokenizer.decode(row[real]),
            "ids": row[real].tolist(),
            "learnt": picked[real].int().tolist(),
        }
        for row, real, picked in zip(ids, mask, learnt, strict=True)
    ]
