"""The rules as tests of pytest: one test per rule, and one examination for all of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from textgym.reward import Reward
from textgym.testing.findings import REWARD_RULES, ConformanceError
from textgym.testing.reward import Cases, Report, examine_reward


def conformance_tests(
    reward: Reward | str,
    cases: Cases = None,
    *,
    config: Mapping[str, Any] | None = None,
    hacks_are_wrong: bool = True,
    tolerance: float = 1e-6,
) -> Callable[[str], None]:
    """Return a test function for pytest with one parameter for each rule.

    `test_conformance = conformance_tests("brevity")` in a test module is all it takes. The
    arguments are those of `check_reward`; nothing is scored before the first test runs.
    """
    import pytest

    @functools.cache
    def examine() -> Report:
        return examine_reward(
            reward, cases, config=config, hacks_are_wrong=hacks_are_wrong, tolerance=tolerance
        )

    @pytest.mark.parametrize("rule", REWARD_RULES)
    def test_conformance(rule: str) -> None:
        check_rule(examine(), rule)

    return test_conformance


def check_rule(report: Report, rule: str) -> None:
    """Raise `ConformanceError` where a report has findings of a rule."""
    findings = [finding for finding in report.findings if finding.rule == rule]
    if findings:
        raise ConformanceError(f"the reward '{report.reward}'", findings)
