"""What a checkpoint of SFT or DPO knows besides the policy, from which the run goes on exactly.

The order of the rows is a function of the seed and the step, and nothing else is random.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file

from textgym.errors import ConfigError
from textgym_agents.core.optimizer_state import optimizer_tensors, restore_optimizer
from textgym_agents.lm.checkpoint import OPTIMIZER_FILE, BestCheckpoint
from textgym_agents.lm.offline.data import Examples
from textgym_agents.run.directory import STATE_FILE


class TuningState(BaseModel):
    """The counters of a run at a checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    iteration: int
    """Steps done."""
    num_steps: int
    """Those of the whole run."""
    learning_rate: float
    """Of the next step."""
    num_skipped: int
    """Steps that were not finite."""
    skipped_in_a_row: int
    """Those since the last one that was taken."""
    metrics_size: int
    """Length of metrics.jsonl in bytes."""
    data: str
    """Digest of the rows."""
    best: BestCheckpoint | None
    """The one with the lowest held-out loss so far; None without held-out rows."""

    def save(self, folder: Path) -> None:
        """Write it into a checkpoint."""
        (folder / STATE_FILE).write_text(json.dumps(self.model_dump()))


def load_state(checkpoint: Path, examples: Examples) -> TuningState:
    """Read the state of a checkpoint that a run goes on from.

    Raises:
        ConfigError: the run cannot go on: its data have changed, or its weights were sharded.
    """
    state = TuningState.model_validate_json((checkpoint / STATE_FILE).read_bytes())
    if state.data != digest_of(examples):
        raise ConfigError(
            f"{checkpoint}: the rows are no longer those that the run learnt from; put the data "
            "back, or start a new run from the policy with --model"
        )
    if not (checkpoint / OPTIMIZER_FILE).exists():
        raise ConfigError(
            f"{checkpoint} has no state of the optimiser, since the weights were sharded; start a "
            "new run from the policy with --model"
        )
    return state


def digest_of(examples: Examples) -> str:
    """Return a digest of all rows, in their order."""
    rows = json.dumps([examples.train, examples.evaluation]).encode()
    return hashlib.sha256(rows).hexdigest()


def save_optimizer(trainer: Any, folder: Path) -> None:
    """Write the optimiser of TRL's trainer into a checkpoint."""
    save_file(optimizer_tensors(trainer.optimizer), folder / OPTIMIZER_FILE)


def restore_trainer(trainer: Any, checkpoint: Path, state: TuningState) -> None:
    """Bring the optimiser and the schedule of TRL's trainer to a checkpoint."""
    optimizer, scheduler = trainer.optimizer, trainer.lr_scheduler
    restore_optimizer(optimizer, load_file(checkpoint / OPTIMIZER_FILE))
    for group in optimizer.param_groups:
        group["lr"] = state.learning_rate
    scheduler.load_state_dict(
        scheduler.state_dict()
        | {
            "last_epoch": state.iteration,
            "_step_count": state.iteration + 1,
            "_last_lr": [state.learning_rate] * len(optimizer.param_groups),
        }
    )
