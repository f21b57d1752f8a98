"""Fixtures of the SDK's tests: distributions with plugins, as pip would leave them."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

import pytest

from textgym.plugins import PluginManager, plugin_manager

Install = Callable[..., None]

BREVITY = """
    from typing import ClassVar
    import textgym
    from pydantic import PositiveInt

    class Brevity(textgym.Reward):
        name: ClassVar[str] = "brevity"
        isolation: ClassVar[str] = "inline"
        max_words: PositiveInt = 50

        def score(self, sample):
            words = len(sample.completion.split())
            return textgym.Score(max(0.0, 1.0 - words / self.max_words), reason=f"{words} words")

    @textgym.hookimpl
    def textgym_rewards():
        return [Brevity]
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return a function that lays out an installed distribution with one plugin module."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    names: list[str] = []

    def install(
        distribution: str, source: str, *, version: str = "0.1.0", plugin: str | None = None
    ) -> None:
        module = distribution.replace("-", "_")
        plugin = plugin or distribution.removeprefix("textgym-")
        info = site / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        (info / "entry_points.txt").write_text(f"[textgym]\n{plugin} = {module}\n")
        (site / f"{module}.py").write_text(textwrap.dedent(source))
        names.append(module)
        plugin_manager.cache_clear()

    yield install
    for name in names:
        sys.modules.pop(name, None)
    plugin_manager.cache_clear()


@pytest.fixture
def load(install: Install, tmp_path: Path) -> Callable[..., PluginManager]:
    """Return a function that loads only the plugins that the test has installed."""

    def load(select: str = "auto") -> PluginManager:
        found: list[EntryPoint] = []
        for distribution in distributions(path=[str(tmp_path / "site")]):
            found += distribution.entry_points.select(group="textgym")
        return PluginManager(found=found, select=select)

    return load


@pytest.fixture(scope="session")
def reference_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny causal language model with 64 ids and random weights."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("reference")
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=32,
        tie_word_embeddings=True,
    )  # fmt: skip
    transformers.Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder
