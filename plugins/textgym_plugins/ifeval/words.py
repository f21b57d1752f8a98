r"""Words as the official checker counts them: `\w+`, and the tokens of the Penn Treebank.

The Treebank conventions (marks stand alone, `don't` is `do n't`) matter for one instruction only,
which counts tokens in capitals. A mark by itself has no case, so here it simply separates.
"""

from __future__ import annotations

import re

from textgym_plugins.ifeval.sentences import split_sentences

_WORD = re.compile(r"\w+")
_SEPARATOR = re.compile(r"[«»“”‘’„`\";@#$%&?!*\[\](){}<>\u2012-\u2015]|''|--|\.{2,}|[:,](?!\d)")
_AFTER_FULL_STOP = " \t\r\n\v\f])}>\"'»”’"
_CLITIC = re.compile(r"(?<=[^' ])('[sSmMdD]|')(?=\s)")
_LONG_CLITIC = re.compile(r"(?<=[^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T)(?=\s)")
_FUSED = re.compile(
    r"\b(can(?=not\b)|d(?='ye\b)|gim(?=me\b)|gon(?=na\b)|got(?=ta\b)|lem(?=me\b)|more(?='n\b)"
    r"|wan(?=na\s))",
    re.IGNORECASE,
)


def count_words(text: str) -> int:
    """Return the number of runs of letters, digits and underscores."""
    return len(_WORD.findall(text))


def count_capital_words(text: str) -> int:
    """Return the number of Treebank tokens that hold capital and no small letters."""
    if text.islower():
        return 0
    return sum(token.isupper() for sentence in split_sentences(text) for token in _tokens(sentence))


def _tokens(sentence: str) -> list[str]:
    body = sentence.rstrip(_AFTER_FULL_STOP)
    if body.endswith(".") and not body.endswith(".."):
        sentence = f"{body[:-1]} {sentence[len(body) :]}"
    text = f" {_SEPARATOR.sub(' ', sentence)} "
    if "'" in text:
        text = _LONG_CLITIC.sub(r" \1 ", _CLITIC.sub(r" \1 ", text))
    return _FUSED.sub(r"\1 ", text).split()
