"""Sentences and words, beside the tokenizers that the official checker uses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from textgym_plugins.ifeval.sentences import split_sentences
from textgym_plugins.ifeval.words import count_capital_words, count_words


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        ("   \n", []),
        ("No end", ["No end"]),
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Dr. Smith met Mrs. Jones in Washington D.C. yesterday.", 1),
        ("It works, e.g. this one.", ["It works, e.g.", "this one."]),
        ("The U.S. economy grew. It did.", 2),
        ("He left at 5 p.m. However, she stayed.", 2),
        ("J. Smith wrote it.", 1),
        ("Take vitamin C. Eat well.", 1),
        ("Plan B. The rest.", 2),
        ("1. First\n2. Second", ["1.", "First\n2.", "Second"]),
        ("1. first", 1),
        ("Pi is 3.14 today", 1),
        ("Wait... what?", 1),
        ("Well... However, no.", 2),
        ('"Stop!" he said. (Really.) Yes.', ['"Stop!"', "he said.", "(Really.)", "Yes."]),
        ("# Title\n\nText here.", 1),
        ("What?! No!!! Yes", 3),
        ("No space.After it", 1),
        ("Wait .!now it is", ["Wait .", "!now it is"]),
    ],
)
def test_splitting(text: str, sentences: list[str] | int) -> None:
    found = split_sentences(text)
    assert found == sentences if isinstance(sentences, list) else len(found) == sentences


def test_words_are_runs_of_word_characters() -> None:
    assert count_words("don't stop_it, 3.5 héllo 你好!") == 7


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("NASA, ESA & JAXA", 3),
        ("I'M JOHN'S", 4),
        ("DON'T.", 2),
        ("(A)[B]{C}", 3),
        ("TIME:NOW AT 5:30PM", 4),
        ("A--B...C", 3),
        ("no capitals Here", 0),
    ],
)
def test_capital_words(text: str, count: int) -> None:
    assert count_capital_words(text) == count


def test_capital_words_agree_with_the_treebank_tokenizer(
    shared_data: Callable[[str], Path],
) -> None:
    nltk = pytest.importorskip("nltk.tokenize", reason="nltk is not installed")
    tokenizer = nltk.NLTKWordTokenizer()
    texts = [
        json.loads(line)["response"]
        for line in shared_data("ifeval_qwen2_5_0_5b.jsonl").open(encoding="utf-8")
    ]
    differing = []
    for text in [*texts, *(text.upper() for text in texts)]:
        tokens = [t for s in split_sentences(text) for t in tokenizer.tokenize(s)]
        if sum(token.isupper() for token in tokens) != count_capital_words(text):
            differing.append(text)
    assert differing == []
