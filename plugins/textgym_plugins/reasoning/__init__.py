"""Datasets and verifiers of the package reasoning-gym, where it is installed."""

from __future__ import annotations

from textgym_plugins.reasoning.reward import ReasoningGymReward
from textgym_plugins.reasoning.source import ReasoningGym

__all__ = ["ReasoningGym", "ReasoningGymReward"]
