r"""The reward `choice`: 1.0 if the answer picks the right option of a multiple-choice question.

The last statement that commits to a letter counts ("the answer is (B)", `\boxed{B}`, "Option B is
correct", 答案是B), so a correction wins over what it corrects. Without a statement the answer may
be the letter alone, one line that begins with it, or the text of an option. Naming several options
commits to none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from textgym import Reward, Sample, Score
from textgym.reward import Isolation
from textgym_plugins.rules.text import normalize, short
from textgym_plugins.thinking import after_thinking

_LETTERS = "ABCDEFGHIJ"
_BARE = r"([A-J])(?![A-Za-z'’])"
_LETTER = rf"[\s*_`\"'\[（【]{{0,6}}(?:\(([A-Ja-j])\)|{_BARE})"
_STATEMENTS = tuple(
    re.compile(pattern)
    for pattern in (
        r"\\(?:boxed|fbox)\s?\{[\s(]{0,3}(?:\\(?:text|textbf|mathrm|mathbf)\s?\{)?[\s(]{0,3}"
        r"([A-Ja-j])(?![A-Za-z])",
        r"(?i:\b(?:answer|choice|option|solution)\b[*_]{0,2}"
        r"(?:\s(?:is|was|would\sbe|should\sbe|must\sbe)\b|\s?[:=：])\s?[:：]?"
        rf"(?:\s?(?:option|choice)\b)?){_LETTER}",
        r"(?i:\b(?:choose|chose|pick|select|go\swith)\b(?:\s(?:option|choice|answer)\b)?)"
        rf"{_LETTER}",
        r"\b(?i:option|choice|answer)\s[*_(\[]{0,3}" + _BARE + r"[*_)\]]{0,4}\s(?i:is\s(?:the\s)?"
        r"(?:correct|right|best|true)\b)",
        r"[*_(\[]{0,3}\b"
        + _BARE
        + r"[*_)\]]{0,4}\s(?i:is\s(?:the\s)?(?:correct|right|best|true)\b)",
        r"(?:答案|正确选项|正確選項|应选|應選|选择|選擇|故选|选|選)(?:应该|應該)?[是为為]?"
        rf"\s?[:：]?{_LETTER}",
    )
)
_SEVERAL = re.compile(
    r"[)\]}*_`\"'）】]{0,4}\s?(?:or|and|/|,|、|或|和|&)\s?[*_(\[（]{0,3}([A-J])(?![A-Za-z'’])"
)
_NEGATED = re.compile(r"(?i:\b(?:not|never|cannot)|n['’]t|不|不是|并非|並非)\W{0,3}\Z")
_AFTER_LETTER = re.compile(r"\s{0,3}(?:[^\w\s]|\Z)|[ \t]*\n|\s(?:because|since|as|for|is)\b")
_ARTICLES = "AI"
_ALONE = re.compile(r"[\W_]{0,8}([A-Ja-j])[\W_]{0,8}")
_LINE = re.compile(r"^[ \t*_(\[（>#-]{0,8}([A-J])[*_]{0,2}[.):：）\]]", re.MULTILINE)
_LONGEST = 100_000
_TAIL = 500


class Question(NamedTuple):
    """What the target of a prompt says."""

    letter: str
    choices: tuple[str, ...]


class ChoiceReward(Reward):
    """Whether the answer picks the right option."""

    name: ClassVar[str] = "choice"
    isolation: ClassVar[Isolation] = "inline"

    def score(self, sample: Sample) -> Score:
        """Return 1.0 (`correct`) or 0.0 (`wrong`, `no_answer`), with the letter picked."""
        question = read_question(sample.prompt.target)
        if question is None:
            return Score.unscored(
                f"the target of prompt '{sample.prompt.id}' is {short(str(sample.prompt.target))}; "
                "expected a letter, an index from 0, or {'answer': ..., 'choices': [...]}"
            )
        answer = after_thinking(sample.completion)
        if answer is None:
            return Score(0.0, label="no_answer", reason="the think tag is never closed")
        letter, how = pick(_without_echo(answer, sample.prompt.text), question.choices)
        if letter is None:
            return Score(0.0, label="no_answer", reason=how)
        is_right = letter == question.letter
        label = "correct" if is_right else "wrong"
        return Score(float(is_right), label=label, reason=how, extracted=letter)


def read_question(target: object) -> Question | None:
    """Return the right letter, and the options where the target has them."""
    choices: tuple[str, ...] = ()
    if isinstance(target, Mapping):
        given = target.get("choices", [])
        if not isinstance(given, list) or len(given) > len(_LETTERS):
            return None
        choices, target = tuple(map(str, given)), target.get("answer")
    letters = _LETTERS[: len(choices)] if choices else _LETTERS
    if isinstance(target, int) and not isinstance(target, bool) and 0 <= target < len(letters):
        return Question(letters[target], choices)
    if isinstance(target, str) and len(target.strip("() .")) == 1:
        letter = target.strip("() .").upper()
        return Question(letter, choices) if letter in letters else None
    return None


def pick(answer: str, choices: tuple[str, ...] = ()) -> tuple[str | None, str]:
    """Return the letter that an answer commits to, or None, and how it was found."""
    text = answer.strip()[-_LONGEST:]
    # Most answers end in their statement: look there first, and everywhere only if need be.
    if stated := _statements(text, len(text) - _TAIL) or _statements(text, 0):
        last = max(stated, key=re.Match.end)
        letter, other = _letter(last), _SEVERAL.match(text, last.end(last.lastindex or 0))
        if other is not None and other[1] != letter:
            return None, "names several options"
        return letter, f"states {short(last[0])}"
    alone = _ALONE.fullmatch(text)
    if alone is not None:
        return alone[1].upper(), "the letter alone"
    return _from_options(text, choices)


def _statements(text: str, start: int) -> list[re.Match[str]]:
    found = (match for pattern in _STATEMENTS for match in pattern.finditer(text, max(0, start)))
    return [match for match in found if _commits(match, text)]


def _letter(match: re.Match[str]) -> str:
    return match[match.lastindex or 0].upper()


def _commits(match: re.Match[str], text: str) -> bool:
    """Whether the letter is an option's and no article or pronoun, and is not denied."""
    if _letter(match) in _ARTICLES and _AFTER_LETTER.match(text, match.end()) is None:
        return match[0].isascii() and match[0].endswith(("correct", "right", "best", "true"))
    return _NEGATED.search(text[max(0, match.start() - 12) : match.start()]) is None


def _from_options(text: str, choices: tuple[str, ...]) -> tuple[str | None, str]:
    """Return the option of the only marked line, or the option that the whole text is."""
    marked = {match[1] for match in _LINE.finditer(text)}
    if len(marked) == 1:
        return marked.pop(), "the only marked line"
    if marked:
        return None, "several options are listed and none is picked"
    key = normalize(text).rstrip(".。")
    same = [i for i, choice in enumerate(choices) if normalize(choice).rstrip(".。") == key]
    if key and len(same) == 1:
        return _LETTERS[same[0]], "the text of an option"
    return None, "no statement of an option"


def _without_echo(answer: str, prompt: str) -> str:
    """Return the answer without the prompt that it begins with: a question is no answer."""
    prompt = prompt.strip()
    return answer.strip().removeprefix(prompt) if len(prompt) >= 8 else answer
