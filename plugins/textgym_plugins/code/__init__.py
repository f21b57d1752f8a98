"""The reward `code`: runs the program of a completion against tests, in a sandbox."""

from textgym_plugins.code.prompts import HumanEval, Mbpp
from textgym_plugins.code.reward import CodeReward

__all__ = ["CodeReward", "HumanEval", "Mbpp"]
