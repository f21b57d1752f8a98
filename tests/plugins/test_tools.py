"""The first-party tools: exact arithmetic, an interpreter that remembers, ranked passages."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import textgym
from textgym import Prompt, ToolError, ToolUnavailableError
from textgym_plugins.code import sandbox
from textgym_plugins.tools.calculator import evaluate, shown
from textgym_plugins.tools.python import PythonInterpreter
from textgym_plugins.tools.search import bm25

PROMPT = Prompt(
    id="1",
    messages="Where?",
    passages=("The cat sat on the mat.", "Dogs chase cats, and cats run.", "北京是中国的首都。"),
)
Run = Callable[[str], str]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("12*34", "408"), ("0.1+0.2", "0.3"), ("1/3", "0.333333333333"), ("2^10=", "1024"),
        ("10/4", "2.5"), ("-7//2", "-4"), ("7%3", "1"), ("sqrt(16)", "4"), ("sqrt(1/4)", "0.5"),
        ("3×4÷6−1", "1"), ("2**-3", "0.125"), ("round(2.567, 1)", "2.6"), ("factorial(5)", "120"),
        ("max(1, 2.5)", "2.5"), ("(1+2)*3", "9"), ("--5", "5"), ("-0.5", "-0.5"),
        ("pi", "3.14159265359"), ("123456789*987654321", "121932631112635269"),
        ("ceil(7/2)-floor(7/2)", "1"), ("gcd(12, 18)", "6"),
    ],
)  # fmt: skip
def test_calculator_is_exact(expression: str, value: str) -> None:
    assert textgym.make_tool("calculator").open(PROMPT).call(_expression(expression)) == value


def _expression(text: str) -> Any:
    return textgym.make_tool("calculator").arguments.model_validate({"expression": text})


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("", "not an arithmetic expression"), ("1+", "not an arithmetic"), ("\0", "not an arith"),
        ("(" * 150, "not an arithmetic"), ("²", "not an arithmetic"), ("3 4", "not an arithmetic"),
        ("1/0", "division by zero"), ("5%0", "division by zero"), ("0**-1", "division by zero"),
        ("9**9**9**9", "too large"), ("2**100000", "too large"), ("exp(1000)", "too large"),
        ("factorial(1e9)", "0 to 300"), ("10**600*10**700", "too large"), ("log(0)", "undefined"),
        ("sqrt(-1)", "undefined"), ("(-8)**0.5", "not real"), ("__import__('os')", "not allowed"),
        ("'a'*9", "not allowed"), ("[1]*9", "not allowed"), ("True+1", "not allowed"),
        ("x+1", "not allowed"), ("1e999", "not allowed"), ("1j", "not allowed"),
        ("max()", "max takes 1"), ("round(1, 2, 3)", "takes 1 to 2"), ("1<2", "not allowed"),
        ("-" * 100 + "1", "nested too deeply"), ("1" * 201, "201 characters"),
        ("round(1, 9999)", "100 digits"), ("gcd(0.5, 2)", "whole"),
        ("2**pi**pi**pi**pi", "too large"),
    ],
)  # fmt: skip
def test_calculator_says_what_is_wrong(expression: str, reason: str) -> None:
    with pytest.raises(ToolError, match=reason):
        textgym.make_tool("calculator").open(PROMPT).call(_expression(expression))


@given(st.text("0123456789+-*/%.()e^ ,sqrtlogmaxpi", max_size=60))
def test_calculator_answers_or_refuses_whatever_it_is_given(text: str) -> None:
    started = time.monotonic()
    try:
        answer = shown(evaluate(text))
    except ToolError as error:
        answer = str(error)
    assert len(answer) < 1500
    assert time.monotonic() - started < 1.0


@given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6), st.sampled_from("+-*"))
def test_calculator_agrees_with_integers(a: int, b: int, operator: str) -> None:
    expected = {"+": a + b, "-": a - b, "*": a * b}[operator]
    assert shown(evaluate(f"({a}){operator}({b})")) == str(expected)


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Run code in the interpreter of one episode."""
    tool = textgym.make_tool("python", seconds=1.0, max_calls=40)
    session = tool.open(PROMPT)
    yield lambda code: session.call(tool.arguments.model_validate({"code": code}))
    session.close()


def test_python_keeps_variables_and_shows_the_last_value(run: Run) -> None:
    assert run("x = 41") == "(no output)"
    assert run("def f():\n    return x + 1\nf()") == "42"
    assert run("print('a')\nimport math\nmath.floor(2.5)") == "a\n2"
    assert run("__name__") == "'__main__'"


