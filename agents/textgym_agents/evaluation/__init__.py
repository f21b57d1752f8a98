"""Benchmark suites: whoever answers, what the answers are worth, and where both are kept."""

from textgym_agents.evaluation.answerers import Answer, Answerer, Question, Scripted
from textgym_agents.evaluation.suite import evaluate_suite

__all__ = ["Answer", "Answerer", "Question", "Scripted", "evaluate_suite", "measure_model"]


def __getattr__(name: str) -> object:
    if name == "measure_model":  # loads torch
        from textgym_agents.evaluation.measure import measure_model

        return measure_model
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
