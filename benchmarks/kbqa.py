"""How many completions a second the reward `kbqa` judges on one core, all four labels among them.

There is no peer: what scores refusals elsewhere calls a language model. The other side of the row
is the rate that a trainer needs so that scoring never shows. Questions are made here, in both
languages, new ones in every round, so that nothing is known of them yet; the completions are right,
wrong, refusing, hedged and mixed ones as models phrase them.
"""

from __future__ import annotations

import statistics
import time

from benchmarks.table import Row, print_table
from textgym import Prompt, Sample, Scorer, make_reward

NEEDED = 20_000.0
"""Samples a second."""
NUM_QUESTIONS = 120
NUM_ROUNDS = 7
COMPLETIONS = {
    "en": (
        "{right}",
        "The answer is {right}.",
        "Based on the provided documents, the mill is run by {right}.",
        "According to document 2, it is {wrong}.",
        "The answer is {wrong}.",
        "I can not answer the question because of the insufficient information in documents.",
        "The provided documents do not contain information about who runs mill {index}.",
        "The documents do not say it, but I believe that it is {right}.",
    ),
    "zh": (
        "{right}",
        "答案是{right}。",
        "根据提供的文档，经营磨坊的是{right}。",
        "根据文档2，是{wrong}。",
        "答案是{wrong}。",
        "文档信息不足，因此我无法基于提供的文档回答该问题。",
        "抱歉，提供的文档中没有提到谁在经营第{index}号磨坊。",
        "文档没有明确说明，但我认为是{right}。",
    ),
}
_FIRST, _LAST = ("Ida", "Per", "Una", "Tor", "Eva"), ("Holm", "Lund", "Berg", "Dahl", "Moen")


def make_samples(round_index: int = 0) -> list[Sample]:
    """Return eight completions of each question, half of the questions unanswerable."""
    samples = []
    first = round_index * NUM_QUESTIONS
    for index in range(first, first + NUM_QUESTIONS):
        language = "zh" if index % 2 else "en"
        right, wrong = _name(index, language), _name(index + 7, language)
        question = f"谁在经营第{index}号磨坊？" if index % 2 else f"Who runs mill {index}?"
        prompt = Prompt(
            id=str(index),
            messages=question,
            target=[right],
            passages=tuple(f"Passage {n} on mill {index}: {wrong} built it." for n in range(5)),
            answerable=index % 4 < 2,
        )
        samples += [
            Sample(prompt, text.format(right=right, wrong=wrong, index=index))
            for text in COMPLETIONS[language]
        ]
    return samples


def _name(index: int, language: str) -> str:
    if language == "zh":
        return "王李张刘陈"[index % 5] + "小大中"[index % 3] + "明华文强"[index // 5 % 4]
    return f"{_FIRST[index % 5]} {_LAST[index // 5 % 5]}"


def run() -> list[Row]:
    """Return the one row of this benchmark: the median over rounds, in seconds of this process."""
    samples = make_samples()
    rates = []
    with Scorer(make_reward("kbqa")) as scorer:
        labels = {score.label for score in scorer.score_batch(samples)}  # compiles the patterns
        if labels != {"TP", "FN", "TN", "FP"}:
            raise RuntimeError(f"the samples should get all four labels, not {labels}")
        for round_index in range(1, 1 + NUM_ROUNDS):
            samples = make_samples(round_index)
            started = time.process_time()
            scorer.score_batch(samples)
            rates.append(len(samples) / (time.process_time() - started))
    rate = statistics.median(rates)
    return [Row("kbqa", rate, NEEDED, "samples/s", 1.0, note="one core / what is needed")]


if __name__ == "__main__":
    print_table(run())
