"""What an algorithm of Stable-Baselines3 knows besides its weights, as JSON, tensors and arrays.

Nothing is pickled. Counters and the replay buffer are those of the attributes that the algorithms
keep from one update to the next, so that a loaded one goes on as it would have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize

COUNTERS = (
    "num_timesteps", "_episode_num", "_n_updates", "_n_calls", "exploration_rate",
    "_current_progress_remaining",
)  # fmt: skip
BUFFER_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
REPLAY_FILE = "replay.npz"


def read_counters(model: BaseAlgorithm) -> dict[str, int | float]:
    """Return the numbers that an algorithm has of `COUNTERS`."""
    return {name: getattr(model, name) for name in COUNTERS if hasattr(model, name)}


def restore_counters(model: BaseAlgorithm, counters: dict[str, int | float]) -> None:
    """Bring a new algorithm to what `read_counters` returned."""
    for name, value in counters.items():
        setattr(model, name, value)


def replay_buffer(model: BaseAlgorithm) -> ReplayBuffer | None:
    """Return the replay buffer of an algorithm; None where it has none."""
    return getattr(model, "replay_buffer", None)


def cut_episodes(model: BaseAlgorithm) -> None:
    """Mark the last steps of the replay buffer as cut: the next ones are of other episodes."""
    buffer = replay_buffer(model)
    if buffer is not None:
        last = (buffer.pos - 1) % buffer.buffer_size
        if buffer.handle_timeout_termination:
            buffer.timeouts[last] = np.where(buffer.dones[last], buffer.timeouts[last], 1.0)
        buffer.dones[last] = 1.0


def save_replay(folder: Path, model: BaseAlgorithm) -> None:
    """Write the part of the replay buffer that is filled; nothing where there is none."""
    buffer = replay_buffer(model)
    if buffer is None:
        return
    # One row more: the buffer that saves memory keeps the last next observation there.
    used = buffer.buffer_size if buffer.full else min(buffer.pos + 1, buffer.buffer_size)
    arrays = {n: getattr(buffer, n)[:used] for n in BUFFER_ARRAYS if hasattr(buffer, n)}
    place = {"position": np.array(buffer.pos), "is_full": np.array(buffer.full)}
    np.savez_compressed(folder / REPLAY_FILE, **place, **arrays)  # type: ignore[arg-type]  # numpy's stub takes **arrays for its flag


def load_replay(folder: Path, model: BaseAlgorithm) -> None:
    """Fill the replay buffer of a new algorithm as `save_replay` found it."""
    buffer = replay_buffer(model)
    if buffer is None:
        return
    with np.load(folder / REPLAY_FILE, allow_pickle=False) as saved:
        buffer.pos, buffer.full = int(saved["position"]), bool(saved["is_full"])
        for name in BUFFER_ARRAYS:
            if hasattr(buffer, name):
                array = saved[name]
                getattr(buffer, name)[: len(array)] = array


def read_statistics(normalize: VecNormalize | None) -> dict[str, torch.Tensor]:
    """Return the running statistics of a `VecNormalize` as tensors."""
    if normalize is None:
        return {}
    known = {"observations": normalize.obs_rms, "rewards": normalize.ret_rms}
    return {
        f"{name}.{part}": torch.as_tensor(np.asarray(getattr(statistics, part)))
        for name, statistics in known.items()
        if hasattr(statistics, "mean")
        for part in ("mean", "var", "count")
    }


def restore_statistics(normalize: VecNormalize | None, tensors: dict[str, torch.Tensor]) -> None:
    """Bring a `VecNormalize` to what `read_statistics` returned."""
    for name, tensor in tensors.items():
        owner, _, part = name.partition(".")
        statistics: Any = getattr(normalize, "obs_rms" if owner == "observations" else "ret_rms")
        setattr(statistics, part, float(tensor) if part == "count" else tensor.numpy())
