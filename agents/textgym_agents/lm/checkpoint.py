"""Checkpoints: policy, optimiser and counters, from which a run goes on exactly.

There is no state of random generators to save: every stream is derived from the seed, its purpose
and the iteration. Tensors are safetensors files; nothing is unpickled.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file

from textgym_agents.core.baselines import MovingBaseline
from textgym_agents.core.kl import EntropyFloor
from textgym_agents.core.optimizer_state import optimizer_tensors, restore_optimizer
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.run.directory import STATE_FILE, RunDirectory

POLICY_FOLDER = "policy"
OPTIMIZER_FILE = "optimizer.safetensors"
REFERENCE_FOLDER = "reference"
BASE_FOLDER = "base"


class TrainState(BaseModel):
    """The counters of a run at a checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    iteration: int
    """Updates done."""
    beta: float
    """The KL penalty's current weight."""
    metrics_size: int
    """Length of metrics.jsonl in bytes."""
    first_entropies: tuple[float, ...] = ()
    """What the entropy floor is taken from."""
    baselines: dict[str, float] = {}
    """The moving baseline of REINFORCE, by domain."""


def save_checkpoint(agent: PPOAgent, run: RunDirectory, iteration: int) -> Path:
    """Write a checkpoint after `iteration` updates; it counts once it is complete."""
    folder = run.begin_checkpoint(iteration)
    _save_frozen_parts(agent, run)
    agent.save(folder / POLICY_FOLDER)
    save_file(optimizer_tensors(agent.optimizer), folder / OPTIMIZER_FILE)
    state = TrainState(
        iteration=iteration,
        beta=agent.kl_controller.beta,
        metrics_size=run.metrics_size(),
        first_entropies=tuple(agent.entropy_floor.first),
        baselines=agent.baseline.means,
    )
    (folder / STATE_FILE).write_text(json.dumps(state.model_dump()))
    return run.commit_checkpoint(folder, iteration, keep=agent.config.keep_checkpoints)


def _save_frozen_parts(agent: PPOAgent, run: RunDirectory) -> None:
    """Write what never changes once per run: the base of an adapter, the reference policy."""
    network, base = agent.network, run.path / BASE_FOLDER
    if network.peft is not None and network.base_path is None:
        network.save_base(base)
    reference = run.path / REFERENCE_FOLDER
    if agent.reference is not None and not reference.exists():
        partial = reference.with_name(f".{REFERENCE_FOLDER}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        agent.reference.save(partial)
        partial.rename(reference)


def load_checkpoint(agent: PPOAgent, run: RunDirectory, folder: Path) -> TrainState:
    """Bring an agent, whose network was loaded from the checkpoint, to the checkpoint's state."""
    state = TrainState.model_validate_json((folder / STATE_FILE).read_text())
    restore_optimizer(agent.optimizer, load_file(folder / OPTIMIZER_FILE))
    agent.kl_controller.beta = state.beta
    agent.entropy_floor = EntropyFloor(list(state.first_entropies))
    agent.baseline = MovingBaseline(state.baselines)
    if (run.path / REFERENCE_FOLDER).exists():
        reference = PolicyValueNetwork.load(run.path / REFERENCE_FOLDER)
        reference.temperature = agent.network.temperature
        agent.reference = reference.requires_grad_(False).to(agent.network.device)
    run.truncate_metrics(state.metrics_size)
    return state
