"""What of a completion is its answer."""

from __future__ import annotations

import pytest

from textgym_plugins.thinking import after_thinking


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("42", "42"),
        ("1 < 2", "1 < 2"),
        ("<think>41</think>42", "42"),
        ("<think>41</think>\n\n42", "42"),
        ("<THINK>41</Think>42", "42"),
        ("<Thinking>41</thinking>42", "42"),
        ("<reasoning>41</reasoning>42", "42"),
        ("41</think>42", "42"),
        ("<think>a</think> 1 <think>b</think> 2", " 2"),
        ("<think>42", None),
        ("<think>a</think>1<think>b", None),
    ],
)
def test_the_answer_is_what_follows_the_last_thought(completion: str, answer: str | None) -> None:
    assert after_thinking(completion) == answer
