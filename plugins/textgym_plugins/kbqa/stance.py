"""What a completion does as a whole: it answers, it declines, or it does neither.

Every clause gets a role. A completion that declines in one place and states something in another is
the hard case: what it states may be the answer after all ("However, I believe it is Lyon") or only
what the passages hold instead ("They only describe its history").
"""

from __future__ import annotations

import re
from typing import NamedTuple

from textgym_plugins.kbqa.clauses import Clause
from textgym_plugins.kbqa.refusal import Strength, names_document, strength
from textgym_plugins.kbqa.roles import Role, overlap, role_of


class Part(NamedTuple):
    """A clause and its role."""

    clause: Clause
    role: Role
    content: str
    question: str

    @property
    def overlap(self) -> float:
        """Share of the question's words that the clause repeats."""
        return overlap(self.content, self.question)


_QUOTE = re.compile(r'"([^"\n]{4,200})"')


_KEEPS_TOPIC = (Role.REPORT, Role.REFUSAL, Role.FILLER, Role.DOUBT)


def parts_of(
    text: str,
    clauses: list[Clause],
    declining: frozenset[int],
    question: str,
    passages: tuple[str, ...] = (),
) -> list[Part]:
    """Return every clause with its role.

    A refusal that stands in quotation marks, or word for word in a passage, is somebody else's.

    Args:
        text: the folded, lower-case completion.
        clauses: its clauses.
        declining: where those begin that can decline at all.
        question: the folded, lower-case question.
        passages: the folded, lower-case passages.
    """
    quoted = [] if text.startswith("{") else [m.span(1) for m in _QUOTE.finditer(text)]
    parts: list[Part] = []
    after_document = False
    for clause in clauses:
        content = text[clause.start : clause.end]
        role = None
        if clause.start in declining:
            role = _declining(content, after_document, quoted, clause, passages)
        is_document = names_document(content)
        if role is None:
            role = (
                Role.QUESTION
                if clause.is_question
                else role_of(content[:400], is_document, after_document)
            )
        parts.append(Part(clause, role, content, question))
        after_document = is_document or (after_document and role in _KEEPS_TOPIC)
    return parts


_ROLES: dict[Strength, Role] = {
    "refusal": Role.REFUSAL, "doubt": Role.DOUBT, "request": Role.REQUEST,
}  # fmt: skip


def _declining(
    content: str,
    after_document: bool,
    quoted: list[tuple[int, int]],
    clause: Clause,
    passages: tuple[str, ...],
) -> Role | None:
    found = strength(content, after_document=after_document)
    if found is None:
        return None
    for start, end in quoted:
        if start < clause.end and clause.start < end:
            inside = text_without(content, clause.start, start, end)
            if len(inside.strip(" \"'.,:")) > 3 and strength(inside) is None:
                return None
    bare = content.strip(" \"'.,:;()")
    if len(bare) >= 12 and any(bare in passage for passage in passages):
        return None
    return _ROLES[found]


def text_without(content: str, offset: int, start: int, end: int) -> str:
    """Return a clause that begins at `offset` without the stretch from `start` to `end`."""
    return content[: max(0, start - offset)] + content[max(0, end - offset) :]


def first_statement(text: str, clauses: list[Clause]) -> Clause | None:
    """Return the clause that a completion without any refusal answers with, if one does."""
    first: Clause | None = None
    for clause in clauses:
        content = text[clause.start : clause.end]
        if clause.is_question:
            continue
        role = role_of(content[:400], names_document(content), False)
        if role is Role.ANSWER:
            return clause
        if first is None and role is not Role.FILLER:
            first = clause
    return first


class Stance(NamedTuple):
    """Whether something was declined and whether something was answered all the same."""

    refusal: Clause | None
    answer: Clause | None


def read_stance(parts: list[Part]) -> Stance:
    """Return what the completion declined and what it answered; both None if neither."""
    first = next((p for p in parts if p.role in (Role.REFUSAL, Role.DOUBT, Role.REQUEST)), None)
    if first is None:
        said = next((p for p in parts if p.role not in (Role.FILLER, Role.QUESTION)), None)
        return Stance(None, said.clause if said else None)
    has_refusal = any(p.role is Role.REFUSAL for p in parts)
    answer = next(
        (p for i, p in enumerate(parts) if _answers(p, i, parts, has_refusal=has_refusal)), None
    )
    refusal = next((p for p in parts if p.role is Role.REFUSAL), first)
    return Stance(refusal.clause, answer.clause if answer else None)


def _answers(part: Part, index: int, parts: list[Part], *, has_refusal: bool) -> bool:
    """Whether a clause of a completion that declines somewhere answers all the same."""
    if part.role is Role.ANSWER:
        return True
    if part.role is Role.GUESS:
        return all(p.role is not Role.REFUSAL for p in parts[index + 1 :])
    if not has_refusal:  # only doubt or a request beside it
        return part.role in (Role.STATEMENT, Role.REPORT)
    if part.role is not Role.STATEMENT:
        return False
    is_first = all(p.role in (Role.FILLER, Role.QUESTION) for p in parts[:index])
    return part.overlap >= (0.34 if is_first else 0.5)
