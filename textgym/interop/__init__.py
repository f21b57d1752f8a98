"""Rewards of this package in other trainers, and environments of other packages in ours.

Nothing here imports those packages before it is used with them.
"""

from textgym.interop.environments import gem_env, verifiers_prompts
from textgym.interop.rewards import (
    NoScoreError,
    OpenRLHFReward,
    TRLReward,
    VerifiersReward,
    VerlScore,
)

__all__ = [
    "NoScoreError",
    "OpenRLHFReward",
    "TRLReward",
    "VerifiersReward",
    "VerlScore",
    "gem_env",
    "verifiers_prompts",
]
