"""Whether a completion claims something else where the question asks for one thing.

"Paul Reed is the director; he succeeded Elena Marsh" names Elena Marsh and claims Paul Reed. It
shows in the noun that the question asks for: one clause says who *is* it, and the reference stands
in another that does not speak of it. Anything less plain is left alone.
"""

from __future__ import annotations

import functools
import re

from textgym_plugins.kbqa.clauses import Clause
from textgym_plugins.kbqa.roles import announces, content_words
from textgym_plugins.kbqa.target import Span

_NAME = r"(?:[A-Z][\w'.-]*)(?: (?:of |de |van |von |the )?[A-Z][\w'.-]*){0,4}"
_SUBJECT = re.compile(
    rf"^\W*(?P<name>{_NAME}) (?:is|was|became|served as|remains) (?:the |a |"
    rf"an )?(?P<rest>.{{3,120}})"
)
_PREDICATE = re.compile(rf"^\W*(?:[Tt]he )?(?P<rest>[^,]{{3,120}}?) (?:is|was) (?P<name>{_NAME})")
_DOER = re.compile(rf"^\W*(?:[Tt]he )?(?P<name>{_NAME}) (?P<rest>[a-z].{{3,120}})")
_NAMING = ((_SUBJECT, 0.5), (_PREDICATE, 0.5), (_DOER, 0.75))
_CAPITAL = re.compile("[A-Z]")
_DEED = re.compile(r"([a-z]+) (?:it|him|her|them|this|that)\b")
"""A verb whose object is what the question is about."""
_CHINESE = re.compile(
    r"(?P<noun>[\u3400-\u9fff]{2})(?:应该|就|则)?(?:是|为)(?P<name>[\u3400-\u9fffA-Za-z]{2,12})$"
)
_PRONOUNS = frozenset("it this that these those he she they there the what which who".split())
_NO_NAMES = _PRONOUNS | frozenset(
    "so thus therefore hence also then however indeed clearly well yes no but and or in on at from "
    "since as because based according given finally overall here now today answer".split()
)
"""What begins a sentence with a capital and names nobody."""
_ASKING = re.compile("什么|谁|哪|多少|几")
_FORMER = re.compile(
    r"\b(?:former|previous|until|before|earlier|then|used to|predecessor|succeeded by|initially|"
    r"originally|if)\b|前任|上届|上一|曾|原|去年|之前|如果"
)
_YEAR = re.compile(r"(?<!\d)(?:1\d{3}|20\d{2})(?!\d)")


def is_rivalled(cased: str, clauses: list[Clause], question: str, spans: list[Span]) -> bool:
    """Whether one clause says what the asked thing is, and the reference stands apart from it.

    Args:
        cased: the folded completion.
        clauses: its clauses.
        question: the folded, lower-case question.
        spans: the places of the reference.
    """
    asked = content_words(question)
    holding = [c for c in clauses if any(c.start <= a < c.end for a, _ in spans)]
    for clause in clauses:
        if clause.is_question:
            continue
        if clause in holding:
            first = next(a for a, _ in spans if clause.start <= a < clause.end)
            if _claimed_noun(cased[clause.start : first], asked, question) and len(spans) == 1:
                return True
            continue
        noun = _claimed_noun(cased[clause.start : clause.end], asked, question)
        if noun and not any(_speaks_of(cased, h, noun, spans) for h in holding):
            return True
    return False


def is_outdone(
    text: str, clauses: list[Clause], question: str, spans: list[Span], values: list[Span]
) -> bool:
    """Whether another date or number stands with the words of the question, and this one without.

    "The war ended in 1648, but the treaty was signed in 1650" gives 1650 for the treaty.
    """
    asked = content_words(question)
    if not asked:
        return False
    best = 0.0
    for clause in clauses:
        if not any(clause.start <= a < clause.end for a, _ in spans):
            continue
        content = text[clause.start : clause.end]
        own = len(content_words(content) & asked) / len(asked)
        if own or announces(content) or _POINTS.search(content) or len(content_words(content)) < 3:
            return False
    for clause in clauses:
        if any(clause.start <= a < clause.end for a, _ in values if not clause.is_question):
            found = len(content_words(text[clause.start : clause.end]) & asked) / len(asked)
            best = max(best, found)
    return best >= 0.5


@functools.lru_cache(maxsize=4096)
def _years_in(question: str) -> frozenset[str]:
    return frozenset(_YEAR.findall(question))


def _claimed_noun(content: str, asked: frozenset[str], question: str) -> frozenset[str]:
    """Return the words of the question that a clause says a new name is, if it says so."""
    if _FORMER.search(content):
        return frozenset()
    years, given = _years_in(question), set(_YEAR.findall(content))
    if given and not given & years:
        return frozenset()
    size = len(asked) - len(years)
    for pattern, share in _NAMING if _CAPITAL.search(content) else ():
        found = pattern.search(content)
        if found is None or found["name"].lower() in _NO_NAMES:
            continue
        if content_words(found["name"].lower()) & asked:
            continue
        if pattern is _DOER and (deed := _DEED.match(found["rest"])) is not None:
            if done := content_words(deed[1]) & asked:
                return done
        noun = content_words(found["rest"].lower()) & asked
        if noun and len(noun) >= share * size:
            return noun
    is_chinese = "是" in content or "为" in content
    found = _CHINESE.search(content.strip(" \"'。.")) if is_chinese else None
    if found is None or _ASKING.search(found["name"]):
        return frozenset()
    if found["noun"] in asked and not content_words(found["name"]) & asked:
        return frozenset((found["noun"],))
    return frozenset()


def _speaks_of(cased: str, clause: Clause, noun: frozenset[str], spans: list[Span]) -> bool:
    """Whether a clause is about the asked thing, or announces the answer, or is nothing else."""
    content = cased[clause.start : clause.end]
    if announces(content.lower()) or _POINTS.search(content):
        return True
    for start, end in reversed(spans):
        if clause.start <= start < clause.end:
            cased = cased[:start] + " " * (end - start) + cased[end:]
    words = content_words(cased[clause.start : clause.end].lower())
    return not words or bool(words & noun)


_POINTS = re.compile(
    r"^\W*(?:(?:[Bb]ut|[Aa]nd|[Ss]o|[Hh]owever|[Aa]ctually|[Ii]n fact|[Nn]ow|[Ss]ince then|"
    r"[Tt]oday),? )?(?:[Ii]t|[Tt]his|[Tt]hat|[Tt]hey)\b|是|为|其实|实际"
)
_ASKS = (
    re.compile(r"\bwho\b|\bwhom\b|谁|何人"),
    re.compile(r"\bwhen\b|\bwhat (?:date|year|day|time)\b|何时|什么时候|哪一?年|哪一?天|时间|日期"),
    re.compile(
        r"\bwhere\b|\b(?:which|what) (?:city|country|place)\b|在哪|哪里|何处|哪个?(?:城市|国家|"
        r"地方)|地点"
    ),
    re.compile(r"\bhow (?:many|much|long|far|old|fast|high)\b|多少|几个|多大|多长|多高|数量"),
)


def asks_alike(clause: str, question: str) -> bool:
    """Whether a refusing clause repeats what the question asks for (who, when, where, how many)."""
    return any(kind.search(clause) and kind.search(question) for kind in _ASKS)
