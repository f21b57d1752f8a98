"""What came of running a program against its tests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TestResult:
    """One test: what it was, and why it failed."""

    __test__ = False  # pytest would take it for a test class

    name: str
    passed: bool
    reason: str = ""


@dataclass(frozen=True)
class RunResult:
    """What a program did with its tests."""

    tests: tuple[TestResult, ...]
    stderr: str = ""
    """The end of what the program printed to stderr."""
    seconds: float = 0.0
    unusable: str = ""
    """Why the tests themselves cannot be run; `tests` is then empty."""

    @property
    def num_passed(self) -> int:
        """How many tests passed."""
        return sum(test.passed for test in self.tests)
