"""Completions written to break or to cheat the math reward: none hangs, crashes, runs or wins."""

from __future__ import annotations

import random
import string
import time
from pathlib import Path

import pytest

from textgym import Prompt, Sample, Score
from textgym_plugins.math import MathReward

MEGABYTE = 1_000_000
QUESTION = "How much is it in the end?"


def score(completion: str, target: str = "42") -> Score:
    prompt = Prompt(id="1", messages=QUESTION, target=target)
    return MathReward().score(Sample(prompt=prompt, completion=completion))


HUGE = {
    "power tower": "9**9**9**9",
    "power tower in a box": r"\boxed{9^{9^{9^9}}}",
    "ten to the ten to the ten": "10**10**10",
    "braced tower": r"\boxed{10^{10^{10}}}",
    "factorial call": "factorial(10**8)",
    "factorial": r"\boxed{(10^8)!}",
    "factorials of factorials": "(((9!)!)!)!",
    "binomial": r"\boxed{\binom{10^9}{10^8}}",
    "product of powers": r"\boxed{" + r"\cdot ".join(["9^{9999}"] * 50) + "}",
    "tower with a variable": r"\boxed{9^{9^{x}}}",
    "huge exponent": "1e999999999",
    "huge literal": "9" * 5_000,
    "wide product": r"\boxed{(x+y+z)^{500}}",
    "expensive function": r"\boxed{e^{e^{e^{e^{5}}}}}",
    "root of a huge index": r"\boxed{\sqrt[99999]{2}}",
    "huge argument": r"\boxed{\sin(10^{300})}",
}


@pytest.mark.parametrize("target", ["42", r"\sqrt{2}+\pi", "x^2+1"])
@pytest.mark.parametrize("completion", HUGE.values(), ids=HUGE)
def test_huge_values_are_wrong_at_once(completion: str, target: str) -> None:
    started = time.perf_counter()
    found = score(completion, target)
    assert found.is_scored, found
    assert found.value == 0.0
    assert time.perf_counter() - started < 4  # where the algebra system has to start: under 2 s


DEEP = {
    "boxes": r"\boxed{" * 10_000 + "41" + "}" * 10_000,
    "open boxes": r"\boxed{" * 10_000,
    "braces in a box": r"\boxed{" + "{" * 10_000 + "42" + "}" * 10_000 + "}",
    "fractions": r"\boxed{" + r"\frac{" * 5_000 + "}",
    "parentheses": "(" * 10_000 + "42" + ")" * 10_000,
    "parentheses in a box": r"\boxed{" + "(" * 900 + "42" + ")" * 900 + "}",
    "roots": r"\boxed{" + r"\sqrt{" * 200 + "4" + "}" * 200 + "}",
    "signs": r"\boxed{" + "-" * 1_901 + "42}",
    "pairs": r"\boxed{" + "(1," * 60 + "1" + ")" * 60 + "}",
    "powers": r"\boxed{" + "9^{" * 40 + "9" + "}" * 40 + "}",
    "plus-minus": r"\boxed{42" + r"\pm 0" * 100 + "}",
    "set of plus-minus": r"\boxed{\{" + r"\pm 1," * 100 + r"\pm 2\}}",
}


@pytest.mark.parametrize("completion", DEEP.values(), ids=DEEP)
def test_deep_nesting_is_wrong_at_once(completion: str) -> None:
    started = time.perf_counter()
    assert score(completion).value == 0.0
    assert time.perf_counter() - started < 1


