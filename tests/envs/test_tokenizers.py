"""Characters as tokens."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgym.errors import MissingExtraError
from textgym_envs.tokenizers import HuggingFaceTokenizer, make_tokenizer

PRINTABLE = "\n" + "".join(map(chr, range(32, 127)))


@given(st.text(alphabet=PRINTABLE))
def test_printable_text_survives(text: str) -> None:
    tokenizer = make_tokenizer("chars")
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(i < tokenizer.eos_id for i in ids)


@given(st.text())
def test_any_text_has_one_id_per_character(text: str) -> None:
    tokenizer = make_tokenizer("chars")
    ids = tokenizer.encode(text)
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == "".join(c if c in PRINTABLE else "\ufffd" for c in text)


def test_layout_keeps_what_cannot_be_generated_above_the_actions() -> None:
    tokenizer = make_tokenizer("chars:ab")
    assert (tokenizer.eos_id, tokenizer.num_actions) == (2, 3)
    assert tokenizer.encode("b€a") == [1, 3, 0]
    assert (tokenizer.pad_id, tokenizer.vocab_size) == (4, 5)
    assert tokenizer.legal.tolist() == [True] * 3


def test_rows_are_decoded_as_one_by_one() -> None:
    tokenizer = make_tokenizer("chars: ab")
    rows = np.array([[0, 1, 3, 5], [3, 5, 5, 5], [1, 0, 0, 0]])
    assert tokenizer.decode_rows(rows, [2, 0, 4]) == [" a", "", "a   "]


def test_colon_belongs_to_the_alphabet_after_the_first() -> None:
    assert make_tokenizer("chars::a").encode(":a") == [0, 1]


def test_missing_transformers_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "transformers":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"textgym\[agents\]"):
        HuggingFaceTokenizer("any")
