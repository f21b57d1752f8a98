"""A plain Python function as a reward: `module:function` or `path/to/file.py:function`.

The function takes one argument, the `Sample`, and returns a float or a `Score`. It needs no plugin,
and so declares nothing: any finite number is in range, and equal samples may score differently.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, TypeAlias, cast

from pydantic import field_serializer, field_validator

from textgym.errors import ConfigError, did_you_mean
from textgym.reward import Reward
from textgym.sample import Sample
from textgym.score import Score

RewardFunction: TypeAlias = Callable[[Sample], float | Score]


class FunctionReward(Reward):
    """Scores a sample with one call of a function, in a worker process."""

    name: ClassVar[str] = "function"
    range: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    deterministic: ClassVar[bool] = False

    function: str | RewardFunction
    """`module:function`, `path/to/file.py:function`, or the function itself."""

    @field_validator("function")
    @classmethod
    def _resolves(cls, function: str | RewardFunction) -> str | RewardFunction:
        if isinstance(function, str):
            function = absolute_reference(function)
            find_function(function)
        return function

    @field_serializer("function")
    def _refer(self, function: str | RewardFunction) -> str:
        return self.reference

    @property
    def reference(self) -> str:
        """The function as `module:function` or `path/to/file.py:function`."""
        if isinstance(self.function, str):
            return self.function
        module = getattr(self.function, "__module__", type(self.function).__module__)
        return f"{module}:{self.title}"

    @property
    def title(self) -> str:
        """The name of the function, as the parts of a rubric are named."""
        if isinstance(self.function, str):
            return self.function.rpartition(":")[2]
        return str(getattr(self.function, "__qualname__", type(self.function).__qualname__))

    def score(self, sample: Sample) -> Score:
        """Return the function's score; a bare number becomes a `Score`."""
        function = self.function
        result = (find_function(function) if isinstance(function, str) else function)(sample)
        # What is no number is for the scoring boundary to report.
        return Score(float(result)) if isinstance(result, int | float) else result


@functools.cache
def find_function(reference: str) -> RewardFunction:
    """Return the function that a reference names.

    Raises:
        ConfigError: the module cannot be imported, or has no such function.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name:
        raise ConfigError("it names no function; write module:function or path/to/file.py:function")
    try:
        found: Any = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    except Exception as error:  # the user's module may raise anything
        raise ConfigError(f"importing {place} raised {type(error).__name__}: {error}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            hint = did_you_mean(part, [n for n in dir(found) if not n.startswith("_")])
            raise ConfigError(f"{place} has no function '{name}'.{hint}")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"{place} has no function '{name}', which is {found!r}")
    return cast(RewardFunction, found)


def _import_module(name: str) -> ModuleType:
    return importlib.import_module(name)


def _import_file(path: Path) -> ModuleType:
    name = f"textgym_file_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def absolute_reference(reference: str) -> str:
    """Return a file's reference with the whole path: it is used from other folders too."""
    place, colon, name = reference.rpartition(":")
    return f"{Path(place).resolve()}:{name}" if colon and place.endswith(".py") else reference
