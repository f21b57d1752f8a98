"""The rule of promotion, and that it goes on from where it stood."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from textgym import Curriculum, CurriculumConfig, CurriculumState

RULE = CurriculumConfig(threshold=0.75, window=4)


def test_a_full_window_of_successes_begins_the_next_level() -> None:
    curriculum = Curriculum(RULE, num_levels=3)
    assert not curriculum.observe([True, True, True])  # too few
    assert not curriculum.observe([False, False])  # the latest four: True, True, False, False
    assert curriculum.success == 0.5
    assert not curriculum.observe([True])  # True, False, False, True
    assert not curriculum.observe([True])  # False, False, True, True
    assert curriculum.observe([True])
    assert (curriculum.level, curriculum.num_outcomes, curriculum.success) == (1, 0, 0.0)


def test_at_most_one_level_is_left_at_a_time_and_the_last_one_never() -> None:
    curriculum = Curriculum(RULE, num_levels=3)
    assert curriculum.observe([True] * 100)
    assert curriculum.level == 1
    assert curriculum.observe([True] * 100)
    assert not curriculum.observe([True] * 100)
    assert curriculum.level == 2


@given(st.lists(st.lists(st.booleans(), max_size=6), max_size=12), st.integers(0, 12))
def test_a_curriculum_goes_on_from_its_state(rounds: list[list[bool]], stop: int) -> None:
    whole, first = Curriculum(RULE, 4), Curriculum(RULE, 4)
    for outcomes in rounds:
        whole.observe(outcomes)
    for outcomes in rounds[:stop]:
        first.observe(outcomes)
    state = CurriculumState.model_validate_json(first.state().model_dump_json())
    resumed = Curriculum(RULE, 4, state)
    for outcomes in rounds[stop:]:
        resumed.observe(outcomes)
    assert resumed.state() == whole.state()


def test_mistakes_are_refused() -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        CurriculumConfig(threshold=0)
    with pytest.raises(ValidationError, match="outcomes"):
        CurriculumState(outcomes="012")
