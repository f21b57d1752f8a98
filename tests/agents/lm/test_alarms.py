"""Alarms: each of spec section 8, raised by its metric and said once."""

from __future__ import annotations

import pytest

from textgym_agents.lm.alarms import RATIO_ERROR, Alarms

QUIET = {
    "ppo/entropy": 1.0,
    "ppo/first_ratio_error": 1e-6,
    "rollout/num_scored": 100.0,
    "rollout/num_failed": 1.0,
    "rollout/cut_share": 0.2,
    "engine/effective_share": 0.9,
    "kl/reference_nats_per_token": 0.1,
}


@pytest.mark.parametrize(
    ("key", "edge", "beyond", "says"),
    [
        ("ppo/first_ratio_error", 1e-3, 2e-3, "ratio is not 1"),
        ("ppo/entropy", 0.1, 0.09, "below a tenth"),
        ("rollout/cut_share", 0.3, 0.31, "more than 30 %"),
        ("engine/effective_share", 0.5, 0.49, "effective sample share below 0.5"),
        ("kl/reference_nats_per_token", 0.5, 0.51, "0.5 nats per token"),
        ("rollout/num_failed", 2.0, 3.0, "3 of 103 samples could not be scored"),
    ],
)
def test_an_alarm_is_raised_beyond_its_edge_and_once(
    key: str, edge: float, beyond: float, says: str
) -> None:
    alarms = Alarms()
    assert alarms.check(QUIET) == []
    assert alarms.check(QUIET | {key: edge}) == []
    (said,) = alarms.check(QUIET | {key: beyond})
    assert says in said
    assert alarms.check(QUIET | {key: beyond}) == []


def test_metrics_that_are_not_there_raise_nothing() -> None:
    assert Alarms().check({}) == []


def test_the_ratio_is_the_engines_where_it_is_bypassed() -> None:
    assert Alarms(ratio_error=None).check(QUIET | {"ppo/first_ratio_error": 0.5}) == []


def test_rounding_to_bfloat16_is_no_alarm() -> None:
    alarms = Alarms(ratio_error=RATIO_ERROR["bf16"])
    assert alarms.check(QUIET | {"ppo/first_ratio_error": 0.045}) == []
    assert len(alarms.check(QUIET | {"ppo/first_ratio_error": 0.06})) == 1
