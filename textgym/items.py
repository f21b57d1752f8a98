"""What an evaluation is made of: `Item`, one answer to one prompt with its score, and `Metric`."""

from __future__ import annotations

from typing import NamedTuple

from textgym.prompt import Prompt
from textgym.sample import FinishReason
from textgym.score import Score


class Metric(NamedTuple):
    """One figure with its 95 % interval; nan where there is nothing to measure."""

    value: float
    low: float
    high: float
    count: int  # type: ignore[assignment]  # nobody needs the tuple's method
    """Prompts it is over."""


class Item(NamedTuple):
    """One answer to one prompt, scored."""

    prompt: Prompt
    completion: str
    score: Score
    is_success: bool | None
    """None where the answer has no score, or no reward tells success from failure."""
    sample: int = 0
    """Which of the answers to this prompt it is."""
    index: int = 0  # type: ignore[assignment]  # nobody needs the tuple's method
    """Number of the prompt in its suite; answers of one index are answers to one prompt."""
    finish_reason: FinishReason = "stop"
    num_tokens: int = 0
    """Tokens of the answer, the end token included; 0 where nobody counted."""
