"""Question answering over passages, with refusal where they do not hold the answer."""

from textgym_plugins.kbqa.judged import JudgedKbqa
from textgym_plugins.kbqa.report import KbqaReport, report
from textgym_plugins.kbqa.reward import Kbqa, RewardTable

__all__ = ["JudgedKbqa", "Kbqa", "KbqaReport", "RewardTable", "report"]
