from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import textgym
from textgym import ConfigError
from textgym.make import make_prompt_source
from textgym_plugins.arithmetic import Arithmetic, evaluate


def test_prompt_decodes_its_index() -> None:
    source = Arithmetic(digits=2)
    prompt = source.prompt(12 + 100 * 34)  # the first operand is the lowest digit in base 100
    assert prompt.id == "12+34"
    assert prompt.text == "12+34="
    assert prompt.target == "46"
    assert prompt.reward == "math"
    assert prompt.metadata == {"task": "arithmetic"}


@pytest.mark.parametrize(
    ("operands", "operators", "value"),
    [
        ([1, 2], "+", 3),
        ([1, 2], "-", -1),
        ([1, 2, 3], "+*", 7),
        ([1, 2, 3], "*-", -1),
        ([9, 2, 3, 4], "-**", -15),
        ([9, 2, 3], "--", 4),
    ],
)
def test_evaluate_by_hand(operands: list[int], operators: str, value: int) -> None:
    assert evaluate(operands, list(operators)) == value


@given(
    index=st.integers(min_value=0),
    digits=st.integers(1, 4),
    operands=st.integers(2, 4),
    operators=st.sampled_from(["+", "-", "*", "+-", "*+", "-+*"]),
)
def test_target_is_what_python_computes(
    index: int, digits: int, operands: int, operators: str
) -> None:
    source = Arithmetic(digits=digits, operands=operands, operators=operators)
    prompt = source.prompt(index % source.num_prompts())
    expression = prompt.text.removesuffix("=")
    assert prompt.id == expression
    numbers = re.findall(r"\d+", expression)
    assert len(numbers) == operands
    assert all(int(number) < 10**digits for number in numbers)
    assert set(re.findall(r"\D", expression)) <= set(operators)
    assert prompt.target == str(eval(expression))


def test_every_expression_occurs_once() -> None:
    source = Arithmetic(below=5, operators="-*", operands=3)
    ids = {source.prompt(i).id for i in range(source.num_prompts())}
    assert len(ids) == source.num_prompts() == 5**3 * 2**2


def test_limit_spreads_distinct_prompts_over_a_larger_space() -> None:
    source = Arithmetic(digits=6, operators="+-", operands=3, limit=20_000)
    prompts = [source.prompt(i) for i in range(source.num_prompts())]
    assert len({p.id for p in prompts}) == 20_000
    first = np.array([int(re.match(r"\d+", p.id)[0]) for p in prompts])  # type: ignore[index]
    last = np.array([int(re.search(r"\d+$", p.id)[0]) for p in prompts])  # type: ignore[index]
    for operand in (first, last):  # uniform on [0, 1e6): standard error of the mean 0.002e6
        assert operand.mean() == pytest.approx(5e5, rel=0.05)
    assert abs(np.corrcoef(first, last)[0, 1]) < 0.05


def test_split_keys_follow_the_expression_and_not_the_configuration() -> None:
    small, large = Arithmetic(below=20), Arithmetic(digits=3)
    sampled = Arithmetic(digits=3, limit=5_000)
    keys = {
        source: {source.prompt(i).id: k for i, k in enumerate(source.split_keys().tolist())}
        for source in (small, sampled)
    }
    large_keys = large.split_keys().tolist()
    for name, key in keys[small].items():
        a, b = map(int, name.split("+"))
        assert large_keys[a + 1000 * b] == key
    for name, key in keys[sampled].items():
        a, b = map(int, name.split("+"))
        assert large_keys[a + 1000 * b] == key


def test_split_keys_are_distinct_and_uniform() -> None:
    keys = Arithmetic(digits=2, operators="+-*").split_keys()
    assert len(set(keys.tolist())) == 30_000
    assert (keys < np.uint64(1 << 61)).mean() == pytest.approx(1 / 8, abs=0.01)


def test_text_is_a_template_without_format_codes() -> None:
    source = Arithmetic(text="{x} What is {expression}? {expression}")
    assert source.prompt(1).text == "{x} What is 1+0? 1+0"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"operators": "+/"}, "operators='\\+/' must be distinct characters out of"),
        ({"operators": ""}, "operators=''"),
        ({"operators": "++"}, "operators='\\+\\+'"),
        ({"below": 101}, "below=101 allows operands of more than digits=2 digits; set digits to 3"),
        ({"text": "{expr}="}, "does not contain '{expression}'"),
        ({"digits": 18, "operands": 8}, "can be numbered"),
        ({"digits": 0}, "'digits' is 0"),
        ({"digts": 1}, "no field 'digts'. Did you mean 'digits'"),
    ],
)
def test_configuration_errors_name_field_and_value(config: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_prompt_source("arithmetic", **config)


@pytest.mark.parametrize("index", [-1, 10_000])
def test_prompt_outside_the_source(index: int) -> None:
    with pytest.raises(IndexError, match=f"prompt {index} of 10000"):
        Arithmetic().prompt(index)


def test_source_pickles_and_comes_through_the_plugin_manager() -> None:
    source = Arithmetic(below=50)
    assert pickle.loads(pickle.dumps(source)) == source
    assert textgym.plugin_manager().prompt_source_class("arithmetic") is Arithmetic
