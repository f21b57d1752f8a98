"""The notebooks run, and cells that leave nothing to chance print what is stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
MAX_BYTES = 120_000


def printed(notebook: nbformat.NotebookNode) -> Iterator[tuple[str, str]]:
    """Yield source and output of the cells that are marked as exact."""
    for cell in notebook.cells:
        if "exact" in cell.metadata.get("tags", ()):
            texts = [output.text for output in cell.outputs if output.get("name") == "stdout"]
            yield cell.source, "".join(texts)


def test_there_are_notebooks() -> None:
    assert len(NOTEBOOKS) == 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_says_what_is_stored(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    stored = nbformat.read(path, as_version=4)
    run = nbformat.read(path, as_version=4)
    NotebookClient(run, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert list(printed(stored)), "no cell is marked as exact"
    assert list(printed(run)) == list(printed(stored))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_clean(path: Path) -> None:
    """Outputs are stored for readers; warnings and paths of one machine are not."""
    nbformat.validate(nbformat.read(path, as_version=4))
    assert path.stat().st_size < MAX_BYTES
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", ()):
            assert output.output_type != "error"
            assert output.get("name") != "stderr"
            assert "/tmp" not in str(output)
