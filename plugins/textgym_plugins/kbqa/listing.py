"""Whether a completion lists several answers where one is asked for.

`Paris, Lyon or Nice`, one name a line, `the answer is A. The answer is B.`: naming everything is
naming nothing. `Paris, France` and an answer with its explanation are not lists.
"""

from __future__ import annotations

import re

from textgym_plugins.kbqa.clauses import Clause
from textgym_plugins.kbqa.roles import announces
from textgym_plugins.kbqa.target import Span

_SEPARATOR = re.compile(r"\s*(?:、|/|\||,|\band\b|&|\bor\b|和|与|及|或|以及)\s*")
_STRONG_SEPARATOR = re.compile(r"、|/|\||\band\b|&|和|与|及|以及|\bor\b|或")
_SENTENCE_VERB = re.compile(
    r"\b(?:is|are|was|were|has|have|had|did|does|do|won|can|isn't|wasn't|but|not|no|can|could|will|"
    r"would|took|in|at|on|by|of|the|as|for|with|which|who)\b|是|的|了|在|于|为|由|被|有|没|无|这|"
    r"那|都|也|不"
)


def is_listing(text: str, clauses: list[Clause], spans: list[Span]) -> bool:
    """Whether the one answer, which stands at `spans`, stands in a list with others."""
    if len(clauses) == 1:
        if _is_string_of_names(text, spans):
            return True
    else:
        numbered = [c for c in clauses if _NUMBERED.search(text, c.start, c.end)]
        if len(numbered) > 1 and not all(_holds(c.start, c.end, spans) for c in numbered):
            return True
        if clauses and all(_is_item(text, c, spans) for c in clauses):
            return not all(_holds(c.start, c.end, spans) for c in clauses)
    if _bullets(text, spans):
        return True
    if not _ANY_SEPARATOR.search(text):
        return False
    return all(_is_in_list(text, span, clauses, spans) for span in spans)


def lists_more(text: str, clauses: list[Clause], spans: list[Span]) -> bool:
    """Whether a bare list holds all the references, which stand at `spans`, and something else."""
    for clause in clauses:
        if not all(clause.start <= start < clause.end for start, _ in spans):
            continue
        cue = announces(text[clause.start : clause.end])
        start = clause.start + (cue.end() if cue else 0)
        if _SENTENCE_VERB.search(text, start, clause.end):
            continue
        separators = _STRONG_SEPARATOR.finditer(text, start, clause.end)
        edges = [m.span() for m in separators if not any(a <= m.start() < b for a, b in spans)]
        items = zip(
            [start, *(b for _, b in edges)], [*(a for a, _ in edges), clause.end], strict=True
        )
        if any(text[a:b].strip(" \"'.,:;()") and not _holds(a, b, spans) for a, b in items):
            return True
    return False


_NUMBERED = re.compile(
    r"\b(?:first|second|third|fourth|another|alternative|other|next) (?:guess|answer|option|"
    r"possibility|choice)\b"
    r"|\b(?:answer|guess|option|candidate) ?#?[1-9a-d]\b|(?:答案|选项|猜测)\s?[一二三四1-9a-d]"
)


def _is_string_of_names(text: str, spans: list[Span]) -> bool:
    """Whether the text is bare words, and the reference is less than half of them."""
    words = text.strip(" .!").split()
    if not text.isascii() or not 4 <= len(words) <= 40 or _SENTENCE_VERB.search(text):
        return False
    if not all(word.replace("-", "").replace("'", "").isalpha() for word in words):
        return False
    longest = max(len(text[a:b].split()) for a, b in spans)
    return len(words) - longest >= 3 and len(words) > 2 * longest


_ANY_SEPARATOR = re.compile(r"[、/|,&和与及或]|\b(?:and|or)\b")


def _holds(start: int, end: int, spans: list[Span]) -> bool:
    return any(start <= a < end for a, _ in spans)


_HEADING = re.compile(
    r"(?:#+ ?)?(?:(?:final|short|my) )?(?:answer|response|result|conclusion)|(?:最终)?(?:答案|回答|"
    r"结论)"
)


def _is_fragment(content: str) -> bool:
    bare = content.strip(" \"'.,:;()-")
    if not bare or ":" in bare or _HEADING.fullmatch(bare) or _SENTENCE_VERB.search(bare):
        return False
    return len(bare.split()) <= 4 if bare.isascii() else len(bare) <= 14


