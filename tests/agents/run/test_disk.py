"""A disk that refuses: one error that says what is safe and what to do."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import Qwen2Config, Qwen2ForCausalLM

from textgym_agents.run.directory import STATE_FILE, RunDirectory
from textgym_agents.run.disk import DiskError, check_room, disk_errors


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "run")
    run.prepare()
    return run


@contextmanager
def files_limited_to(num_bytes: int) -> Iterator[None]:
    """Let the system refuse to write more than this into one file, in the middle of writing."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_with_python(folder: Path) -> None:
    (folder / "file").write_bytes(bytes(100_000))


def write_with_safetensors(folder: Path) -> None:
    save_file({"x": torch.zeros(100_000)}, folder / "file")


def write_with_transformers(folder: Path) -> None:
    config = Qwen2Config(
        vocab_size=1000, hidden_size=64, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    "write", [write_with_python, write_with_safetensors, write_with_transformers]
)
def test_a_write_that_fails_midway_leaves_what_was_saved(run: RunDirectory, write: object) -> None:
    assert callable(write)
    with run.new_checkpoint(1, keep=1) as folder:
        write(folder)
        (folder / STATE_FILE).write_text("{}")
    with (
        pytest.raises(DiskError, match=r"File too large.*up to iteration-0000001, is untouched"),
        files_limited_to(50_000),
        disk_errors(run),
        run.new_checkpoint(2, keep=1) as folder,
    ):
        write(folder)
    assert os.listdir(run.path / "checkpoints") == ["iteration-0000001"]
    assert run.latest_checkpoint() == run.checkpoint_path(1)


def test_the_errors_of_a_disk_are_told_from_others(run: RunDirectory) -> None:
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS):
        said = f"{os.strerror(number)}. Nothing has been saved yet: free some space"
        with pytest.raises(DiskError) as raised, disk_errors(run):
            raise OSError(number, os.strerror(number))
        assert said in str(raised.value)
    with pytest.raises(FileNotFoundError), disk_errors(run):
        (run.path / "none").read_text()
    with pytest.raises(RuntimeError, match="os error 2"), disk_errors(run):
        raise RuntimeError("no such file (os error 2)")


def test_room_is_checked_before_anything_is_written(run: RunDirectory) -> None:
    free = shutil.disk_usage(run.path).free
    check_room(run, free // 2)
    with pytest.raises(DiskError, match=r"the next checkpoint takes [\d,.]+ MB, and the disk has"):
        check_room(run, free * 2)
