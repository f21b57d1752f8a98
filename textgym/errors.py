"""Errors of the SDK: each says what was wrong, which value, and what to do.

All derive from `TextGymError`. Look-ups derive from `LookupError` and not from `KeyError`, whose
`str()` is the repr of its argument.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TextGymError(Exception):
    """Base of every error that textgym raises on purpose."""


class ConfigError(TextGymError, ValueError):
    """A configuration that cannot be used; the message names the field and the fix."""


class UnknownNameError(TextGymError, LookupError):
    """A name that no plugin, preset, file or table has."""


class UnknownRewardError(UnknownNameError):
    """No installed plugin offers a reward of this name."""


class UnknownPromptSourceError(UnknownNameError):
    """No installed plugin offers a prompt source of this name, and no such file exists."""


class UnknownToolError(UnknownNameError):
    """No installed plugin offers a tool of this name."""


class PluginError(TextGymError):
    """A plugin breaks the rules of the plugin manager: a duplicate name or a misspelt hook."""


class RewardError(TextGymError):
    """A reward broke its contract: wrong type, wrong length, not finite, out of its range."""


class PromptError(TextGymError, ValueError):
    """A prompt or a prompt file that cannot be used; the message names file, line and field."""


class MissingExtraError(TextGymError, ImportError):
    """An optional dependency is not installed; the message holds the `pip install` line."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed. "
            f"Run: pip install 'textgym[{extra}]'"
        )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the nearest known name, or the empty string."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{nearest[0]}'?" if nearest else ""
