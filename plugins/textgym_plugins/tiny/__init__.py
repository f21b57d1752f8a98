"""The tiny world: prompt sources so small that a model of a million parameters can learn them.

Each has a real verifier, and demonstrations, right and wrong, for a supervised start.
"""

from textgym_plugins.tiny.code import TinyCode
from textgym_plugins.tiny.instructions import TinyInstructions
from textgym_plugins.tiny.kbqa import TinyKbqa
from textgym_plugins.tiny.safety import TinySafety

TINY_SOURCES = (TinyCode, TinyKbqa, TinyInstructions, TinySafety)

__all__ = ["TINY_SOURCES", "TinyCode", "TinyInstructions", "TinyKbqa", "TinySafety"]
