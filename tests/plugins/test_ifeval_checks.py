"""The 25 checks: what each accepts and refuses, quirks of the official checker included."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgym.errors import PromptError
from textgym_plugins.ifeval import read_instructions
from textgym_plugins.ifeval.instruction import TYPES

CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    ("punctuation:no_comma", {}, ["a;b", "一，二"], ["a,b"]),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": "at least"},
        ["a b c", "don't go", "one-two-three"],
        ["a b", "... !!! ???"],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": "less than"},
        ["a b"],
        ["a b c"],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "at least"},
        ["It rains. It pours.", "Is it? Yes", 'He said "No." Then he left.'],
        ["It rains", "Mr. Smith left", "It costs 3.50 dollars", "A heading\n\nIt rains."],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["a\n***\nb", "***a***b***", "a***b"],
        ["a", "a\n\nb", "a***b***c", "a***\n***b"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"},
        ["First.\n\nthen we go", "First.\n\n'Then', he said"],
        ["First.\n\nWe go", "Then\n\nwe", "a\n\nThen\n\nb", "Then", "a\n\n\n\nThen"],
    ),
    ("keywords:existence", {"keywords": ["Cat", "dog"]}, ["DOGS and cats"], ["a cat"]),
    (
        "keywords:frequency",
        {"keyword": "cat", "frequency": 2, "relation": "at least"},
        ["Cat, concatenate"],
        ["cat"],
    ),
    (
        "keywords:frequency",
        {"keyword": "c++", "frequency": 2, "relation": "less than"},
        ["C++"],
        ["c++ C++"],
    ),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["bad", "wo(rse"]},
        ["badly", "ok"],
        ["Bad!", "it is BAD"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "A", "let_frequency": 2, "let_relation": "at least"},
        ["aA"],
        ["a"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "!", "let_frequency": 2, "let_relation": "less than"},
        ["hey!"],
        ["hey!!"],
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["NASA and ESA", "DON'T go", "WELL-KNOWN (U.S.)", "CANNOT"],
        ["NASA", "Nasa Esa", "WELL-KNOWN", "CANNOt be"],
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, ["[a] [b]"], ["[a] [b\n]"]),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["x\np. s. y"], ["PS: y"]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["P. P. S y"], ["P.S. y"]),
    ("detectable_content:postscript", {"postscript_marker": "NB"}, ["nb: y"], ["n b"]),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n* b", "\n\n  - a\n* b", "* a\n-b"],
        ["* a", "** a\n** b", "* a\n* b\n* c", "a\nb", "*\n* b"],
    ),
    (
        "detectable_format:constrained_response",
        {},
        ["I say: My answer is no. Sorry"],
        ["my answer is no.", "My answer is no"],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* and *b*", "**a**\n*b*", "**a** **b**"],
        ["*a*", "**", "** **", "*a\nb*"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        ["Section 1\na\nSection 2\nb", "Section1Section 2"],
        ["SECTION 1 SECTION 2", "Section one Section two", "Section 1"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": [1]}', '```json\n{"a": 1}\n```', "```\n3\n```", "NaN"],
        ["{'a': 1}", "a", '{"a": 1', "[" * 3000 + "]" * 3000, "1" * 5000],
    ),
    (
        "detectable_format:title",
        {},
        ["<<A>>", "x <<< a >>> y", "<<a << b>>"],
        ["<<>>", "<< >>", "<<a\n>>", "<a>", ">> a <<"],
    ),
    (
        "combination:two_responses",
        {},
        ["a\n******\nb", "******a******b******"],
        ["a", "a******a", "a******b******c", "a************b"],
    ),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": " Say hi. "},
        ["say HI. Hi!"],
        ["Hi! Say hi."],
    ),
    ("startend:end_checker", {"end_phrase": "The End."}, ['"so the end."  '], ["The End. Bye"]),
    ("startend:quotation", {}, ['"a"', ' "" '], ['"', "a", '"a', "“a”"]),
]
LANGUAGE_CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    (
        "language:response_language",
        {"language": "de"},
        ["Das ist ein ganz gewöhnlicher deutscher Satz.", "123"],
        ["This is an ordinary English sentence."],
    ),
    (
        "change_case:english_capital",
        {},
        ["THIS IS AN ORDINARY ENGLISH SENTENCE."],
        ["THIS IS AN ORDINARY ENGLISH SENTENCe.", "DAS IST EIN GANZ GEWÖHNLICHER SATZ.", "123"],
    ),
    (
        "change_case:english_lowercase",
        {},
        ["this is an ordinary english sentence."],
        ["This is an ordinary english sentence.", "das ist ein ganz gewöhnlicher satz."],
    ),
]


def check(name: str, arguments: dict[str, Any], response: str) -> bool:
    target = {"instruction_id_list": [name], "kwargs": [arguments]}
    [instruction] = read_instructions(target)
    return instruction.check(response).is_followed


@pytest.mark.parametrize(
    ("name", "arguments", "followed", "ignored"), CASES, ids=[case[0] for case in CASES]
)
def test_what_each_type_accepts(
    name: str, arguments: dict[str, Any], followed: list[str], ignored: list[str]
) -> None:
    assert [r for r in followed if not check(name, arguments, r)] == []
    assert [r for r in ignored if check(name, arguments, r)] == []


@pytest.mark.parametrize(
    ("name", "arguments", "followed", "ignored"), LANGUAGE_CASES, ids=lambda v: str(v)[:40]
)
def test_what_language_types_accept(
    name: str, arguments: dict[str, Any], followed: list[str], ignored: list[str]
) -> None:
    pytest.importorskip("langdetect", reason="langdetect is not installed")
    assert [r for r in followed if not check(name, arguments, r)] == []
    assert [r for r in ignored if check(name, arguments, r)] == []


def test_every_type_is_covered() -> None:
    assert {case[0] for case in CASES + LANGUAGE_CASES} == set(TYPES)
    assert len(TYPES) == 25


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (None, "instruction_id_list"),
        ({"instruction_id_list": []}, "expected a list of ids"),
        ({"instruction_id_list": ["punctuation:no_coma"]}, "Did you mean 'punctuation:no_comma'"),
        ({"instruction_id_list": [3]}, "no instruction 3"),
        ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [1]}, "expected an object"),
        ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": []}, "1 objects"),
        (
            {"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": "a"}]},
            "'keywords:existence' is 'a'; expected a list of texts",
        ),
        (
            {
                "instruction_id_list": ["length_constraints:number_words"],
                "kwargs": [{"num_words": 3, "relation": "more than"}],
            },
            "'less than' or 'at least'",
        ),
        (
            {
                "instruction_id_list": ["detectable_format:number_bullet_lists"],
                "kwargs": [{"num_bullets": True}],
            },
            "a whole number from 0",
        ),
    ],
)
def test_a_malformed_target_says_what_is_wrong(target: object, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        read_instructions(target)


def test_copies_of_the_data_set_are_read() -> None:
    target = {
        "instruction_id_list": ["en:keywords:frequency", "combination:repeat_prompt"],
        "kwargs": [
            {"keyword": "a", "frequency": 2.0, "relation": "at least", "num_words": None},
            {"prompt_to_repeat": None},
        ],
    }
    first, second = read_instructions(target, prompt="Say hi.")
    assert first.id == "keywords:frequency"
    assert first.arguments["frequency"] == 2
    assert second.check("Say hi. Hi!").is_followed


@given(st.text(alphabet="*-[]<> \n\tab1.pPsSection", max_size=40), st.integers(0, 3))
def test_rewritten_patterns_count_what_the_plain_ones_count(text: str, number: int) -> None:
    # Plain patterns as the definition has them; they take quadratic time on a hostile response.
    bullets = len(re.findall(r"^\s*\*[^\*].*$", text, re.M)) + len(
        re.findall(r"^\s*-.*$", text, re.M)
    )
    name = "detectable_format:number_bullet_lists"
    assert check(name, {"num_bullets": number}, text) == (bullets == number)
    placeholders = len(re.findall(r"\[.*?\]", text))
    name = "detectable_content:number_placeholders"
    assert check(name, {"num_placeholders": number}, text) == (placeholders >= number)
    titles = re.findall(r"<<[^\n]+>>", text)
    is_titled = any(found.lstrip("<").rstrip(">").strip() for found in titles)
    assert check("detectable_format:title", {}, text) == is_titled
    sections = len(re.split(r"\s?Section\s?\d+\s?", text)) - 1
    arguments = {"section_spliter": "Section", "num_sections": number}
    assert check("detectable_format:multiple_sections", arguments, text) == (sections >= number)


@pytest.mark.parametrize(
    "text", ["[", "\n", " ", "<<", "p. ", '"\\', ". ", "*", "a.", "-", '.")', "\ud800", "{"]
)
def test_a_megabyte_of_anything_takes_linear_time(text: str) -> None:
    arguments = {
        "detectable_content:number_placeholders": {"num_placeholders": 1},
        "detectable_format:number_bullet_lists": {"num_bullets": 1},
        "detectable_format:title": {},
        "detectable_content:postscript": {"postscript_marker": "P.S."},
        "detectable_format:json_format": {},
        "length_constraints:number_sentences": {"num_sentences": 3, "relation": "at least"},
    }
    response = "[" * 501 + text * (500_000 // len(text))
    started = time.perf_counter()
    for name, values in arguments.items():
        check(name, values, response)
    assert time.perf_counter() - started < 20  # quadratic time would take hours
