"""Registers the first-party environments, through the door that everyone uses."""

from __future__ import annotations

from gymnasium.envs.registration import EnvSpec

import textgym
from textgym.registration import ENVIRONMENTS


@textgym.hookimpl
def textgym_environments() -> list[EnvSpec]:
    """Return the specs that `import textgym` has registered already."""
    return ENVIRONMENTS
