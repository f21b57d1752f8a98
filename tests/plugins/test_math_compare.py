"""What the math reward holds for equal, what for different, and what for not worked out."""

from __future__ import annotations

import itertools
import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textgym import Prompt, Sample, Score
from textgym_plugins.math import MathReward
from textgym_plugins.math.answer import parse_answer
from textgym_plugins.math.compare import Comparison, equal
from textgym_plugins.math.quantity import parse_quantity

QUESTION = "How much is it in the end?"


def score(target: str, answer: str, question: str = QUESTION) -> Score:
    prompt = Prompt(id="1", messages=question, target=target)
    return MathReward().score(Sample(prompt=prompt, completion=rf"So \boxed{{{answer}}}."))


EQUAL = {
    "integer": [("42", "42"), ("42", "042"), ("42", "+42"), ("0", "-0"), ("42", "42.0")],
    "negative": [("-3", "-3"), ("-3", "−3"), ("-3", "- 3"), ("-3", "minus 3")],
    "decimal": [("0.5", ".5"), ("18.9", "18.90"), ("2.5", "2.50")],
    "repeating decimal": [(r"\frac{1}{3}", r"0.\overline{3}"), (r"0.1\overline{6}", "1/6")],
    "fraction": [
        ("1/2", r"\frac{1}{2}"), (r"\frac12", "0.5"), ("0.5", r"\dfrac{1}{2}"), ("1/2", "2/4"),
        ("-1/2", r"-\frac{1}{2}"), ("-1/2", r"\frac{-1}{2}"), ("-1/2", r"\frac{1}{-2}"),
        ("2", "4/2"), ("3/4", "75%"), ("1/2", "½"),
    ],
    "mixed number": [
        ("2 1/2", "5/2"), (r"2\frac{1}{2}", "2.5"), ("5/2", r"2\frac12"), ("1.5", "1½"),
        (r"-1\frac{1}{2}", "-1.5"),
    ],
    "percent": [("50%", "50%"), ("50%", "0.5"), ("0.25", "25%"), (r"25\%", "1/4")],
    "thousands separator": [
        ("1234", "1,234"), ("1,234,567", "1234567"), ("1000", "1 000"), ("1000", r"1\,000"),
        ("10{,}000", "10000"), ("10000", "10{,}000"), ("1234567", "12,34,567"),
    ],
    "currency": [("18", "$18"), (r"\$18.90", "18.9"), ("18", "18 dollars"), ("$5", "500 cents")],
    "unit added": [("5", "5 cm"), ("5 cm", "5"), ("12", r"12\text{ inches}"), ("36", "36 cm^2")],
    "unit converted": [("5 cm", "50 mm"), ("180 minutes", "3 hours"), ("2 kg", "2000 g")],
    "unit in words": [("5 dollars", "$5"), ("5 apples", "5 apple"), ("18", "18 dollars per day")],
    "degrees": [("90", r"90^\circ"), (r"90^\circ", "90 degrees"), ("90°", "90")],
    "scientific": [
        ("1200", "1.2e3"), ("1200", r"1.2 \times 10^3"), ("1200", r"1.2 \times 10^{3}"),
        ("1200", "1.2 x 10^3"), ("1200", "1.2×10³"), ("0.0012", r"1.2 \cdot 10^{-3}"),
        ("5000", "5 thousand"), ("3000000", "3 million"),
    ],
    "power": [("59049", "3^{10}"), ("16", "4²"), ("1024", "2^10"), ("120", "5!")],
    "radical": [
        (r"2\sqrt{3}", r"2 \sqrt{3}"), (r"2\sqrt{3}", r"\sqrt{12}"), (r"2\sqrt3", "2√3"),
        (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"), (r"\sqrt[3]{54}", r"3\sqrt[3]{2}"),
    ],
    "pi": [
        (r"\pi", "π"), (r"2\pi", "2 pi"), (r"\frac{\pi}{2}", r"\pi/2"), (r"\pi", r"\pi\text{ cm}"),
    ],
    "imaginary unit": [("3+4i", "(2+i)^2"), ("-1", "i^2"), (r"\sqrt{-4}", "2i")],
    "expression": [("x^2+2x+1", "(x+1)^2"), ("2k+2", "2(k+1)"), (r"p - q", r"-q + p")],
    "set": [(r"\{1,2,3\}", r"\{3, 2, 1\}"), ("1,2,3", "3, 2, 1"), ("1, 2", r"1 \text{ and } 2")],
    "solutions": [
        ("2,-2", r"\pm 2"), ("2,-2", r"x = 2 \text{ or } x = -2"), (r"x = \pm 2", "2, -2"),
    ],
    "tuple": [("(1,2)", "(1, 2)"), ("(1,2)", r"\left(1,2\right)"), ("(0.5,2)", r"(\frac12, 2)")],
    "points": [("(1,2),(3,4)", "(3,4),(1,2)")],
    "interval": [("[1,2)", "[1, 2)"), ("[1,2)", r"1 \le x < 2"), (r"x \in [2,5]", "[2,5]")],
    "inequality": [(r"(-\infty, 3]", r"x \leq 3"), ("x<2", "2>x"), (r"x \ne 2", r"x \neq 2")],
    "union": [(r"(-\infty,1)\cup(2,\infty)", r"x<1 \text{ or } x>2"), ("x<1 or x>2", "x>2 or x<1")],
    "matrix": [
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}"),
        (r"\begin{pmatrix}\frac12\\0\end{pmatrix}", r"\begin{pmatrix}0.5\\0\end{pmatrix}"),
    ],
    "equation": [
        ("y = 2x+3", "y = 3 + 2x"), ("y=2x+3", "2x - y + 3 = 0"), ("x=5", "5"), ("5", "x=5"),
    ],
    "function": [("f(x)=2x", "2x"), ("2x", "f(x) = 2x")],
    "chain": [("42", "x = 6 + 36 = 42"), ("10/3", r"\frac{10}{3} \approx 3.33")],
    "full width": [("42", "４２"), ("3.5", "３．５"), ("1/2", "１／２"), ("-5", "－５")],
    "base": [("2516_8", "2516_8"), ("101_2", "101_{2}")],
    "rounded target": [
        (r"\approx 3.14", "3.14159"), (r"\approx 3.14", r"\pi"), ("0.333...", "1/3"),
    ],
}  # fmt: skip


