"""The dependency arrow: plugins, envs and agents import the SDK; the SDK imports none of them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "textgym": ROOT / "textgym",
    "textgym_plugins": ROOT / "plugins" / "textgym_plugins",
    "textgym_envs": ROOT / "envs" / "textgym_envs",
    "textgym_agents": ROOT / "agents" / "textgym_agents",
}
ALLOWED = {
    "textgym": {"textgym"},
    "textgym_plugins": {"textgym_plugins", "textgym"},
    "textgym_envs": {"textgym_envs", "textgym"},
    "textgym_agents": {"textgym_agents", "textgym"},
}


def imported_packages(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and top-level package of each import, also those inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.lineno, str(node.module).partition(".")[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            if node.args and isinstance(node.args[0], ast.Constant):
                yield node.lineno, str(node.args[0].value).partition(".")[0]


def forbidden_imports(package: str, source: str) -> list[tuple[int, str]]:
    others = set(FOLDERS) - ALLOWED[package]
    return [(line, name) for line, name in imported_packages(source) if name in others]


@pytest.mark.parametrize("package", sorted(FOLDERS))
def test_package_imports_only_along_the_arrow(package: str) -> None:
    files = sorted(FOLDERS[package].rglob("*.py"))
    assert files
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in files
        for line, name in forbidden_imports(package, path.read_text(encoding="utf-8"))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "source",
    [
        "import textgym_envs.textgen",
        "def f():\n    from textgym_envs import x",
        "importlib.import_module('textgym_envs.x')",
    ],
)
def test_forbidden_imports_are_found(source: str) -> None:
    assert [name for _, name in forbidden_imports("textgym_agents", source)] == ["textgym_envs"]


def test_import_textgym_loads_nothing_heavy() -> None:
    heavy = [
        "torch", "transformers", "rich", "yaml", "stable_baselines3", "pandas", "sympy",
        "math_verify", "matplotlib", "cloudpickle", "multiprocessing", "subprocess",
        "textgym_plugins", "textgym_envs", "textgym_agents",
    ]  # fmt: skip
    program = (
        "import sys, gymnasium, pydantic, pluggy; before = set(sys.modules); import textgym; "
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "textgym" in loaded
    assert loaded & set(heavy) == set()


def test_every_public_name_is_there_and_sorted() -> None:
    import textgym

    assert textgym.__all__ == sorted(textgym.__all__)
    assert all(hasattr(textgym, name) for name in textgym.__all__)
    assert set(textgym.__all__) <= set(dir(textgym))
    with pytest.raises(AttributeError, match="module 'textgym' has no attribute 'Rubrik'"):
        _ = textgym.Rubrik  # type: ignore[attr-defined]  # that it is not there is the point
