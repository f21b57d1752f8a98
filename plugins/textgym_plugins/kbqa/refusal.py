"""Whether a clause declines to answer: it says that the passages, or the speaker, do not know.

Each language has a few families: what a document does not say, what nobody can tell, what is
missing, what the speaker will not do. Requests for more material are weaker: they refuse only where
nothing is answered.
"""

from __future__ import annotations

import functools
import re

from textgym_plugins.kbqa import refusing_chinese, refusing_english
from textgym_plugins.kbqa.refusing_english import Strength

__all__ = ["Strength", "may_decline", "names_document", "strength"]

_LATIN = re.compile(r"[a-z]")


def may_decline(text: str) -> bool:
    """Whether any clause of a folded, lower-case text can decline; quick, and often no."""
    if text.isascii():
        return bool(refusing_english.CUE.search(text))
    if refusing_chinese.CUE.search(text):
        return True
    return bool(_LATIN.search(text)) and bool(refusing_english.CUE.search(text))


_READ = 400
"""Characters of a clause that are read: it is short, or no clause."""


def strength(clause: str, *, after_document: bool = False) -> Strength | None:
    """Return how a folded, lower-case clause declines, or None if it does not.

    `after_document` says that the clause before spoke of the passages, which its pronoun then is.
    """
    return _strength(clause[:_READ], after_document)


@functools.lru_cache(maxsize=8192)  # a policy refuses in few words, over and over
def _strength(clause: str, after_document: bool) -> Strength | None:
    if not clause.isascii() and refusing_chinese.CUE.search(clause):
        found = refusing_chinese.chinese(clause)
        if found is not None:
            return found
    if _LATIN.search(clause) and refusing_english.CUE.search(clause):
        return refusing_english.english(clause, after_document)
    return None


_ANY_DOCUMENT = re.compile(rf"\b{refusing_english.DOCUMENT}\b|{refusing_chinese.DOCUMENT}")


def names_document(clause: str) -> bool:
    """Whether a clause speaks of the passages."""
    return bool(_ANY_DOCUMENT.search(clause[:_READ]))
