"""textgym: text generation as Gymnasium environments, rewards as plugins.

Importing this package registers the environments and loads neither torch nor any plugin.
"""

from textgym.benchmark import Benchmark
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
)
from textgym.hookspecs import hookimpl
from textgym.plugins import PluginManager, plugin_manager
from textgym.prompt import Message, Prompt
from textgym.prompt_source import PromptSource
from textgym.registration import register_environments
from textgym.reward import Reward
from textgym.sample import Completion, Sample
from textgym.score import Score

__version__ = "0.1.0"

__all__ = [
    "Benchmark",
    "Completion",
    "ConfigError",
    "Message",
    "MissingExtraError",
    "PluginError",
    "PluginManager",
    "Prompt",
    "PromptError",
    "PromptSource",
    "Reward",
    "RewardError",
    "Sample",
    "Score",
    "TextGymError",
    "UnknownNameError",
    "UnknownPromptSourceError",
    "UnknownRewardError",
    "__version__",
    "hookimpl",
    "plugin_manager",
]

register_environments()
