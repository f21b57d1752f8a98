"""What a service computes with, as one hash: a client sees by it that the service has changed.

For rewards: their names, the versions of their distributions, their configuration, and the content
of what the configuration points at (the file of a function, the weights in a folder). For a model:
its configuration and weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import textgym
from textgym.errors import TextGymError
from textgym.function_reward import FunctionReward
from textgym.plugins import plugin_manager
from textgym.reward import Reward
from textgym.rubric import Rubric

_LENGTH = 32
_WEIGHTS = ("*.safetensors", "*.json")


def rubric_fingerprint(rubric: Rubric) -> str:
    """Return the fingerprint of a rubric."""
    components = [*rubric.rewards, *(c for r in rubric.routes.values() for c in r.rewards)]
    specification = rubric.model_dump(mode="json")
    parts = {
        "textgym": textgym.__version__,
        "rubric": specification,
        "owners": [_owner(component.reward) for component in components],
        "files": dict(_files(specification)),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:_LENGTH]


def model_fingerprint(folder: Path) -> str:
    """Return the fingerprint of a model's folder: its configuration and safetensors weights."""
    return _folder_digest(folder)[:_LENGTH]


def _owner(reward: Reward) -> str:
    try:
        plugin = plugin_manager().plugin_of(reward)
    except TextGymError:
        plugin = None  # the plugins clash, which is reported where one is asked for by name
    reward_class = type(reward)
    origin = f"{reward_class.__module__}.{reward_class.__qualname__}"
    if isinstance(reward, FunctionReward):
        origin = reward.reference
    return f"{origin} {plugin.title}" if plugin is not None else origin


def _files(value: Any) -> Iterator[tuple[str, str]]:
    """Yield path and digest of each file or model folder that a text of the configuration names."""
    if isinstance(value, dict):
        for each in value.values():
            yield from _files(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _files(each)
    elif isinstance(value, str) and 0 < len(value) < 1024 and "\n" not in value:
        place = value.rpartition(":")[0] if ".py:" in value else value
        try:
            path = Path(place)
            if path.is_file():
                yield value, _file_digest(path)
            elif path.is_dir() and any(path.glob("*.safetensors")):
                yield value, _folder_digest(path)
        except (OSError, ValueError):
            return  # no path at all, or one that the reward itself will complain about


def _folder_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _WEIGHTS for path in folder.glob(pattern)}):
        digest.update(f"{path.name}\0{_file_digest(path)}\0".encode())
    return digest.hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
