"""`runs/NAME/`: configuration, environment, metrics, rollouts, TensorBoard events, checkpoints.

Every file is complete whenever the process is killed: whole files are written beside their place
and renamed, and `metrics.jsonl` grows by whole lines. A checkpoint remembers how long the metrics
were, so a resumed run cuts off what came after it and writes the same lines again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from textgym.errors import ConfigError

CHECKPOINT_PREFIX = "iteration-"
STATE_FILE = "state.json"


class RunDirectory:
    """One run's folder.

    Args:
        path: the folder; `prepare` makes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> RunDirectory:
        """Choose the folder of a new run; nothing is made yet.

        Raises:
            ConfigError: the folder holds a run already, or is a file.
        """
        if path.exists() and not path.is_dir():
            raise ConfigError(f"--run {path} is a file; choose a folder")
        if (path / "config.yaml").exists():
            raise ConfigError(
                f"{path} holds a run already; continue it with --resume {path}, or choose another "
                "--run"
            )
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Open the folder of a run to continue or evaluate it."""
        if not (path / "config.yaml").exists():
            raise ConfigError(f"{path} is not a run directory: it has no config.yaml")
        return cls(path)

    def prepare(self) -> None:
        """Make the folder and those in it.

        Raises:
            ConfigError: the file system refuses.
        """
        try:
            for name in ("checkpoints", "rollouts", "tensorboard"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"the run directory {self.path} cannot be made: {error.strerror}; choose another "
                "--run"
            ) from None

    @property
    def metrics_path(self) -> Path:
        """One JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def plot_path(self) -> Path:
        """The curves of the run."""
        return self.path / "curves.png"

    def write_text(self, name: str, text: str) -> None:
        """Write a whole file atomically."""
        write_atomically(self.path / name, text)

    def remove(self, name: str) -> None:
        """Delete a file."""
        (self.path / name).unlink()

    def write_rollouts(self, name: str, records: Sequence[Mapping[str, Any]]) -> None:
        """Write the sampled episodes of one iteration or evaluation."""
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        write_atomically(self.path / "rollouts" / f"{name}.jsonl", lines)

    # Metrics -------------------------------------------------------------------------------------

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl and push it to the disk."""
        with self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the rows of metrics.jsonl."""
        if not self.metrics_path.exists():
            return []
        lines = self.metrics_path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def metrics_size(self) -> int:
        """Return the length of metrics.jsonl in bytes."""
        return self.metrics_path.stat().st_size if self.metrics_path.exists() else 0

    def truncate_metrics(self, size: int) -> None:
        """Cut metrics.jsonl off at a length that a checkpoint remembers."""
        if self.metrics_path.exists():
            os.truncate(self.metrics_path, size)

    # Checkpoints ---------------------------------------------------------------------------------

    def checkpoints(self) -> list[Path]:
        """Return the complete checkpoints, oldest first."""
        found = (self.path / "checkpoints").glob(f"{CHECKPOINT_PREFIX}*/{STATE_FILE}")
        return sorted((state.parent for state in found), key=_iteration_of)

    def latest_checkpoint(self) -> Path | None:
        """Return the newest complete checkpoint."""
        found = self.checkpoints()
        return found[-1] if found else None

    def begin_checkpoint(self, iteration: int) -> Path:
        """Return an empty folder to write a checkpoint into; it does not count until committed."""
        folder = self.path / "checkpoints" / f".partial-{iteration:07d}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def commit_checkpoint(self, folder: Path, iteration: int, *, keep: int) -> Path:
        """Make a checkpoint count with one rename, and delete the oldest ones."""
        _sync_tree(folder)
        final = folder.with_name(f"{CHECKPOINT_PREFIX}{iteration:07d}")
        shutil.rmtree(final, ignore_errors=True)
        folder.rename(final)
        _sync(final.parent)
        for old in self.checkpoints()[:-keep]:
            shutil.rmtree(old)
        return final


def _iteration_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix(CHECKPOINT_PREFIX))


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one, never a part."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
