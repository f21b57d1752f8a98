"""Checkpoints: policy, optimiser and counters, from which a run goes on exactly.

There is no state of random generators to save: every stream is derived from the seed, its purpose
and the iteration. Tensors are safetensors files; nothing is unpickled.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file

from textgym.curriculum import CurriculumState
from textgym.errors import ConfigError
from textgym_agents.core.baselines import MovingBaseline
from textgym_agents.core.kl import EntropyFloor
from textgym_agents.core.optimizer_state import optimizer_tensors, restore_optimizer
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.policy_files import BASE_FOLDER, POLICY_FOLDER
from textgym_agents.run.directory import STATE_FILE, RunDirectory
from textgym_agents.run.disk import check_room
from textgym_agents.run.manifest import find_damage

OPTIMIZER_FILE = "optimizer.safetensors"
REFERENCE_FOLDER = "reference"
OTHER_BYTES = 16 << 20
"""Tokenizer, value head and text."""


class BestCheckpoint(BaseModel):
    """The checkpoint with the best value of a held-out metric."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    iteration: int
    value: float
    """Of the metric."""


class TrainState(BaseModel):
    """The counters of a run at a checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    iteration: int
    """Updates done."""
    beta: float
    """The KL penalty's current weight."""
    skipped_in_a_row: int
    """Steps that were not finite since the last one that was taken."""
    metrics_size: int
    """Length of metrics.jsonl in bytes."""
    best: BestCheckpoint | None
    """The best one so far, which stays; None before the metric was first known."""
    first_entropies: tuple[float, ...] = ()
    """What the entropy floor is taken from."""
    baselines: dict[str, float] = {}
    """The moving baseline of REINFORCE, by domain."""
    curriculum: CurriculumState | None = None
    """Where the curriculum stands, if there is one."""


def save_checkpoint(
    agent: PPOAgent,
    run: RunDirectory,
    iteration: int,
    best: BestCheckpoint | None,
    curriculum: CurriculumState | None = None,
) -> None:
    """Write a checkpoint after `iteration` updates; it counts once it is complete.

    Raises:
        DiskError: there is no room for it; what was saved before is untouched.
    """
    check_room(run, checkpoint_bytes(agent.network))
    _save_frozen_parts(agent, run)
    keep, best_iteration = agent.config.keep_checkpoints, best.iteration if best else None
    with run.new_checkpoint(iteration, keep=keep, best=best_iteration) as folder:
        agent.save(folder / POLICY_FOLDER)
        save_file(optimizer_tensors(agent.optimizer), folder / OPTIMIZER_FILE)
        state = TrainState(
            iteration=iteration,
            beta=agent.kl_controller.beta,
            skipped_in_a_row=agent.guard.num_in_a_row,
            metrics_size=run.metrics_size(),
            best=best,
            first_entropies=tuple(agent.entropy_floor.first),
            baselines=agent.baseline.means,
            curriculum=curriculum,
        )
        (folder / STATE_FILE).write_text(json.dumps(state.model_dump()))


def checkpoint_bytes(network: PolicyValueNetwork) -> int:
    """Return about how many bytes a checkpoint takes once the optimiser has taken a step.

    All weights, or those of the adapter; two moments of each that learns; what else there is.
    """
    return policy_bytes(network) + 2 * sum(p.nbytes for p in network.trainable())


def policy_bytes(network: PolicyValueNetwork) -> int:
    """Return about how many bytes a saved policy takes."""
    saved = network.trainable() if network.peft is not None else network.lm.parameters()
    return sum(p.nbytes for p in saved) + OTHER_BYTES


def _save_frozen_parts(agent: PPOAgent, run: RunDirectory) -> None:
    """Write what never changes once per run: the base of an adapter, the reference policy."""
    save_base(agent.network, run)
    if agent.reference is not None and not (run.path / REFERENCE_FOLDER).exists():
        with run.new_part(REFERENCE_FOLDER) as folder:
            agent.reference.save(folder)


def save_base(network: PolicyValueNetwork, run: RunDirectory) -> None:
    """Write the base of an adapter that can be loaded from nowhere, once per run."""
    if network.peft is not None and network.base_path is None:
        with run.new_part(BASE_FOLDER) as folder:
            network.save_base(folder)
        network.base_path = str((run.path / BASE_FOLDER).resolve())


def find_checkpoint(run: RunDirectory, *, best: bool = False) -> Path:
    """Return the newest checkpoint of a run, or the best that it knows.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    newest = run.latest_checkpoint()
    if newest is None:
        raise ConfigError(f"{run.path} has no checkpoint yet; continue it with --resume {run.path}")
    if not best:
        return newest
    stored = json.loads((newest / STATE_FILE).read_text())["best"]
    known = BestCheckpoint.model_validate(stored) if stored else None
    if known is None:
        raise ConfigError(f"{run.path}: no checkpoint is the best, since none was evaluated")
    path = run.checkpoint_path(known.iteration)
    if damage := find_damage(path):
        raise ConfigError(f"{path}, the best checkpoint, is damaged: {damage}")
    return path


def load_checkpoint(agent: PPOAgent, run: RunDirectory, folder: Path) -> TrainState:
    """Bring an agent, whose network was loaded from the checkpoint, to the checkpoint's state."""
    state = TrainState.model_validate_json((folder / STATE_FILE).read_text())
    restore_optimizer(agent.optimizer, load_file(folder / OPTIMIZER_FILE))
    agent.kl_controller.beta = state.beta
    agent.guard.num_in_a_row = state.skipped_in_a_row
    agent.entropy_floor = EntropyFloor(list(state.first_entropies))
    agent.baseline = MovingBaseline(state.baselines)
    if (run.path / REFERENCE_FOLDER).exists():
        reference = PolicyValueNetwork.load(run.path / REFERENCE_FOLDER)
        reference.temperature = agent.network.temperature
        agent.reference = reference.requires_grad_(False).to(agent.network.device)
    return state
