"""The reward `math`: extracts the final answer of a completion and compares it by value."""

from textgym_plugins.math.reward import MathReward

__all__ = ["MathReward"]
