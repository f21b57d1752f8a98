"""Which optional package belongs to which extra, read from this distribution's own metadata."""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from importlib import metadata

from textgym.errors import MissingExtraError

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_EXTRA = re.compile(r"extra == ['\"]([^'\"]+)['\"]")
_BUNDLES = ("all", "dev")


@functools.cache
def requirements() -> dict[str, tuple[str, ...]]:
    """Return the packages of each extra; those that are always needed under the empty name."""
    packages: dict[str, list[str]] = defaultdict(list)
    for requirement in metadata.requires("textgym") or ():
        name, extra = _NAME.match(requirement), _EXTRA.search(requirement)
        if name is not None:
            packages[extra[1] if extra else ""].append(name[0])
    return {extra: tuple(names) for extra, names in packages.items() if extra not in _BUNDLES}


def version_of(package: str) -> str | None:
    """Return the installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def missing_extra(error: ModuleNotFoundError, purpose: str) -> MissingExtraError | None:
    """Return the error that names the extra of a module not found, if it belongs to one."""
    module = (error.name or "").partition(".")[0]
    for extra, packages in requirements().items():
        for package in packages:
            if extra and package.replace("-", "_").lower() == module.lower():
                return MissingExtraError(package, extra, purpose)
    return None
