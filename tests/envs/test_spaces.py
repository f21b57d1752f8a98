"""The space of any text."""

from __future__ import annotations

import pickle

import pytest
from gymnasium.spaces import Tuple
from gymnasium.vector.utils import batch_space

import textgym
from textgym_envs.spaces import UnicodeText


def test_contains_any_text_within_the_bound() -> None:
    space = UnicodeText(4)
    assert all(text in space for text in ("", "é😀\n\0", textgym.Completion("abcd")))
    assert all(value not in space for value in ("abcde", 3, b"abc", None, ["a"]))
    assert "x" * 100_000 in UnicodeText()


def test_samples_are_members_and_follow_the_seed() -> None:
    for bound in (0, 1, None):
        space, twin = UnicodeText(bound, seed=4), UnicodeText(bound, seed=4)
        samples = [space.sample() for _ in range(50)]
        assert all(sample in space for sample in samples)
        assert samples == [twin.sample() for _ in range(50)]
    with pytest.raises(ValueError, match="mask"):
        space.sample(mask=[1])


def test_equality_pickle_and_batch() -> None:
    space = UnicodeText(7, seed=1)
    assert space == UnicodeText(7)
    assert space not in (UnicodeText(8), UnicodeText(None), 7)
    data = pickle.dumps(space)
    assert len(data) < 2_000
    assert pickle.loads(data) == space
    assert repr(space) == "UnicodeText(max_length=7)"
    assert isinstance(batch_space(space, 3), Tuple)
    assert not space.is_np_flattenable
    with pytest.raises(ValueError, match="at least 0"):
        UnicodeText(-1)
