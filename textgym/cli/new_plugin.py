"""`textgym new-plugin NAME`: write a small distribution with one reward, complete and tested.

What is written passes its own tests and the conformance kit as soon as it is installed; the author
changes it from there. The files are in `textgym/templates/plugin`.
"""

from __future__ import annotations

import importlib.util
import re
from argparse import ArgumentParser, Namespace
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import NamedTuple

import textgym
from textgym.cli.command import Command
from textgym.errors import ConfigError
from textgym.plugins import plugin_manager

_PREFIX = "textgym-"
_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_MAX_LENGTH = 50
_FILES = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    ".gitignore": "gitignore.txt",
    "src/{module}/__init__.py": "init.py.txt",
    "src/{module}/py.typed": None,
    "src/{module}/reward.py": "reward.py.txt",
    "src/{module}/cases/{reward}.jsonl": "cases.jsonl.txt",
    "tests/test_{snake}.py": "test_reward.py.txt",
}
"""What is written, and from which template; None is an empty file."""


class Names(NamedTuple):
    """What the parts of a new plugin are called."""

    reward: str
    """As configurations name it, for example `exact_match`."""
    plugin: str
    """The entry point, for example `exact-match`."""
    distribution: str
    """As pip names it, for example `textgym-exact-match`."""
    module: str
    """As Python imports it, for example `textgym_exact_match`."""
    reward_class: str
    """For example `ExactMatchReward`."""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments of `textgym new-plugin`."""
    add = parser.add_argument
    add("name", help="the reward's name, such as exact_match; the distribution is textgym-NAME")
    add("--directory", type=Path, default=Path(), metavar="DIR",
        help="where the new folder goes (default: here)")  # fmt: skip


def run(arguments: Namespace) -> int:
    """Write the distribution and say what to do next."""
    names = names_for(arguments.name)
    check_free(names)
    folder = write_plugin(names, arguments.directory)
    print(
        f"{folder} holds the distribution {names.distribution} with the reward '{names.reward}'.\n"
        f"  pip install -e '{folder}[dev]' && pytest {folder}\n"
        f"  textgym plugins check {names.reward}"
    )
    return 0


def names_for(name: str) -> Names:
    """Return what everything is called.

    Raises:
        ConfigError: the name cannot be that of a distribution and of a Python module.
    """
    stem = name.removeprefix(_PREFIX)
    if not _NAME.fullmatch(stem) or len(stem) > _MAX_LENGTH:
        suggestion = re.sub(r"[^a-z0-9]+", "-", stem.lower())[:_MAX_LENGTH].strip("-0123456789")
        hint = f"; for example '{suggestion}'" if _NAME.fullmatch(suggestion) else ""
        raise ConfigError(
            f"'{name}' cannot name a plugin: use at most {_MAX_LENGTH} lower-case letters and "
            f"digits, beginning with a letter, and single '-' or '_' between them{hint}"
        )
    snake, plugin = stem.replace("-", "_"), stem.replace("_", "-")
    camel = "".join(word.capitalize() for word in snake.split("_"))
    return Names(snake, plugin, f"{_PREFIX}{plugin}", f"textgym_{snake}", f"{camel}Reward")


def check_free(names: Names) -> None:
    """See that nothing installed has one of the names.

    Raises:
        ConfigError: something has; the message says what.
    """
    offered = plugin_manager().rewards.get(names.reward)
    if offered is not None:
        raise ConfigError(
            f"the reward '{names.reward}' is offered by {offered.plugin.title} already; choose "
            "another name"
        )
    try:
        version = distribution(names.distribution).version
    except PackageNotFoundError:
        pass
    else:
        raise ConfigError(
            f"the distribution {names.distribution} {version} is installed already; choose "
            "another name"
        )
    if importlib.util.find_spec(names.module) is not None:
        raise ConfigError(f"a module '{names.module}' can be imported already; choose another name")


def write_plugin(names: Names, directory: Path) -> Path:
    """Write the distribution into a new folder and return the folder.

    Raises:
        ConfigError: the folder exists, or cannot be written.
    """
    folder = directory / names.distribution
    values = {**names._asdict(), "snake": names.reward, "requirement": _requirement()}
    templates = files("textgym") / "templates" / "plugin"
    try:
        folder.mkdir()
        for place, template in _FILES.items():
            path = folder / place.format_map(values)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = "" if template is None else (templates / template).read_text(encoding="utf-8")
            path.write_text(Template(text).substitute(values), encoding="utf-8")
    except FileExistsError:
        raise ConfigError(
            f"{folder} exists already; remove it, choose another name, or say --directory"
        ) from None
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}") from None
    return folder


def _requirement() -> str:
    """Return the bounds of textgym: from here to the next version that may break plugins."""
    major, minor, *_ = textgym.__version__.split(".")
    upper = f"{int(major) + 1}" if major != "0" else f"0.{int(minor) + 1}"
    return f">={major}.{minor},<{upper}"


COMMAND = Command("write a small distribution with a reward, ready to install", configure, run)
