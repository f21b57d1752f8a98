"""What the author of a reward or an environment runs in their own tests: the conformance kit.

`check_reward` holds a reward against every rule of `REWARD_RULES`, with the author's cases and with
completions that answer nothing; `conformance_tests` makes a test of each rule; `check_env` looks at
the seeding of an environment. Each raises one `ConformanceError`, an `AssertionError`, that lists
everything it found. docs/conformance.md explains the rules.
"""

from textgym.testing.cases import Case, cases_of, read_cases, shipped_cases
from textgym.testing.environment import check_env
from textgym.testing.findings import (
    ENVIRONMENT_RULES,
    REWARD_RULES,
    ConformanceError,
    Finding,
)
from textgym.testing.probes import BAD_TARGETS, PROBES, probes
from textgym.testing.pytest_tests import conformance_tests
from textgym.testing.reward import Report, check_reward, examine_reward

__all__ = [
    "BAD_TARGETS",
    "ENVIRONMENT_RULES",
    "PROBES",
    "REWARD_RULES",
    "Case",
    "ConformanceError",
    "Finding",
    "Report",
    "cases_of",
    "check_env",
    "check_reward",
    "conformance_tests",
    "examine_reward",
    "probes",
    "read_cases",
    "shipped_cases",
]
