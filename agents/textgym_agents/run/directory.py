"""`runs/NAME/`: configuration, environment, metrics, rollouts, TensorBoard events, checkpoints.

Every file is complete whenever the process is killed: whole files are written beside their place
and renamed, and `metrics.jsonl` grows by whole lines. A checkpoint remembers how long the metrics
were, so a resumed run cuts off what came after it and writes the same lines again. It also lists
its files, so one that was damaged later is found, and the one before it is taken.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from textgym.config import read_yaml
from textgym.errors import ConfigError
from textgym_agents.run.manifest import FILE as MANIFEST
from textgym_agents.run.manifest import find_damage, write_manifest

CHECKPOINT_PREFIX = "iteration-"
ASIDE_PREFIX = "aside-"
PARTIAL_PREFIX = ".partial-"
STATE_FILE = "state.json"
_START_AGAIN = "start again with another --run"


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
        """Make the folder and those in it, and remove what a killed process left half written.

        Raises:
            ConfigError: the file system refuses.
        """
        try:
            for name in ("checkpoints", "rollouts", "tensorboard"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
            for folder in (self.path, self.path / "checkpoints"):
                for partial in folder.glob(f"{PARTIAL_PREFIX}*"):
                    shutil.rmtree(partial)
        except OSError as error:
            raise ConfigError(
                f"the run directory {self.path} cannot be made: {error.strerror}; choose another "
                "--run"
            ) from None

    @property
    def kind(self) -> str:
        """The command that made the run: `train`, `sft` or `dpo`."""
        path = self.path / "config.yaml"
        return str(read_yaml(path).get("kind", "train")) if path.exists() else "train"

    def check_kind(self, kind: str) -> None:
        """See that a command can continue the run.

        Raises:
            ConfigError: it was made by another one.
        """
        if self.kind != kind:
            raise ConfigError(
                f"{self.path} is a run of `textgym {self.kind}`; continue it with: textgym "
                f"{self.kind} --resume {self.path}"
            )

    @property
    def metrics_path(self) -> Path:
        """One JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def plot_path(self) -> Path:
        """The curves of the run."""
        return self.path / "curves.png"

    @property
    def report_path(self) -> Path:
        """The page of the run."""
        return self.path / "report.html"

    def write_text(self, name: str, text: str) -> None:
        """Write a whole file atomically."""
        write_atomically(self.path / name, text)

    def remove(self, name: str) -> None:
        """Delete a file."""
        (self.path / name).unlink()

    def write_rollouts(self, name: str, records: Sequence[Mapping[str, Any]]) -> None:
        """Write the sampled episodes of one iteration or evaluation."""
        write_records(self.path / "rollouts" / f"{name}.jsonl", records)

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
        """Cut metrics.jsonl off at a length that a checkpoint remembers, after a whole line."""
        if self.metrics_path.exists():
            kept = self.metrics_path.read_bytes()[:size]
            os.truncate(self.metrics_path, kept.rfind(b"\n") + 1)

    # Checkpoints ---------------------------------------------------------------------------------

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints, oldest first; each was complete when it got its name."""
        found = (self.path / "checkpoints").glob(f"{CHECKPOINT_PREFIX}*")
        return sorted(found, key=_iteration_of)

    def latest_checkpoint(self) -> Path | None:
        """Return the newest checkpoint whose files are as they were written; None without any.

        One that is damaged is left out with a warning.

        Raises:
            ConfigError: all of them are damaged, or what all of them need is.
        """
        found = self.checkpoints()
        for checkpoint in reversed(found):
            if damage := find_damage(checkpoint):
                warnings.warn(f"{checkpoint} is damaged and left out: {damage}", stacklevel=2)
                continue
            self._check_parts()
            return checkpoint
        if found:
            raise ConfigError(f"{self.path} has no checkpoint that is whole; {_START_AGAIN}")
        return None

    def _check_parts(self) -> None:
        for manifest in self.path.glob(f"*/{MANIFEST}"):
            if damage := find_damage(manifest.parent):
                raise ConfigError(
                    f"{manifest.parent} is damaged, and every checkpoint of the run needs it: "
                    f"{damage}; {_START_AGAIN}"
                )

    def set_aside_after(self, checkpoint: Path) -> None:
        """Rename the checkpoints after one that a run goes on from: they are not its own."""
        for later in self.checkpoints():
            if _iteration_of(later) > _iteration_of(checkpoint):
                aside = later.with_name(ASIDE_PREFIX + later.name)
                shutil.rmtree(aside, ignore_errors=True)
                later.rename(aside)

    @contextmanager
    def new_checkpoint(
        self, iteration: int, *, keep: int, best: int | None = None
    ) -> Iterator[Path]:
        """Give an empty folder to write a checkpoint into, which counts once the context ends.

        Nothing stays of one that could not be written to its end.

        Args:
            iteration: names the checkpoint.
            keep: how many of the latest stay; older ones are deleted.
            best: iteration of one more that stays.
        """
        with _written_whole(self.checkpoint_path(iteration)) as folder:
            yield folder
        for old in self.checkpoints()[:-keep]:
            if best is None or old != self.checkpoint_path(best):
                shutil.rmtree(old)

    def checkpoint_path(self, iteration: int) -> Path:
        """Return the folder of a checkpoint."""
        return self.path / "checkpoints" / f"{CHECKPOINT_PREFIX}{iteration:07d}"

    @contextmanager
    def new_part(self, name: str) -> Iterator[Path]:
        """Give a folder to write something into that all checkpoints need, and never changes."""
        with _written_whole(self.path / name) as folder:
            yield folder


def _iteration_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix(CHECKPOINT_PREFIX))


@contextmanager
def _written_whole(final: Path) -> Iterator[Path]:
    """Give an empty folder that gets a manifest and its name when the context ends.

    Nothing stays of one that could not be written to its end.
    """
    folder = final.with_name(PARTIAL_PREFIX + final.name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
        write_manifest(folder)
        _sync_tree(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(final, ignore_errors=True)
    folder.rename(final)
    _sync(final.parent)


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one, never a part."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write a whole JSONL file atomically."""
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    # Half a character, which JSON can hold and UTF-8 cannot, must not cost the run.
    write_atomically(path, lines.encode("utf-8", "replace").decode("utf-8"))


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


def rows_of(rows: list[dict[str, Any]], phase: str) -> list[dict[str, Any]]:
    """Return the rows of one phase."""
    return [row for row in rows if row["phase"] == phase]
