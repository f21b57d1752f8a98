"""A mark of the weights in a folder, so that answers of one model are never taken for another's."""

from __future__ import annotations

from pathlib import Path


def weights_mark(folder: Path) -> str:
    """Return a mark that changes when a local model is trained on; empty for anything else.

    It is made of sizes and times: to read gigabytes of weights would take longer than most suites.
    """
    files = sorted(folder.rglob("*.safetensors")) if folder.is_dir() else []
    marks = [f"{f.relative_to(folder)}:{f.stat().st_size}:{f.stat().st_mtime_ns}" for f in files]
    return " ".join([folder.name, *marks]) if marks else ""
