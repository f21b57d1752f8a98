"""Sentences the way the official checker counts them, without its model.

The official checker splits with Punkt (Kiss and Strunk 2006, "Unsupervised multilingual sentence
boundary detection"), trained on a newspaper. What Punkt does with its model is written out here;
the model itself is replaced by short lists: abbreviations, and words that begin a sentence
where they follow one with a capital. A model of 20,000 words decides a few rare cases in another
way (docs/rewards/ifeval.md has the measurement). Everything takes linear time.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

_ABBREVIATIONS = frozenset(
    """
    adm bros cie co col corp ct dr ft gen inc jr lt ltd maj nev messrs mg minn mr mrs ms ok p pa
    ph.d prof rep reps s sen sr st tues t u.k u.n u.s u.s.a va vs vt w wed wis yr chg fri
    jan feb aug sep sept oct nov dec
    ala ariz calif colo conn fla ga ill kan ky mich n.c n.d n.h n.j n.m n.v n.y okla ore pa
    s.c tenn w.va wash ave
    a.m p.m m.b.a u.s.s.r
    """.split()
)
"""Words whose final period is their own, as Punkt's English model knows them (`etc` and `e.g` are
not among them)."""
_ABBREVIATED_LETTERS = frozenset("cdefghklmnprstuvw")
_INITIALS = re.compile(r"[a-z]\.[a-z]")
_NOT_ABBREVIATED = frozenset({"e.g", "i.e", "p.s"})

_STARTERS = frozenset(
    """
    above according adding although among assuming being besides between both but
    calculate certainly choose combining considering create currently despite determine dividing
    either enjoy even ever explain explore finally given he hence here hers him however i if
    imagine important in include including indeed instead introducing it least many
    meanwhile moreover most neither nevertheless nonetheless nor nothing okay originally
    overall please previous put remember separately similarly since sincerely so some sometimes
    soon starting still subtracting such suddenly thank the them there therefore these they think
    this though through throughout thus together under unfortunately unless upon using were
    when whether which while without yes yesterday yet your
    """.split()
)
"""Words that are hardly ever capitalised inside a sentence, even in titles: with a capital after
an abbreviation or an ellipsis they begin one."""
_COMMON_WORDS = _STARTERS | frozenset(
    """
    a about active add after again all also an and another answer any are arrive as at attend
    avoid because before best book buy by calculate call can check city consider could day did
    discover do does during each eat enjoy every experience few find finish first follow for
    from get give go had half have head has her his how improve increase invest is its just last
    later learn leave let like list look make maybe me meet more much my name never new next no
    none not now of offer often on once one only open option or other others our out over part
    people perhaps plan practice prepare provide question reduce relax rest return review
    section see set several share she should show spend start state statement step stop study
    take talk team test than that the their then those time to today too total travel try two
    until use visit walk was watch we well what where who why will with work would write year
    you
    """.split()
)
"""Words that are no surname: with a capital after an initial they begin a sentence."""

_ENDS = frozenset(".?!")
_CLOSERS = r"""[)";}\]*:@'({\[?!]"""
_CANDIDATE = re.compile(rf"[.?!](?=({_CLOSERS})|(\s+)\S)")
_WORD_END = re.compile(r"\s")
_TOKEN = re.compile(
    rf"""-{{2,}} | \.{{2,}}
    | (?=[^("`{{\[:;&\#*@)}}\]\-,])\S+?
      (?=\s|$|{_CLOSERS}|-{{2,}}|\.{{2,}}|,(?=$|\s|{_CLOSERS}|-{{2,}}|\.{{2,}}))
    | \S""",
    re.VERBOSE,
)
_NUMBER = re.compile(r"-?[.,]?\d[\d,.\-]*")
_REALIGNED = re.compile(r"""["')\]}]+?(?:\s+|(?=--)|$)""", re.MULTILINE)


