"""One spelling for each character, so that text and reference can be compared.

Traditional characters become simplified, full-width ones ASCII, accented Latin letters plain;
quotes, dashes and spaces get one form; Markdown emphasis, title marks and middle dots go. Nothing
is mapped because it merely looks alike: a Cyrillic letter stays Cyrillic and matches no Latin one.
"""

from __future__ import annotations

import functools
import re
import unicodedata

from textgym_plugins.kbqa.traditional import SIMPLIFIED, TRADITIONAL

_DROPPED = "*`\u200b\u200c\u200d\u2060\ufeff\u00ad《》〈〉·•・‧∙⋅･"
_FORMS = {
    '"': "“”„‟「」『』〝〞″«»", "'": "‘’‚‛′´", "-": "‐‑‒–—―−﹣─", "~": "〜∼", "。": "｡", ",": "﹐",
    " ": "\t\r\v\f\u00a0\u3000\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f",
    "\n": "\u2028\u2029\x85",
}  # fmt: skip
_LETTERS = {
    "ß": "ss", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ø": "o", "Ø": "O", "đ": "d",
    "Đ": "D", "ł": "l", "Ł": "L", "ı": "i", "ð": "d", "þ": "th", "…": "...", "№": "no.",
}  # fmt: skip
_CJK_GAP = re.compile(r"(?<=[\u3400-\u9fff]) +(?=[\u3400-\u9fff])")


@functools.cache
def _table() -> dict[int, str | None]:
    table: dict[int, str | None] = {code: " " for code in range(0x20) if chr(code) != "\n"}
    table[0x7F] = " "
    for code in (*range(0xC0, 0x250), *range(0x1E00, 0x1F00)):
        plain = "".join(c for c in unicodedata.normalize("NFKD", chr(code)) if c.isascii())
        if plain.isalpha():
            table[code] = plain
    table |= {ord(letter): plain for letter, plain in _LETTERS.items()}
    table |= {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
    table |= dict.fromkeys(range(0x300, 0x370))  # combining accents
    for form, others in _FORMS.items():
        table |= {ord(other): form for other in others}
    table |= dict.fromkeys(map(ord, _DROPPED))
    table |= {ord(old): new for old, new in zip(TRADITIONAL, SIMPLIFIED, strict=True)}
    return table


def fold(text: str) -> str:
    """Return `text` in the one spelling, with its letters' case."""
    folded = text.translate(_table())
    if not folded.isascii() and " " in folded:
        folded = _CJK_GAP.sub("", folded)
    return folded
