"""The checks of IFEval's 25 instruction types, each a function from a response to a `Finding`.

What counts is what the official checker counts, quirks included (instruction_following_eval of
google-research, Zhou et al. 2023, arXiv:2311.07911). Its regular expressions are written anew where
they take quadratic time on a hostile response, and what the prompt gives (keywords, section marks)
is always literal text here: prompts are data, and no prompt of IFEval holds a pattern.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Literal, NamedTuple

from textgym_plugins.ifeval.language import detect_language
from textgym_plugins.ifeval.sentences import split_sentences
from textgym_plugins.ifeval.words import count_capital_words, count_words
from textgym_plugins.rules.json_text import parse_json

Relation = Literal["less than", "at least"]


class Finding(NamedTuple):
    """Whether an instruction is followed, and what was found instead of what."""

    is_followed: bool
    note: str


_HIGHLIGHT = re.compile(r"\*[^\n*]*\*")
_DOUBLE_HIGHLIGHT = re.compile(r"\*\*[^\n*]*\*\*")
_STAR_BULLET = re.compile(r"^[^\S\n]*\*[^*].*$", re.MULTILINE)
_DASH_BULLET = re.compile(r"^[^\S\n]*-.*$", re.MULTILINE)
_BRACKETS = re.compile(r"\[[^\]\n]*\]?")
_DIVIDER = re.compile(r"\s?\*\*\*\s?")
_MARKERS = {"P.P.S": re.compile(r"p\.\s?p\.\s?s"), "P.S.": re.compile(r"p\.\s?s\.")}
_FIRST_WORD = re.compile(r"[^.,?!'\"]*")
_FENCES = ("```json", "```Json", "```JSON", "```")
_OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def number_words(response: str, *, num_words: int, relation: Relation) -> Finding:
    """Count runs of word characters."""
    return _compare(count_words(response), relation, num_words, "words")


def number_sentences(response: str, *, num_sentences: int, relation: Relation) -> Finding:
    """Count sentences."""
    return _compare(len(split_sentences(response)), relation, num_sentences, "sentences")


def number_paragraphs(response: str, *, num_paragraphs: int) -> Finding:
    """Count what `***` separates; empty pieces are allowed at both ends only."""
    pieces = [piece.strip() for piece in _DIVIDER.split(response)]
    count = len(pieces) - (not pieces[0]) - (len(pieces) > 1 and not pieces[-1])
    if not all(pieces[1:-1]):
        return Finding(False, "an empty paragraph between two dividers")
    return _exactly(count, num_paragraphs, "paragraphs")


def nth_paragraph_first_word(
    response: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str
) -> Finding:
    """Count what blank lines separate, and look at the first word of one of them."""
    pieces = [piece.strip() for piece in response.split("\n\n")]
    count = sum(map(bool, pieces))
    # Empty pieces are not counted, yet they are numbered: so does the official checker.
    paragraph = pieces[nth_paragraph - 1] if nth_paragraph <= count else ""
    if not paragraph:
        return Finding(False, f"no paragraph {nth_paragraph} among {count}")
    head = paragraph.split(maxsplit=1)[0].lstrip("'").lstrip('"')
    match = _FIRST_WORD.match(head)
    assert match is not None
    word = "".join(letter.lower() for letter in match[0][:1000])
    if word != first_word.lower():
        found, wanted = _short(word), _short(first_word)
        return Finding(False, f"paragraph {nth_paragraph} begins with {found}, not {wanted}")
    return _exactly(count, num_paragraphs, "paragraphs")


def keyword_existence(response: str, *, keywords: tuple[str, ...]) -> Finding:
    """Look for each keyword, also within words."""
    for keyword in sorted(keywords):
        if not _literal(keyword).search(response):
            return Finding(False, f"no {_short(keyword)}")
    return Finding(True, "every keyword")


def keyword_frequency(
    response: str, *, keyword: str, frequency: int, relation: Relation
) -> Finding:
    """Count a keyword, also within words."""
    count = len(_literal(keyword.strip()).findall(response))
    return _compare(count, relation, frequency, f"times {_short(keyword)}")


def forbidden_words(response: str, *, forbidden_words: tuple[str, ...]) -> Finding:
    """Look for each forbidden word as a whole word."""
    for word in sorted(set(forbidden_words)):
        if re.search(rf"\b{re.escape(word)}\b", response, re.IGNORECASE):
            return Finding(False, f"holds {_short(word)}")
    return Finding(True, "no forbidden word")


def letter_frequency(
    response: str, *, letter: str, let_frequency: int, let_relation: Relation
) -> Finding:
    """Count a character, capital or not."""
    count = Counter(response.lower())[letter.lower()]
    # The official checker takes every relation but `less than` for `at least`, here and below.
    return _compare(count, let_relation, let_frequency, f"times {_short(letter)}")


def capital_word_frequency(
    response: str, *, capital_frequency: int, capital_relation: Relation
) -> Finding:
    """Count words in capitals."""
    return _compare(
        count_capital_words(response), capital_relation, capital_frequency, "words in capitals"
    )


def english_capital(response: str) -> Finding:
    """See that there is no small letter, then that the language is English."""
    if not response.isupper():
        return Finding(False, "not all in capitals")
    return response_language(response, language="en")


def english_lowercase(response: str) -> Finding:
    """See that there is no capital letter, then that the language is English."""
    if not response.islower():
        return Finding(False, "not all in small letters")
    return response_language(response, language="en")


def response_language(response: str, *, language: str) -> Finding:
    """Detect the language; a text without one, such as a number, passes."""
    found = detect_language(response)
    if found is None:
        return Finding(True, "no language to detect")
    return Finding(found == language, f"the language is {found}")


def no_comma(response: str) -> Finding:
    """Count commas."""
    count = response.count(",")
    return Finding(not count, f"{count} commas")


def number_placeholders(response: str, *, num_placeholders: int) -> Finding:
    """Count pairs of square brackets within a line."""
    count = sum(found.endswith("]") for found in _BRACKETS.findall(response))
    return _compare(count, "at least", num_placeholders, "placeholders")


def postscript(response: str, *, postscript_marker: str) -> Finding:
    """Look for the marker anywhere."""
    marker = postscript_marker.strip()
    text = response.lower()
    pattern = _MARKERS.get(marker)
    is_there = marker.lower() in text if pattern is None else pattern.search(text) is not None
    return Finding(is_there, "a postscript" if is_there else f"no {_short(marker)}")


def number_bullet_lists(response: str, *, num_bullets: int) -> Finding:
    """Count lines that begin with one `*` or with `-`."""
    count = len(_STAR_BULLET.findall(response)) + len(_DASH_BULLET.findall(response))
    return _exactly(count, num_bullets, "bullet points")


def constrained_response(response: str) -> Finding:
    """Look for one of the three answers anywhere."""
    found = next((option for option in _OPTIONS if option in response), None)
    return Finding(found is not None, found or "none of the three answers")


def number_highlighted_sections(response: str, *, num_highlights: int) -> Finding:
    """Count `*spans*` and, once more, `**spans**`."""
    single = sum(bool(span.strip("*").strip()) for span in _HIGHLIGHT.findall(response))
    double = sum(bool(span[2:-2].strip()) for span in _DOUBLE_HIGHLIGHT.findall(response))
    return _compare(single + double, "at least", num_highlights, "highlighted sections")


def multiple_sections(response: str, *, section_spliter: str, num_sections: int) -> Finding:
    """Count section marks followed by a number."""
    mark = re.compile(rf"{re.escape(section_spliter.strip())}\s?\d+")
    return _compare(len(mark.findall(response)), "at least", num_sections, "sections")


def json_format(response: str) -> Finding:
    """Parse the response, without the fence around it, as JSON."""
    text = response.strip()
    for fence in _FENCES:
        text = text.removeprefix(fence)
    text = text.removesuffix("```").strip()
    try:
        parse_json(text, allow_constants=True)
    except ValueError as error:
        return Finding(False, f"not JSON: {_short(str(error))}")
    return Finding(True, "JSON")


def title(response: str) -> Finding:
    """Look for a line that holds `<<` and, later, `>>` with something between."""
    for line in response.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if 0 <= start <= end - 3 and line[start : end + 2].lstrip("<").rstrip(">").strip():
            return Finding(True, "a title")
    return Finding(False, "no <<title>>")


def two_responses(response: str) -> Finding:
    """See that six asterisks separate two texts that differ."""
    pieces = [piece.strip() for piece in response.split("******")]
    if not all(pieces[1:-1]):
        return Finding(False, "nothing between two separators")
    kept = [piece for piece in pieces if piece]
    if len(kept) != 2:
        return Finding(False, f"{len(kept)} responses, not 2")
    return Finding(kept[0] != kept[1], "two responses" if kept[0] != kept[1] else "equal responses")


def repeat_prompt(response: str, *, prompt_to_repeat: str) -> Finding:
    """See that the response begins with the prompt, capital letters aside."""
    is_repeated = response.strip().lower().startswith(prompt_to_repeat.strip().lower())
    return Finding(is_repeated, "repeats the prompt" if is_repeated else "another beginning")


def end_checker(response: str, *, end_phrase: str) -> Finding:
    """See that the response ends with the phrase, capital letters and quotes aside."""
    is_there = response.strip().strip('"').lower().endswith(end_phrase.strip().lower())
    return Finding(is_there, f"{'ends' if is_there else 'does not end'} with the phrase")


def quotation(response: str) -> Finding:
    """See that the response stands between double quotes."""
    text = response.strip()
    is_quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return Finding(is_quoted, "in quotes" if is_quoted else "not in double quotes")


def _compare(count: int, relation: Relation, threshold: int, what: str) -> Finding:
    is_followed = count < threshold if relation == "less than" else count >= threshold
    return Finding(is_followed, f"{count} {what}, {relation} {threshold} asked")


def _exactly(count: int, threshold: int, what: str) -> Finding:
    return Finding(count == threshold, f"{count} {what}, {threshold} asked")


def _literal(keyword: str) -> re.Pattern[str]:
    return re.compile(re.escape(keyword), re.IGNORECASE)


def _short(text: str) -> str:
    return repr(text) if len(text) <= 40 else f"{text[:40]!r}..."
