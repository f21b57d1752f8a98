"""Registers the first-party contributions, through the door that everyone uses."""

from __future__ import annotations

import textgym
from textgym.remote import RemoteReward
from textgym_plugins.arithmetic import Arithmetic
from textgym_plugins.benchmarks import SUITES
from textgym_plugins.code import CodeReward, HumanEval, Mbpp
from textgym_plugins.ifeval import IFEvalPrompts, IFEvalReward
from textgym_plugins.judge import JudgeReward
from textgym_plugins.judge.requests import Requests
from textgym_plugins.kbqa import JudgedKbqa, Kbqa
from textgym_plugins.kbqa.rgb import Rgb
from textgym_plugins.math import MathReward
from textgym_plugins.math.prompts import Gsm8k, Math500
from textgym_plugins.reasoning import ReasoningGym, ReasoningGymReward
from textgym_plugins.reward_model import RewardModel
from textgym_plugins.reward_model.preferences import Preferences
from textgym_plugins.rules import RULES
from textgym_plugins.rules.mmlu import Mmlu
from textgym_plugins.safety import SafetyReward
from textgym_plugins.semantic import SemanticSimilarity
from textgym_plugins.tiny import TINY_SOURCES
from textgym_plugins.tools import TOOLS


@textgym.hookimpl
def textgym_rewards() -> list[type[textgym.Reward]]:
    """Return the first-party rewards."""
    return [
        MathReward,
        CodeReward,
        Kbqa,
        JudgedKbqa,
        IFEvalReward,
        JudgeReward,
        ReasoningGymReward,
        RemoteReward,
        RewardModel,
        SafetyReward,
        SemanticSimilarity,
        *RULES,
    ]


@textgym.hookimpl
def textgym_prompt_sources() -> list[type[textgym.PromptSource]]:
    """Return the first-party prompt sources."""
    return [
        Arithmetic,
        Gsm8k,
        HumanEval,
        IFEvalPrompts,
        Math500,
        Mbpp,
        Mmlu,
        Preferences,
        ReasoningGym,
        Requests,
        Rgb,
        *TINY_SOURCES,
    ]


@textgym.hookimpl
def textgym_benchmarks() -> list[textgym.Benchmark]:
    """Return the first-party suites."""
    return list(SUITES)


@textgym.hookimpl
def textgym_tools() -> list[type[textgym.Tool]]:
    """Return the first-party tools."""
    return list(TOOLS)
