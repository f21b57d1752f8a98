"""Instruction following: IFEval's 25 types as a checker, a reward and a prompt source."""

from textgym_plugins.ifeval.checker import Verdict, check_instructions
from textgym_plugins.ifeval.instruction import Instruction, read_instructions
from textgym_plugins.ifeval.reward import IFEvalReward
from textgym_plugins.ifeval.source import IFEvalPrompts

__all__ = [
    "IFEvalPrompts",
    "IFEvalReward",
    "Instruction",
    "Verdict",
    "check_instructions",
    "read_instructions",
]