def test_python_prints_errors_and_goes_on(run: Run) -> None:
    run("kept = 1")
    assert run("print('before'); 1/0").splitlines()[0] == "before"
    assert "ZeroDivisionError: division by zero" in run("1/0")
    assert "SyntaxError" in run("((")
    assert 'solution.py", line 2' in run("x = 1\ny = nowhere")
    assert "SystemExit" in run("import sys; sys.exit(3)")
    assert "EOFError" in run("input()")
    assert "UnicodeEncodeError" in run("print('\\ud800')")
    assert run("kept") == "1"
    assert run("\ud800") != ""


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("while True: pass", "passed its time limit of 1 s"),
        ("import os; os._exit(3)", "ended"),
        ("while True: print('a' * 1000)", "printed more than"),
        ("import os; os.close(3)", "ended"),
    ],
)
def test_python_says_that_the_interpreter_is_gone(run: Run, code: str, why: str) -> None:
    run("lost = 1")
    with pytest.raises(ToolError, match=f"{why}.*; its variables are gone"):
        run(code)
    assert "NameError" in run("lost")
    assert run("1 + 1") == "2"


def test_python_is_in_the_sandbox(run: Run) -> None:
    assert "FileNotFoundError" in run("open('/etc/passwd')")
    assert "Error" in run("import socket; socket.create_connection(('1.1.1.1', 80), 1)")
    assert "MemoryError" in run("x = bytearray(3 << 30)")


def test_python_sessions_share_few_consoles_and_lose_nothing() -> None:
    tool = PythonInterpreter(consoles=1)
    code = tool.arguments
    first, second = tool.open(PROMPT), tool.open(PROMPT)
    drawn = first.call(code(code="import random; n = 1; r = random.random(); r"))
    assert second.call(code(code="n = 2")) == "(no output)"
    assert first.call(code(code="(n, r)")) == f"(1, {drawn})"  # its code ran again
    assert second.call(code(code="n")) == "2"
    resumed = tool.open(PROMPT, [code(code="n = 3"), code(code="n += 1")])
    assert resumed.call(code(code="n")) == "4"
    for session in (first, second, resumed):
        session.close()


def test_python_without_a_sandbox_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    tool = PythonInterpreter(consoles=2)
    with pytest.raises(ToolUnavailableError, match="bwrap is not installed"):
        tool.open(PROMPT).call(tool.arguments(code="1"))


def search(query: str, **config: Any) -> str:
    tool = textgym.make_tool("search", **config)
    return tool.open(PROMPT).call(tool.arguments.model_validate({"query": query}))


def test_search_ranks_passages_by_the_words_of_the_query() -> None:
    assert search("a CAT?") == "[1] The cat sat on the mat."
    assert search("cats run the").split("\n\n") == [
        "[2] Dogs chase cats, and cats run.", "[1] The cat sat on the mat.",
    ]  # fmt: skip
    assert search("cats run the", top=1) == "[2] Dogs chase cats, and cats run."
    assert search("首都在哪里") == "[3] 北京是中国的首都。"
    assert search("zebra") == "None of the 3 passages has a word of the query."
    with pytest.raises(ToolError, match="the query has no words"):
        search(" ?!")


def test_bm25_is_its_formula() -> None:
    passages = [["a", "b", "a", "c"], ["b"], ["c", "d", "d"]]
    # idf("a") = ln(1 + 2.5 / 1.5); tf 2 in a passage of 4 words, the mean is 8 / 3
    norm = 1.2 * (0.25 + 0.75 * 4 / (8 / 3))
    expected = math.log(1 + 2.5 / 1.5) * 2 * 2.2 / (2 + norm)
    scores = bm25(["a"], passages, k1=1.2, b=0.75)
    assert scores == pytest.approx([expected, 0.0, 0.0])
    assert bm25(["a", "a"], passages, k1=1.2, b=0.75)[0] == pytest.approx(2 * expected)
    assert bm25(["a"], [], k1=1.2, b=0.75) == []
    assert bm25(["a"], [[]], k1=1.2, b=0.75) == [0.0]


def test_schemas_are_what_chat_templates_show() -> None:
    for name in ("calculator", "python", "search"):
        tool = textgym.make_tool(name)
        function = tool.function_schema()["function"]
        bare = tool.bare_argument()
        assert (function["name"], function["description"]) == (name, tool.description)
        assert function["parameters"]["type"] == "object"
        assert function["parameters"]["required"] == [bare]
        assert set(function["parameters"]["properties"][bare]) == {"type", "description"}
