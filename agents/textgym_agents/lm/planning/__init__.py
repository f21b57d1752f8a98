"""Planning at test time: search over completions with a policy as prior and its value head.

`solve` answers prompts by one method; `Experiment` compares methods on the prompts of a run.
"""

from textgym_agents.lm.planning.answers import Answer
from textgym_agents.lm.planning.config import (
    BeamConfig,
    BestOfNConfig,
    GreedyConfig,
    MctsConfig,
    SearchConfig,
)
from textgym_agents.lm.planning.experiment import Experiment, Result
from textgym_agents.lm.planning.solve import Solved, solve
from textgym_agents.lm.planning.worth import Judge, RewardWorth, ValueWorth, Worth

__all__ = [
    "Answer",
    "BeamConfig",
    "BestOfNConfig",
    "Experiment",
    "GreedyConfig",
    "Judge",
    "MctsConfig",
    "Result",
    "RewardWorth",
    "SearchConfig",
    "Solved",
    "ValueWorth",
    "Worth",
    "solve",
]