def split_sentences(text: str) -> list[str]:
    """Return the sentences of an English text; a heading without a full stop begins the next."""
    spans, start = [], 0
    for end, following in _breaks(text):
        spans.append((start, end))
        start = following
    spans.append((start, len(text.rstrip())))
    return [text[a:b] for a, b in _realign(text, spans) if a < b]


class _Candidate(NamedTuple):
    """A mark that may end a sentence."""

    word: int
    """Where the word that it ends begins."""
    end: int
    following: int
    """Where the next sentence would begin."""
    context_end: int


def _breaks(text: str) -> Iterator[tuple[int, int]]:
    """Yield the end of each sentence and the start of the next."""
    for word, end, following, context_end in _candidates(text):
        if _ends_plainly(text[word : end - 1], text[end - 1]) or _holds_break(
            text[word:context_end]
        ):
            yield end, following


def _ends_plainly(word: str, mark: str) -> bool:
    """Whether a break is certain from the word and its mark alone; `_holds_break` would agree."""
    if not word or mark != ".":
        return not word or word.isalpha()
    return len(word) > 1 and word.isalpha() and word.lower() not in _ABBREVIATIONS


def _candidates(text: str) -> Iterator[_Candidate]:
    """Yield the last possible sentence end of each word that has one.

    A mark that begins its word is one more, as in nltk since 3.6.6.
    """
    word = word_end = 0
    previous: _Candidate | None = None
    for match in _CANDIDATE.finditer(text):
        is_new_word = match.start() >= word_end
        if previous is not None and (is_new_word or previous.end == word + 1):
            yield previous
        if is_new_word:
            word, word_end = _word_around(text, match.start(), word_end)
        end = match.end()
        if match[1]:
            previous = _Candidate(word, end, end, end + 1)
        else:
            following = match.end(2)
            previous = _Candidate(word, end, following, _word_around(text, following, following)[1])
    if previous is not None:
        yield previous


def _word_around(text: str, index: int, lowest: int) -> tuple[int, int]:
    """Return where the word at `index` begins, not before `lowest`, and where it ends."""
    end = _WORD_END.search(text, index)
    while index > lowest and not text[index - 1].isspace():
        index -= 1
    return index, end.start() if end is not None else len(text)


def _realign(text: str, spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Give closing quotes and brackets back to the sentence that they close."""
    shift = 0
    for (start, end), (next_start, next_end) in itertools.pairwise(spans):
        closing = _REALIGNED.match(text[next_start:next_end])
        begin, shift = start + shift, closing.end() if closing else 0
        yield begin, next_start + len(closing[0].rstrip()) if closing else end
    start, end = spans[-1]
    yield start + shift, end


def _holds_break(context: str) -> bool:
    """Whether a sentence ends inside a word and what follows it."""
    tokens = _TOKEN.findall(context)
    return any(map(_is_break, tokens, tokens[1:]))


def _is_break(token: str, following: str) -> bool:
    if token in _ENDS:
        return True
    if token[-1] != ".":
        return False
    word = token[:-1].lower()
    if len(token) == 2 and word.isalpha():
        return not _is_initial(word, following)
    if token.endswith(".."):
        return token.count(".") == len(token) and _starts(following)
    if _is_abbreviation(word) or _is_abbreviation(word.rpartition("-")[2]):
        return _starts(following)
    return not (_NUMBER.fullmatch(word) and _never_starts(following))


def _is_abbreviation(word: str) -> bool:
    if word in _ABBREVIATIONS:
        return True
    return _INITIALS.fullmatch(word) is not None and word not in _NOT_ABBREVIATED


def _is_initial(letter: str, following: str) -> bool:
    """Whether `A.` abbreviates a name rather than ending a sentence."""
    if letter in _ABBREVIATED_LETTERS or _never_starts(following):
        return True
    return following[0].isupper() and following.lower() not in _COMMON_WORDS


def _starts(token: str) -> bool:
    return token[0].isupper() and token.lower() in _STARTERS


def _never_starts(token: str) -> bool:
    return token in _PUNCTUATION or token[0].islower()


_PUNCTUATION = frozenset(";:,.!?")
