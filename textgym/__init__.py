"""textgym: text generation as Gymnasium environments, rewards as plugins.

Importing this package registers the environments and loads no plugin. Public names are imported
when they are first asked for, so a program pays for what it uses: defining pydantic models alone
would cost half as much again as importing Gymnasium.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from textgym.errors import (
    ConfigError,
    MissingExtraError,
    PluginError,
    PromptError,
    RewardError,
    TextGymError,
    UnknownNameError,
    UnknownPromptSourceError,
    UnknownRewardError,
    UnknownToolError,
)
from textgym.registration import register_environments

if TYPE_CHECKING:
    from textgym.benchmark import Benchmark
    from textgym.curriculum import Curriculum, CurriculumConfig, CurriculumState
    from textgym.function_reward import FunctionReward
    from textgym.hookspecs import hookimpl
    from textgym.make import make_prompt_source, make_reward, make_rubric, make_tool
    from textgym.plugins import PluginManager, plugin_manager
    from textgym.prompt import Message, Prompt
    from textgym.prompt_source import Demonstrations, PromptSource
    from textgym.reward import Reward
    from textgym.rubric import Gate, Rubric, WeightedReward
    from textgym.sample import Completion, Sample
    from textgym.score import Score, Step
    from textgym.score_cache import ScoreCache
    from textgym.scoring import Scorer
    from textgym.tool import (
        Tool,
        ToolArguments,
        ToolCall,
        ToolError,
        ToolSession,
        ToolUnavailableError,
    )
    from textgym.workers import WorkerPool

__version__ = "0.1.0"

__all__ = [
    "Benchmark",
    "Completion",
    "ConfigError",
    "Curriculum",
    "CurriculumConfig",
    "CurriculumState",
    "Demonstrations",
    "FunctionReward",
    "Gate",
    "Message",
    "MissingExtraError",
    "PluginError",
    "PluginManager",
    "Prompt",
    "PromptError",
    "PromptSource",
    "Reward",
    "RewardError",
    "Rubric",
    "Sample",
    "Score",
    "ScoreCache",
    "Scorer",
    "Step",
    "TextGymError",
    "Tool",
    "ToolArguments",
    "ToolCall",
    "ToolError",
    "ToolSession",
    "ToolUnavailableError",
    "UnknownNameError",
    "UnknownPromptSourceError",
    "UnknownRewardError",
    "UnknownToolError",
    "WeightedReward",
    "WorkerPool",
    "__version__",
    "hookimpl",
    "make_prompt_source",
    "make_reward",
    "make_rubric",
    "make_tool",
    "plugin_manager",
]

_MODULES = {
    "Benchmark": "benchmark",
    "Completion": "sample",
    "Curriculum": "curriculum",
    "CurriculumConfig": "curriculum",
    "CurriculumState": "curriculum",
    "Demonstrations": "prompt_source",
    "FunctionReward": "function_reward",
    "Gate": "rubric",
    "Message": "prompt",
    "PluginManager": "plugins",
    "Prompt": "prompt",
    "PromptSource": "prompt_source",
    "Reward": "reward",
    "Rubric": "rubric",
    "Sample": "sample",
    "Score": "score",
    "ScoreCache": "score_cache",
    "Scorer": "scoring",
    "Step": "score",
    "Tool": "tool",
    "ToolArguments": "tool",
    "ToolCall": "tool",
    "ToolError": "tool",
    "ToolSession": "tool",
    "ToolUnavailableError": "tool",
    "WeightedReward": "rubric",
    "WorkerPool": "workers",
    "hookimpl": "hookspecs",
    "make_prompt_source": "make",
    "make_reward": "make",
    "make_rubric": "make",
    "make_tool": "make",
    "plugin_manager": "plugins",
}

if not TYPE_CHECKING:  # to a type checker it would make every misspelt name valid

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module 'textgym' has no attribute '{name}'")
        value = getattr(importlib.import_module(f"textgym.{_MODULES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_environments()