def cases(table: dict[str, list[tuple[str, str]]]) -> list[object]:
    return [
        pytest.param(target, answer, id=f"{name}: {target} | {answer}")
        for name, pairs in table.items()
        for target, answer in pairs
    ]


@pytest.mark.parametrize(("target", "answer"), cases(EQUAL))
def test_equal_values_are_correct(target: str, answer: str) -> None:
    found = score(target, answer)
    assert (found.value, found.label) == (1.0, "correct"), found


@pytest.mark.parametrize(("target", "answer"), cases(EQUAL))
def test_equal_values_are_correct_on_a_line_of_their_own(target: str, answer: str) -> None:
    prompt = Prompt(id="1", messages=QUESTION, target=target)
    found = MathReward().score(Sample(prompt=prompt, completion=f"So it must be:\n{answer}"))
    assert (found.value, found.label) == (1.0, "correct"), found


DIFFERENT = {
    "integer": [("42", "41"), ("42", "420"), ("42", "4"), ("42", "24")],
    "sign": [("5", "-5"), ("-5", "5"), (r"\sqrt{2}", r"-\sqrt{2}"), ("2i", "-2i"), ("x-1", "1-x")],
    "rounding": [
        ("3.14159", "3.14"), ("2/3", "0.67"), ("3", "3.0001"), ("0.333333", "1/3"),
        (r"\pi", "3.14159265358979323846"), (r"\pi", "22/7"),
        (r"\sqrt{2}", "1.41421356237309504880"), ("7", "6.9999999999999999999"),
    ],
    "rounded target": [(r"\approx 3.14", "3.15"), (r"\approx 3.14", "3"), ("0.333...", "0.34")],
    "percent": [("50", "0.5"), ("5%", "5"), ("5", "5%"), ("0.5", "50")],
    "separator": [("1.2", "1,2"), ("12", "1,2"), ("1000", "1.000"), ("1", "1,000"), ("12", "1 2")],
    "unit": [
        ("5 cm", "5 m"), ("5 m", "5 m^2"), ("5 hours", "5 minutes"), ("$5", "5 euros"),
        ("$5", "5 cents"), ("5 apples", "5 pears"), (r"90^\circ", "90 radians"),
    ],
    "scientific": [("1200", "1.2e2"), ("1200", r"1.2 \times 10^{-3}"), ("42", "1e400")],
    "radical": [
        (r"2\sqrt{3}", r"3\sqrt{2}"), (r"\sqrt{2}", r"\pm\sqrt2"), (r"\sqrt[3]{2}", r"\sqrt2"),
    ],
    "pi": [(r"2\pi", r"\pi"), (r"\pi", "2")],
    "set": [(r"\{1,2\}", r"\{1,2,3\}"), (r"\{1,2\}", r"\{1\}"), ("1,2,3", "1,2"), ("1,2", "12")],
    "order": [
        ("(1,2)", "(2,1)"), ("(1,2,3)", "(3,2,1)"), ("(1,2)", "(1,2,3)"), ("(1,2)", r"\{1,2\}"),
    ],
    "end points": [
        ("[1,2)", "(1,2)"), ("[1,2)", "[1,2]"), ("[1,2)", "[1,3)"), ("x<3", r"x \le 3"),
        ("[0,1]", "(0,1)"), ("2<x<3", "2<x"), ("x<3", "x>3"), (r"x \ne 2", "x = 2"),
    ],
    "variable": [("x>2", "y>2"), ("x=2", "y=2"), ("x", "y")],
    "union": [(r"[0,1]\cup[2,3]", "[0,3]"), ("[0,1]", r"[0,1] \cup [2,3]")],
    "matrix": [
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}"),
        (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ],
    "equation": [("y=2x+3", "y=2x-3"), ("y=2x", "0=0"), ("y=2x", "y=y"), ("x^2+y^2=1", "1=1")],
    "base": [("2516_8", "2516_9"), ("10_2", "2")],
    "not a number": [
        ("42", "inf"), ("42", "nan"), ("42", r"\infty"), ("42", "x"), ("42", r"\text{answer}"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("target", "answer"), cases(DIFFERENT))
def test_different_values_are_wrong(target: str, answer: str) -> None:
    found = score(target, answer)
    assert found.is_scored, found
    assert found.value == 0.0, found


GAMED = {
    "list": [("42", "41, 42"), ("42", "42; 41"), ("42", r"42 \text{ or } 41"), ("42", r"42\\41")],
    "set": [("42", r"\{41,42\}"), ("42", r"\{42\} \cup \{41\}"), ("42", r"\mathbb{R}")],
    "range": [
        ("42", "41-43"), ("42", "[41,43]"), ("42", "41<x<43"), ("42", r"42 \pm 1"),
        ("42", "42...44"),
    ],
    "family": [("42", "42 + 5k"), ("42", r"42+\epsilon"), ("42", r"42 \mod 43"), ("42", "42x")],
    "tautology": [("42", "0=0"), ("42", "x=x"), ("42", "1=1")],
    "contradiction": [
        ("42", "41=42"), ("42", "x=41=42"), ("42", r"41 \approx 42"), ("41", r"41 \approx 42"),
    ],
    "quotient": [("42", "42/41"), ("42", "42|41"), ("42", "42:41"), ("42", "42 41")],
    "function": [("42", r"\min(42,43)"), ("42", r"\lfloor 42.5 \rfloor")],
    "condition": [
        ("42", r"x = 42 \text{ or anything}"), ("42", r"42 \lor 41"), ("42", r"42 \vee x=41"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("target", "answer"), cases(GAMED))
def test_answers_that_cover_more_than_the_target_are_refused(target: str, answer: str) -> None:
    found = score(target, answer)
    assert found.is_scored, found
    assert found.value == 0.0, found


RESTATED = {
    "What is 12*7?": (
        "84",
        [
            "12*7", r"12 \times 7", "7*12", "12(7)", "12*7*1", "12*7+0", "x = 12*7", "6*14",
            r"12 \cdot 7 = 12 \cdot 7", "12*7, 12*7", r"\{12*7\}", r"12 \text{ times } 7",
            r"\sqrt{(12 \cdot 7)^2}", r"\sqrt{12^2 \cdot 7^2}", r"|12 \cdot 7|", "12^1*7^1",
            r"\binom{12 \cdot 7}{1}", "84^1*1", r"12 \cdot \sqrt{49}", r"12 \cdot \frac{7!}{6!}",
            r"\frac{120 \cdot 70}{10^2}", r"\frac{5!}{120} \cdot 12 \cdot 7", "e^0*12*7",
            r"12 \cdot 7 \cdot \frac{\pi}{\pi}", r"\ln(e^{12 \cdot 7})", "12x*7/x", "12/(1/7)",
            "12 = 12*7",
        ],
    ),
    "What is 84/7?": ("12", ["84/7", r"\frac{84}{7}", "840/70", r"84 \div 7"]),
    "What is 12 plus 7?": ("19", ["12+7", "7+12"]),
    "What is 12^2?": ("144", ["12^2", "12*12", r"12^{2}"]),
    "What is 12*12*12?": ("1728", ["12^3"]),
    "What is 7 squared?": ("49", ["7^2"]),
    "What is 2 to the power of 10?": ("1024", ["2^{10}"]),
    "What is 5 factorial?": ("120", ["5!"]),
    "What is the square root of 81?": ("9", [r"\sqrt{81}"]),
    r"What is $\log_2 8$?": ("3", [r"\log_2 8"]),
    "Write 1/8 as a decimal.": ("0.125", ["1/8", r"\frac{1}{8}"]),
    "Express 0.75 as a common fraction.": ("3/4", ["0.75"]),
    "Write 50% as a decimal.": ("0.5", ["50%"]),
    "Write 1/4 as a percentage.": ("25%", ["1/4"]),
    "Write 84/168 in lowest terms.": ("1/2", ["84/168", "840/1680"]),
    "Write 5/2 as a mixed number.": (r"2\frac12", ["5/2"]),
    "Write 1.2e3 as an integer.": ("1200", ["1.2e3"]),
    "Expand $(x+1)^2$.": ("x^2+2x+1", ["(x+1)^2", "(1+x)^2"]),
    r"Simplify $\sqrt{12}$.": (r"2\sqrt{3}", [r"\sqrt{12}"]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("question", "target", "answer"),
    [
        pytest.param(question, target, answer, id=f"{question} {answer}")
        for question, (target, answers) in RESTATED.items()
        for answer in answers
    ],
)
def test_restated_question_is_no_answer(question: str, target: str, answer: str) -> None:
    found = score(target, answer, question)
    assert (found.status, found.value) == ("scored", 0.0), found
    assert found.label in ("no_answer", "wrong")
    assert score(target, target, question).value == 1.0


WORKED_OUT = [
    ("What is 12*7?", "84", "12*7 = 84"),
    ("What is 12*7?", "84", "84 = 12*7"),
    ("What is 84/168?", "1/2", "0.5"),
    ("How many strings of length 10 over 3 letters are there?", "59049", "3^{10}"),
    ("In how many ways can 5 of 10 people be chosen?", "252", r"\frac{10!}{5! \cdot 5!}"),
    ("What is the chance of ten heads?", r"\frac{1}{1024}", r"\frac{1}{2^{10}}"),
    ("If $f(x) = 2x$, what is the slope?", "2", "2"),
    ("By what percentage did it fall?", "50", r"50\%"),
    ("By what percentage did 50 fall?", "50%", "50"),
]


@pytest.mark.parametrize(("question", "target", "answer"), WORKED_OUT)
def test_closed_form_and_finished_chain_are_answers(
    question: str, target: str, answer: str
) -> None:
    assert score(target, answer, question).value == 1.0


def test_order_counts_where_the_question_asks_for_one() -> None:
    assert score("1, 2, 3", "3, 2, 1").value == 1.0
    assert score("1, 2, 3", "3, 2, 1", "List them in increasing order.").value == 0.0


def forms(value: int) -> list[str]:
    """Spellings of an integer above 999."""
    grouped = f"{value:,}"
    return [
        str(value), grouped, grouped.replace(",", " "), grouped.replace(",", r"\,"),
        grouped.replace(",", "{,}"), f"{value}.0", f"{value}.", f"+{value}", f"0{value}",
        f"${value}$", f"\\text{{{value}}}", f"${value}.00", f"{value} apples", f"x = {value}",
        rf"\frac{{{value}}}{{1}}", rf"\frac{{{2 * value}}}{{2}}", f"{value}00%",
        f"{value / 1000}e3", rf"{value / 1000} \times 10^3", f"({value})",
        f"{value - 1}+1 = {value}",
        str(value).translate({ord(str(d)): 0xFF10 + d for d in range(10)}), f"**{value}**",
    ]  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(value=st.integers(1_000, 10**7))
def test_an_integer_equals_its_spellings_and_not_its_neighbours(value: int) -> None:
    for form in forms(value):
        assert score(str(value), form).value == 1.0, form
        for other in (value - 1, value + 1, -value, value * 10):
            assert score(str(other), form).value == 0.0, (other, form)


@settings(max_examples=60, deadline=None)
@given(top=st.integers(-500, 500), bottom=st.integers(2, 60))
def test_a_fraction_equals_its_spellings_and_not_its_opposite(top: int, bottom: int) -> None:
    value = Fraction(top, bottom)
    for form in (
        f"{top}/{bottom}",
        rf"\frac{{{top}}}{{{bottom}}}",
        rf"\dfrac{{{3 * top}}}{{{3 * bottom}}}",
    ):
        quantity = parse_quantity(form)
        assert quantity is not None
        assert quantity.value == value
        if top:
            assert score(f"{-top}/{bottom}", form).value == 0.0


@settings(max_examples=60, deadline=None)
@given(st.decimals(-1000, 1000, places=3, allow_nan=False))
def test_decimals_are_exact(value: object) -> None:
    quantity = parse_quantity(str(value))
    assert quantity is not None
    assert quantity.value == Fraction(str(value))


def test_comparison_is_symmetric() -> None:
    texts = [text for pairs in EQUAL.values() for pair in pairs for text in pair]
    answers = [a for a in map(parse_answer, dict.fromkeys(texts)) if a is not None]
    chosen = random.Random(0).sample(list(itertools.combinations(answers, 2)), 3_000)

    def differ(*_: object) -> bool:
        return False

    how = Comparison(oracle=differ)
    for left, right in chosen:
        assert equal(left, right, how) == equal(right, left, how), (left.text, right.text)


@pytest.mark.parametrize(
    "text", ["1 " * 3, "1/0", r"\frac{1}{0}", "2 3/2", "1e999", "0x2A", "1_000"]
)
def test_no_plain_number(text: str) -> None:
    assert parse_quantity(text) is None