PIECES = [
    "7", " ", "\n", r"\boxed{", r"\boxed{1}", "the answer is ", "The answer is 5. ", ",", "$", "$$",
    r"\frac{", r"\frac12 ", "(", "{", "[", r"\[", r"\]", r"\(", "#", "####", "#### 5\n", "#### 5 ",
    "A:", "A: 5\n", "<", "<think>", "</think>", "<<", "=", "=5", "-", "+1", ".", ".1", "1,", ",000",
    "^", "9^", "!", "5 ", "5 or ", "wait no ", "is ", "nswer", "answer is is ", "答案是",
    "答案：5\n", "%", "5%", "word ", "\0",
    "\u200b", "\ud800", "\u0301", "５", "²", r"\sqrt{", r"\left(",
    r"\begin{pmatrix}", r"\text{", "\\", r"\\ ", "1&", "\t", "\r", "5?", "*", "_", "`", "```\n",
    '"', "A) 5 ", "(A) 5\n", "not ", r"\pm 1", r"[1,2]\cup ", r"x\le ", "1 and ", "x_",
    r"0.\overline{3}", "1e9", "5 because ", "but it is 5 ", "not a but ", "\\boxed{1} or ",
    "\xa0", "5 percent ", "5 of the ", "5 per ",
]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES, ids=repr)
def test_a_megabyte_of_anything_is_judged_at_once(piece: str) -> None:
    text = piece * (MEGABYTE // len(piece))
    for completion in (
        text,
        text + r"\boxed{",
        "The answer is " + text[:6_000],
        "x\n" + text[:1_900],
    ):
        started = time.perf_counter()
        found = score(completion)
        assert time.perf_counter() - started < 1
        assert (found.status, found.value) == ("scored", 0.0)


@pytest.mark.parametrize("piece", PIECES, ids=repr)
def test_hostile_text_against_other_targets_is_judged_at_once(piece: str) -> None:
    for target in ("ellipse", "C", r"\frac{1}{3}", "[1, 2)"):
        started = time.perf_counter()
        found = score(rf"So \boxed{{{piece * 90}}}", target)
        assert time.perf_counter() - started < 1
        assert (found.status, found.value) == ("scored", 0.0)


def test_hostile_targets_do_no_harm() -> None:
    for piece in PIECES:
        started = time.perf_counter()
        found = score("6", target=piece * 100 + "z")
        assert time.perf_counter() - started < 8  # at most one symbolic time limit
        assert found.status != "scored" or found.value == 0.0


CODE = [
    "__import__('os').system('touch {path}')",
    "\\boxed{{__import__('os').system('touch {path}')}}",
    "The answer is __import__('os').system('touch {path}')",
    "exec(\"open('{path}', 'w')\")",
    "eval(\"open('{path}', 'w')\")",
    "#### open('{path}', 'w')",
    "\\boxed{{\\text{{open('{path}','w')}}}}",
]


@pytest.mark.parametrize("line", CODE)
@pytest.mark.parametrize("target", ["42", r"\sqrt{2}", "x"])
def test_code_is_never_run(line: str, target: str, tmp_path: Path) -> None:
    path = tmp_path / "ran"
    assert score(line.format(path=path), target).value == 0.0
    assert not path.exists()


@pytest.mark.parametrize(
    "completion",
    ["lambda: 42", "print(42)", "eval('42')", "int('42')", "return 42", "exec('print(42)')",
     "x = int('42')", "0x2A", "0b101010", "42.0.0", "4_2", "42!!", "def f(): return 42",
     "{'answer': 42}", "[42][0]", "42;import os", "ground_truth", "{target}", "sys.maxsize"],
)  # fmt: skip
def test_code_is_no_answer(completion: str) -> None:
    assert score(completion).value == 0.0


LOOK_ALIKES = {
    "zero width space inside": "4\u200b2",
    "word joiner inside": "4\u20602",
    "soft hyphen inside": "4\u00ad2",
    "override": "\u202e24",
    "override inside": "4\u202e2",
    "arabic digits": "٤٢",
    "devanagari digits": "४२",
    "mathematical digits": "𝟒𝟐",
    "circled digits": "④②",
    "superscript": "⁴²",
    "subscript": "₄₂",
    "chinese digits": "四十二",
    "roman after": "42ⅹ",
    "cyrillic after": "42х",
    "cyrillic before": "х42",
    "combining mark": "4\u03012",
    "struck through": "42\u0338",
    "NUL inside": "4\x002",
    "surrogate inside": "4\ud8002",
    "letter O": "O42",
    "letter l": "4l",
}


@pytest.mark.parametrize("text", LOOK_ALIKES.values(), ids=LOOK_ALIKES)
@pytest.mark.parametrize("frame", ["{}", "The answer is {}.", r"\boxed{{{}}}", "#### {}"])
def test_look_alikes_of_the_target_are_refused(text: str, frame: str) -> None:
    assert score(frame.format(text)).value == 0.0


@pytest.mark.parametrize(
    ("target", "look_alike"), [("x", "х"), ("C", "С"), ("0", "О"), ("1", "l"), ("16", "4²²")]
)
def test_homoglyphs_are_refused(target: str, look_alike: str) -> None:
    assert score(look_alike, target).value == 0.0


@pytest.mark.parametrize("text", ["42\u200b", "\ufeff42", "42\u200d", "\u206042"])
def test_invisible_characters_around_an_answer_do_not_hide_it(text: str) -> None:
    assert score(rf"\boxed{{{text}}}").value == 1.0


def test_random_text_never_crashes_and_never_wins() -> None:
    generator = random.Random(0)
    prompt = Prompt(id="1", messages="What is 100000 + 23456?", target="123456")
    alphabets = (string.printable, "0123456789+-*/=. ", PIECES)
    samples = [
        Sample(prompt, "".join(generator.choices(alphabets[i % 3], k=generator.randint(1, 40))))
        for i in range(6_000)
    ]
    scores = MathReward().score_batch(samples)
    assert {(each.status, each.value) for each in scores} == {("scored", 0.0)}
