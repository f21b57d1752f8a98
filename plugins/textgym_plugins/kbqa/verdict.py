"""Judge one completion: right, wrong, refused, or nothing that is an answer.

The order is: cut the thought off, drop what merely repeats the prompt, drop what an explicit
correction withdraws, look for claimed references, then weigh them against refusals.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from textgym import Prompt
from textgym_plugins.kbqa.characters import fold
from textgym_plugins.kbqa.clauses import Clause, split
from textgym_plugins.kbqa.commitment import is_claimed
from textgym_plugins.kbqa.entities import is_part_of_another
from textgym_plugins.kbqa.final_text import (
    TAG,
    after_correction,
    without_echo,
    without_gaps,
    without_question,
)
from textgym_plugins.kbqa.listing import is_listing, lists_more
from textgym_plugins.kbqa.polarity import claims_polarity
from textgym_plugins.kbqa.question import folded, question_of, years_of
from textgym_plugins.kbqa.refusal import may_decline, names_document, strength
from textgym_plugins.kbqa.reward import Outcome
from textgym_plugins.kbqa.rivals import asks_alike, is_outdone, is_rivalled
from textgym_plugins.kbqa.roles import Role, announces
from textgym_plugins.kbqa.stance import (
    Part,
    first_statement,
    parts_of,
    read_stance,
    text_without,
)
from textgym_plugins.kbqa.target import Group, Page, Span, Target, occurrences, values_like
from textgym_plugins.thinking import after_thinking

MAX_CHARACTERS = 40_000
"""A final answer longer than this, blank ends aside, is none."""


class Verdict(NamedTuple):
    """What a completion does, why it is judged so, and the words that show it."""

    outcome: Outcome
    reason: str
    extracted: str | None = None
    is_doubtful: bool = False
    """Whether it declines and answers at once, which is where rules are weakest."""


def judge(
    completion: str, prompt: Prompt, target: Target | None, *, is_answerable: bool = True
) -> Verdict:
    """Return the verdict on a completion; without a target nothing can be `right`.

    Where the question is not answerable, any answer will do to be `wrong`.
    """
    final = after_thinking(completion)
    if final is None:
        return Verdict("no_answer", "the think tag is never closed")
    final = final.strip()
    if len(final) > MAX_CHARACTERS:
        return Verdict("no_answer", f"{len(final)} characters are no answer")
    said = without_echo(final, prompt)
    if "<" in said:
        said = TAG.sub("\nanswer: ", said)
    text = without_gaps(fold(said).strip())
    if not any(map(str.isalnum, text)):
        return Verdict("no_answer", "empty" if not final else "nothing but what the prompt holds")
    return _Reading(text, prompt, target, is_answerable=is_answerable).verdict()


_WITHDRAWS = re.compile(
    r"^\W*(?:(?:but|however|and|although|yet|though),?\s*)?(?:this|that|it|which|these|"
    r"the (?:document|passage|text|information|statement|"
    r"claim)s?(?: \d+)?)\s+(?:\w+\s+){0,3}?(?:is|was|are|were|seems?|appears?)\s+(?:\w+ly\s+|"
    r"an?\s+|in\s+|factually\s+)?(?:incorrect|wrong|false|inaccurate|erroneous|mistaken|mistake|"
    r"error|untrue|not (?:correct|true|right|accurate|supported))\b"
    r"|^\W*(?:但是|但|然而|不过|可是|而)?,?(?:这|那|该|此|其|文档|文中)[^,。]{0,10}?(?:错误|不对|"
    r"不正确|有误|不准确|不实|不符|不是真的|是假的)"
)
_MAYBE = re.compile(r"\b(?:might|may|could|possibly|perhaps|maybe)\b|可能|也许|或许|要么|说不定")
_SOURCE = re.compile(
    r"\b(?:document|passage|source|text|article|context)\s?#?\[?\d+|\b(?:one|another|the (?:first|"
    r"second|third|other)) (?:document|passage|source|article)|(?:文档|段落|资料|文章|来源|"
    r"材料)\s?[\d一二三四五]|(?:一|另一|第[一二三四])[篇份个]"
)


class _Reading:
    """A folded completion on its way to a verdict.

    What costs time is worked out when first asked for; `cached_property` locks, which costs more.
    """

    def __init__(
        self, text: str, prompt: Prompt, target: Target | None, *, is_answerable: bool
    ) -> None:
        self.prompt, self.target, self.is_answerable = prompt, target, is_answerable
        self.question = question_of(prompt.text, prompt.passages)
        self.cased = after_correction(without_question(text, self.question))
        self.text = self.cased.lower()
        if len(self.text) != len(self.cased):
            self.cased = self.text
        self.page = Page(self.cased, self.text, years_of(self.question))
        self.clauses = split(self.text)
        self.declines: frozenset[int] = frozenset()
        """Where clauses begin that decline, seen without their surroundings."""
        if may_decline(self.text):
            self.declines = frozenset(
                c.start for c in self.clauses if strength(self._content(c), after_document=True)
            )
        self._spans: dict[Group, list[Span]] = {}
        self._parts: list[Part] | None = None

    @property
    def parts(self) -> list[Part]:
        """Every clause with its role."""
        if self._parts is None:
            passages = folded(self.prompt.passages)
            self._parts = parts_of(self.text, self.clauses, self.declines, self.question, passages)
        return self._parts

    def spans(self, group: Group) -> list[Span]:
        """Return all places of a group, claimed or not."""
        found = self._spans.get(group)
        if found is None:
            found = self._spans[group] = occurrences(group, self.page)
        return found

    def spans_in(self, group: Group, clause: Clause) -> list[Span]:
        """Return the places of a group in one clause."""
        return [s for s in self.spans(group) if clause.start <= s[0] < clause.end]

    def verdict(self) -> Verdict:
        if self.is_answerable or self.declines:
            missing, claims = self._claims()
        else:
            missing, claims = "states an answer", []
        if self.target is not None and missing is None:
            refusal = self._outweighing(claims) if self.declines else None
            if refusal is not None:
                return Verdict(
                    "refused",
                    "mentions the reference but declines to answer",
                    self._cut(refusal),
                    True,
                )
            shown = ", ".join(self.cased[a:b].strip() for a, b in claims)
            return Verdict("right", "claims the reference", shown, bool(self.declines))
        if self.declines and (stance := read_stance(self.parts)).refusal is not None:
            if stance.answer is None:
                return Verdict("refused", "declines to answer", self._cut(stance.refusal))
            why = missing or "states an answer"
            return Verdict(
                "wrong", f"declines in part, but answers; {why}", self._cut(stance.answer), True
            )
        answer = first_statement(self.text, self.clauses)
        if answer is None:
            return Verdict("no_answer", "holds no statement")
        return Verdict("wrong", missing or "states an answer", self._cut(answer))

    def _cut(self, clause: Clause) -> str:
        return self.cased[clause.start : clause.end].strip()[:200]

    def _claims(self) -> tuple[str | None, list[Span]]:
        """Return why the reference is not met (None if it is) and where it is claimed."""
        if self.target is None:
            return "there is no reference", []
        claims: list[Span] = []
        for group in self.target.groups:
            spans = self._claimed(group)
            if not spans:
                return self._why_missing(group), claims
            claims.append(_whole(spans[-1], spans))
        if self.target.is_single and is_listing(
            self.text, self.clauses, self.spans(self.target.groups[0])
        ):
            return "lists several answers", claims
        if self.target.is_single and self._is_rivalled():
            return "claims something else as the answer", claims
        if not self.target.is_single and lists_more(
            self.text,
            self.clauses,
            [span for group in self.target.groups for span in self.spans(group)],
        ):
            return "lists more than was asked for", claims
        if not self._is_final_answer():
            return "the reference is not in the final answer", claims
        return None, claims

    def _why_missing(self, group: Group) -> str:
        if self.spans(group):
            return "names the reference without claiming it"
        assert self.target is not None
        return (
            "differs from the reference" if self.target.is_single else "a part is missing or wrong"
        )

    def _claimed(self, group: Group) -> list[Span]:
        polar = group[0].polarity
        if polar is not None:
            span = claims_polarity(self.text, self.clauses, polar)
            return [span] if span else []
        spans = self.spans(group)
        return [s for s in spans if self._is_claimed(s, spans)]

    def _is_claimed(self, span: Span, spans: list[Span]) -> bool:
        index = next((i for i, c in enumerate(self.clauses) if c.end > span[0]), None)
        if index is None:
            return False
        clause = self.clauses[index]
        if not is_claimed(self.text, span, clause, spans):
            return False
        if self._is_withdrawn(index) or self._is_part_of_another(_whole(span, spans), clause):
            return False
        return not self._is_disputed(index) and not self._is_one_guess_of_two(index)

    def _is_withdrawn(self, index: int) -> bool:
        """Whether it is said to be wrong: at once, or after words that are no other source's."""
        following = [self._content(c) for c in self.clauses[index + 1 : index + 3]]
        for place, content in enumerate(following):
            if _WITHDRAWS.search(content):
                return not any(map(names_document, following[:place]))
        return False

    def _is_part_of_another(self, span: Span, clause: Clause) -> bool:
        assert self.target is not None
        return is_part_of_another(self.cased, self.text, span, clause, self.target, self.question)

    def _is_one_guess_of_two(self, index: int) -> bool:
        """Whether a guess stands beside another: "It may be Lyon. It may also be Nice."."""
        clause = self.clauses[index]
        if self.target is None or not self.target.is_single:
            return False
        guesses = len(_MAYBE.findall(self._content(clause)))
        if guesses != 1:
            return guesses > 1 and len(self.spans_in(self.target.groups[0], clause)) == 1
        return any(
            _MAYBE.search(self._content(c))
            and strength(self._content(c)) is None
            and not self.spans_in(self.target.groups[0], c)
            for c in self.clauses
            if c is not clause and abs(c.sentence - clause.sentence) <= 1
        )

    def _is_disputed(self, index: int) -> bool:
        """Whether one source is said to hold this and another something else."""
        if len(self.clauses) < 2:
            return False
        clause = self.clauses[index]
        if not _SOURCE.search(self.text[clause.start : clause.end]):
            return False
        if self.target is None or not self.target.is_single:
            return False
        return any(
            _SOURCE.search(self.text[c.start : c.end])
            and not self.spans_in(self.target.groups[0], c)
            for c in self.clauses
            if c is not clause
            and abs(c.sentence - clause.sentence) <= 1
            and strength(self.text[c.start : c.end]) is None
        ) and not announces(self.text)

    def _is_rivalled(self) -> bool:
        assert self.target is not None
        group = self.target.groups[0]
        alias = group[0]
        if alias.polarity:
            return False
        spans = self.spans(group)
        if not alias.dates and alias.quantity is None:
            return is_rivalled(self.cased, self.clauses, self.question, spans)
        if len(self.clauses) < 2:
            return False
        values = values_like(alias, self.page)
        return is_outdone(self.text, self.clauses, self.question, spans, values)

    def _is_final_answer(self) -> bool:
        """Whether the last clause that announces the answer, if any does, holds a reference."""
        assert self.target is not None
        cued = [c for c in self.clauses if self._announces(c)]
        if not cued:
            return True
        found = [[self.spans_in(g, c) for g in self.target.groups] for c in cued]
        met = [any(spans) for spans in found]
        if self.target.groups[0][0].polarity is not None:
            return True
        return met[-1] and (all(met) or not self.target.is_single)

    def _announces(self, clause: Clause) -> bool:
        content = self.text[clause.start : clause.end]
        cue = announces(content)
        if cue is None or strength(content) is not None:
            return False
        value = content[cue.end() :].strip(" \"':{}")
        return bool(value) and not re.match(r"(?:not\b|不是|n't|based on|根据)", value)

    def _outweighing(self, claims: list[Span]) -> Clause | None:
        """Return the refusal that a claimed reference does not overcome, if there is one."""
        where = {self._part_at(span) for span in claims}
        refusals = [i for i, p in enumerate(self.parts) if p.role is Role.REFUSAL]
        if not refusals:
            return None
        refusal = self.parts[refusals[-1]]
        for index in where:
            part = self.parts[index]
            if part.role is Role.REFUSAL:
                if self._declines_by_reference(part.clause, claims):
                    continue  # "I don't know" can be what was asked for
                return part.clause
            content = self._content(part.clause)
            if part.role in (Role.REPORT, Role.REQUEST) and (
                _ONLY.search(content) or not _STATES.search(content)
            ):
                return refusal.clause
            if part.role is Role.GUESS and refusals[-1] > index:
                return refusal.clause
            if part.role is Role.ANSWER:
                continue
            if refusals[-1] < index:
                continue
            if refusal.overlap > part.overlap and refusal.overlap >= 0.3:
                return refusal.clause
            if asks_alike(self._content(refusal.clause), self.question):
                return refusal.clause
        return None

    def _declines_by_reference(self, clause: Clause, claims: list[Span]) -> bool:
        """Whether it is the reference itself that sounds like a refusal."""
        inside = [span for span in claims if clause.start <= span[0] < clause.end]
        content = self._content(clause)
        for start, end in sorted(inside, reverse=True):
            content = text_without(content, clause.start, start, end)
        return _is_most_of(clause, inside) or strength(content) is None

    def _content(self, clause: Clause) -> str:
        return self.text[clause.start : clause.end]

    def _part_at(self, span: Span) -> int:
        return next(i for i, c in enumerate(self.clauses) if c.end > span[0])


def _whole(span: Span, spans: list[Span]) -> Span:
    """Return the longest of the places that covers one: Ida Holm, not Holm."""
    if len(spans) == 1:
        return span
    covering = [s for s in spans if s[0] <= span[0] and span[1] <= s[1]]
    return max(covering, key=lambda s: s[1] - s[0])


def _is_most_of(clause: Clause, inside: list[Span]) -> bool:
    return sum(b - a for a, b in inside) > 0.7 * (clause.end - clause.start)


_ONLY = re.compile(r"\b(?:only|merely|just|solely)\b|仅|只")
_STATES = re.compile(
    r"\b(?:states?|says?|said|indicates?|reports?|shows?|confirms?|suggests?|according to|based on|"
    r"stated|notes?|lists?|identif\w+|names?|reveals?)\b|mention\w* that|提到[^,]*(?:是|为|在|于)|"
    r"指出|显示|表明|说|记载|根据|称|可知"
)
