"""Reward models: a classifier with one or several heads, trained on preference pairs.

Importing this package loads no torch; what needs it is imported where a model is first used.
"""

from textgym_plugins.reward_model.reward import RewardModel
from textgym_plugins.reward_model.spec import RewardSpec

__all__ = ["RewardModel", "RewardSpec"]
