"""What goes wrong with an engine that is not the trainer's own network."""

from __future__ import annotations

from textgym.errors import TextGymError


class EngineError(TextGymError):
    """An engine that cannot be reached, or that would sample from another policy."""


class ServerLostError(EngineError):
    """A server that does not answer, or no longer as the one it was."""
