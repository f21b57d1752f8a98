"""The conformance kit as a test module: `pytest --pyargs textgym.testing.suite`.

It checks the rewards that `--textgym-reward NAME` names, or else every installed reward that ships
its cases; see `textgym.pytest_plugin`.
"""

from textgym.pytest_plugin import Conformance


def test_reward(textgym_conformance: Conformance) -> None:
    """One rule holds for one reward."""
    textgym_conformance.check()