def _is_item(text: str, clause: Clause, spans: list[Span]) -> bool:
    """Whether a clause is a bare name, or the reference with hardly a word around it."""
    content = text[clause.start : clause.end]
    if clause.is_question or not _is_fragment(content) or announces(content):
        return False
    held = [b - a for a, b in spans if clause.start <= a < clause.end]
    extra = len(content.strip(" \"'.,:;()-")) - max(held, default=0)
    return not held or extra <= (12 if content.isascii() else 4)


def _bullets(text: str, spans: list[Span]) -> bool:
    """Whether a run of short lines holds the reference in one of them and others in the rest."""
    if text.count("\n") < 1:
        return False
    start, lines = 0, []
    for line in text.split("\n"):
        lines.append((start, start + len(line), line))
        start += len(line) + 1
    marked = [
        (a, b)
        for a, b, line in lines
        if re.match(r"\s*(?:[-+]\s+|\d{1,2}[.):、]\s*)", line) and _is_fragment(line)
    ]
    if len(marked) < 2:
        return False
    held = [_holds(a, b, spans) for a, b in marked]
    outside = [s for s in spans if not any(a <= s[0] < b for a, b in marked)]
    return any(held) and not all(held) and not outside


def _is_in_list(text: str, span: Span, clauses: list[Clause], spans: list[Span]) -> bool:
    clause = next((c for c in clauses if c.end > span[0]), None)
    if clause is None:
        return False
    content = text[clause.start : clause.end]
    cue = announces(content)
    value_start = clause.start + (cue.end() if cue else 0)
    lead = re.match(
        r"\s*(?:both|it is|it's|it was|they are|that is|是|为)\s*", text[value_start : clause.end]
    )
    value_start += lead.end() if lead else 0
    value = text[value_start : clause.end].strip(" \"'.,:;(){}")
    items = [item for item in _SEPARATOR.split(value) if item.strip()]
    if len(items) < 2 or any(len(i) > 40 or _SENTENCE_VERB.search(i) for i in items):
        return _is_long_list(text, span, clause)
    if not _STRONG_SEPARATOR.search(value) and len(items) < 3:
        return all(len(item.split()) == 2 for item in items) and _is_names(items)
    inside = [s for s in spans if value_start <= s[0] < clause.end]
    if any(_SEPARATOR.search(text[a:b]) for a, b in inside):
        return False  # "Rolls & Finch"
    if any(b - a >= len(value) - 2 for a, b in inside):
        return False  # the reference itself holds the separator
    return not _all_are_references(text, value_start, clause.end, inside)


def _is_names(items: list[str]) -> bool:
    """Whether `elena marsh, paul reed` are two names: words of letters alone, none repeated."""
    words = [word for item in items for word in item.split()]
    return all(w.replace("'", "").replace("-", "").isalpha() for w in words)


def _all_are_references(text: str, start: int, end: int, spans: list[Span]) -> bool:
    position, left = start, []
    for a, b in spans:
        if a >= position:
            left.append(text[position:a])
            position = b
    left.append(text[position:end])
    return not any(len(_SEPARATOR.sub("", piece).strip(" \"'.,:;(){}")) > 1 for piece in left)


_ENUMERATION = re.compile(r"(?:[^、,。;\s]{1,14}、){2,}[^、,。;\s]{1,14}")


def _is_long_list(text: str, span: Span, clause: Clause) -> bool:
    """Whether the reference is one of three or more things in a row within a sentence."""
    if text.count(",", clause.start, clause.end) > 1 and _is_in_series(text, span, clause):
        return True
    return text.count("、", clause.start, clause.end) > 1 and any(
        found.start() <= span[0] < found.end()
        for found in _ENUMERATION.finditer(text, clause.start, clause.end)
    )


_SERIES = re.compile(r"(?:[\w' .-]{1,60},) (?:[\w' .-]{1,30}, ){1,12}(?:and |or |& )?[\w' -]{1,30}")


def _is_in_series(text: str, span: Span, clause: Clause) -> bool:
    """Whether the reference is one item of `a, b, c and d` whose items have one length in words."""
    for found in _SERIES.finditer(text, clause.start, clause.end):
        if not found.start() <= span[0] < found.end():
            continue
        items = [re.sub(r"^(?:and|or|&) ", "", item.strip()) for item in found[0].split(",")]
        answer = text[span[0] : span[1]]
        size = len(answer.split())
        if "," in answer or not any(
            item == answer or item.endswith(" " + answer) for item in items
        ):
            return False
        inner = items[1:-1]
        return (
            len(items) >= 3
            and all(len(item.split()) == size for item in inner)
            and (len(items) > 3 or " and " in found[0] or " or " in found[0])
            and not _SENTENCE_VERB.search(" ".join(items[1:]))
        )
    return False
