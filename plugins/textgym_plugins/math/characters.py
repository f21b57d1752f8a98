"""One spelling for each character, and nothing that only looks like a digit.

Full-width ASCII, Unicode operators and vulgar fractions become plain ASCII or LaTeX. NFKC is not
used: it turns `4²` into `42`. Whatever is not in these tables stays as it is and is later refused
by the parser, so that homoglyphs, digits of other scripts and control characters never count.
"""

from __future__ import annotations

import re

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_SPACES = dict.fromkeys((0x3000, 0xA0, 0x2002, 0x2003, 0x2004, 0x2005, 0x2008, 0x200A), " ")
_THIN_SPACES = dict.fromkeys((0x2009, 0x202F), r"\,")
_SUPERSCRIPT = re.compile("⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,20}")
_SUPERSCRIPT_TABLE = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
_SYMBOLS = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "﹣": "-",
    "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "∗": "*", "÷": r"\div ",
    "∕": "/", "⁄": "/", "≤": r"\le ", "⩽": r"\le ", "≦": r"\le ", "≥": r"\ge ", "⩾": r"\ge ",
    "≧": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "≃": r"\approx ", "±": r"\pm ", "∓": r"\mp ",
    "π": r"\pi ", "∞": r"\infty ", "√": r"\sqrt ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
    "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "°": r"^\circ ", "½": r"\frac{1}{2}",
    "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
    "⅕": r"\frac{1}{5}", "⅖": r"\frac{2}{5}", "⅗": r"\frac{3}{5}", "⅘": r"\frac{4}{5}",
    "⅙": r"\frac{1}{6}", "⅚": r"\frac{5}{6}", "⅛": r"\frac{1}{8}", "⅜": r"\frac{3}{8}",
    "⅝": r"\frac{5}{8}", "⅞": r"\frac{7}{8}", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ",
    "、": ",", "。": ".", "，": ",", "“": '"', "”": '"', "‘": "'", "’": "'", "⟨": r"\langle ",
    "⟩": r"\rangle ", "¢": r"\cent ",
}  # fmt: skip
_TABLE: dict[int, str | int] = {
    **_FULL_WIDTH,
    **_SPACES,
    **_THIN_SPACES,
    **{ord(char): text for char, text in _SYMBOLS.items()},
}

INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"
"""Zero-width characters: dropped at the ends of an answer, refused inside it."""


def to_ascii(text: str) -> str:
    """Return `text` with full-width characters and known symbols spelled in ASCII and LaTeX."""
    if text.isascii():
        return text
    text = _SUPERSCRIPT.sub(lambda m: f"^{{{m.group().translate(_SUPERSCRIPT_TABLE)}}}", text)
    return text.translate(_TABLE)


_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_WRAPPER = re.compile(r"\\(?:boxed|fbox|displaystyle|textstyle|mathbf|boldsymbol|bm)(?![a-zA-Z])")


def strip_decoration(text: str) -> str:
    r"""Return `text` without Markdown emphasis, quotes, math delimiters and final punctuation."""
    while not (text[:1].isalnum() and text[-1:].isalnum()):
        before = text
        text = text.strip().strip(INVISIBLE).strip("*_`\"'~ \t")
        text = text.rstrip(".,;:。")
        for opening, closing in _DELIMITERS:
            # "$5" is money, "$5$" is mathematics; "$5$ or $6$" is two pieces, not one.
            if (
                len(text) > len(opening) + len(closing)
                and text.startswith(opening)
                and text.endswith(closing)
                and opening not in text[len(opening) : -len(closing)]
            ):
                text = text[len(opening) : -len(closing)]
        if text == before:
            break
    return text


_TEXT_COMMAND = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mbox|hbox|operatorname)"
    r"\s*\{([^{}]{0,200})\}"
)
_SPACING = re.compile(
    r"\\(?:left|right|bigl?|bigr?|Bigl?|Bigr?|displaystyle|textstyle|limits|quad|qquad|hspace\{[^{}]{0,20}\})"
    r"(?![a-zA-Z])|(?<!\\)\\[;: ]|~"
)
_COMMANDS = {
    r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\cfrac": r"\frac", r"\leq": r"\le",
    r"\geq": r"\ge", r"\leqslant": r"\le", r"\geqslant": r"\ge", r"\neq": r"\ne", r"\lt": "<",
    r"\gt": ">", r"\lbrace": r"\{", r"\rbrace": r"\}", r"\lbrack": "[", r"\rbrack": "]",
    r"\lvert": "|", r"\rvert": "|", r"\ast": "*", r"\div": "/", r"\infin": r"\infty",
    r"\varnothing": r"\emptyset", r"\degree": r"^\circ ", r"\textdegree": r"^\circ ",
    r"\sim": r"\approx", r"\doteq": r"\approx", r"\percent": "%", r"\tbinom": r"\binom",
    r"\dbinom": r"\binom", r"\textdollar": r"\$", r"\euro": "€", r"\pounds": "£",
    r"\bar": r"\overline", r"\dot": r"\overline",
}  # fmt: skip
_COMMAND = re.compile(r"\\[a-zA-Z]+")


def clean_latex(text: str) -> str:
    r"""Return `text` with one spelling per LaTeX construct; `\text{cm}` becomes ` cm `."""
    text = to_ascii(text)
    if "<=" in text or ">=" in text:
        text = text.replace("<=", r"\le ").replace(">=", r"\ge ")
    if "\\" not in text:
        if "{" not in text:
            return strip_decoration(text)
        text = text.replace("{,}", r"\,").replace("~", " ").replace(" ^", "^")
        return _strip_braces(strip_decoration(text))
    # Up to three levels: \text{ \textbf{...} } occurs, more does not.
    for _ in range(3):
        text, count = _TEXT_COMMAND.subn(r" \1 ", text)
        if not count:
            break
    text = _SPACING.sub(" ", text)
    text = _COMMAND.sub(lambda match: _COMMANDS.get(match.group(), match.group()), text)
    text = _WRAPPER.sub(" ", text).replace(r"\%", "%").replace("{,}", r"\,").replace(r"\!", "")
    text = text.replace(r"{\circ}", r"\circ").replace(r"^ \circ", r"^\circ").replace(" ^", "^")
    return _strip_braces(strip_decoration(text))


def _strip_braces(text: str) -> str:
    """Return `text` without braces around the whole of it, in one pass."""
    if not (text.startswith("{") and text.endswith("}")):
        return text
    num_outer = len(text) - len(text.lstrip("{"))
    depth = lowest = 0
    for index, char in enumerate(text):
        if char == "{":
            depth += 1
            lowest = depth if index < num_outer else lowest
        elif char == "}":
            depth -= 1
            if index < len(text) - lowest:
                lowest = min(lowest, depth)
    if depth or not lowest:
        return text
    return text[lowest:-lowest].strip()
