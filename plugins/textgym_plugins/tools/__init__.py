"""The first-party tools."""

from __future__ import annotations

from textgym_plugins.tools.calculator import Calculator
from textgym_plugins.tools.python import PythonInterpreter
from textgym_plugins.tools.search import PassageSearch

TOOLS = (Calculator, PythonInterpreter, PassageSearch)

__all__ = ["TOOLS", "Calculator", "PassageSearch", "PythonInterpreter"]
