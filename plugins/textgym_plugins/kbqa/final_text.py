"""What of a completion counts: without the repeated prompt and without what it withdraws."""

from __future__ import annotations

import functools
import re
from itertools import islice

from textgym import Prompt

_ECHO_CHARACTERS = 120
"""A passage, or the larger part of one, that is longer than this and repeated is no answer."""


TAG = re.compile(r"<answer>|</answer>", re.IGNORECASE)


def without_echo(final: str, prompt: Prompt) -> str:
    """Return the completion without the prompt and its longer passages."""
    asked = prompt.text
    if len(final) < 20 and final != asked:
        return final
    message = asked.strip()
    if len(message) >= 8 and message in final:
        final = final.replace(message, "\n")
    size = len(final)
    repeated: list[str] = []
    for passage, bare in _stripped(prompt.passages):
        if len(passage) <= size + 2:
            if len(bare) >= 20 and bare in final:
                repeated.append(bare)
        elif size > _ECHO_CHARACTERS and final in passage and 2 * size > len(passage):
            return ""
    for passage in repeated:
        if len(repeated) > 1 or len(passage) > _ECHO_CHARACTERS:
            final = final.replace(passage, "\n")
    return final


@functools.lru_cache(maxsize=1024)
def _stripped(passages: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((passage, passage.strip()) for passage in passages)


def without_question(text: str, question: str) -> str:
    """Return the text without the question where it is repeated as one, with its mark or quotes."""
    core = question.rstrip("? ")
    if len(core) < 4 or core[:4] not in text.lower():
        return text
    if text.lower().startswith(core) and _ASKS_LAST.search(core):
        text = text[len(core) :]
    if "?" not in text and '"' not in text:  # only for speed: a pattern for each question is dear
        return text
    return re.sub(re.escape(core) + r'\s*(?:\?|(?="))', "", text, flags=re.IGNORECASE)


_ASKS_LAST = re.compile("(?:什么|谁|哪里|哪儿|哪些?|多少.{0,3}|几.{0,2}|何时|吗|呢|时候)$")


_GAPS = re.compile(r" *+\n[ \n]*+|  ++")


def without_gaps(text: str) -> str:
    """Return a text without runs of blanks, which patterns would look at from each of them."""
    if "  " not in text and "\n" not in text:
        return text
    return _GAPS.sub(lambda gap: "\n" if "\n" in gap[0] else " ", text)


def after_correction(text: str) -> str:
    """Return what follows the last explicit correction, if it says anything."""
    lower = text.lower()
    if len(lower) != len(text):
        return text
    for mark in reversed(list(_CORRECTION.finditer(lower))[-_MOST_MARKS:]):
        if not any(map(str.isalnum, islice(lower, mark.start()))):
            continue
        end = mark.end()
        if _EXPLAINS.search(mark[0]):  # "I misread the passage." goes with it
            stop = re.compile(r"[,.;:!\n。-]").search(lower, end)
            end = stop.end() if stop is not None and stop.start() - end < 80 else end
        rest = text[end:]
        if len(rest) < 120 and _AFFIRMED.search(rest.lower()[:80]):
            continue
        if any(map(str.isalnum, rest)):
            return rest.lstrip(" ,.:;!-。")
    return text


_CORRECTION = re.compile(
    r"(?:-|\.{3})\s*(?=no,? )|(?:^|[.!?。\n,;:-])\s*[\"'(]?(?:oh,? |hmm,? |sorry,? |oops,? |no,? |"
    r"but |well,? |however,? |啊,?|哦,?|抱歉,?|对不起,?){0,4}"
    r"(?:(?:wait|hold on)(?=\W)|correction\b|(?:scratch|strike|disregard|ignore|forget) that\b|"
    r"never ?mind\b|(?:actually,? )?i (?:take (?:that|it|this) back|(?:retract|withdraw) "
    r"(?:that|it|this|my))|on second thoughts?|"
    r"let me (?:correct|rephrase|re-?check|re-?evaluate|revise|reconsider)|"
    r"i (?:made (?:a|an) (?:mistake|error)|was (?:wrong|mistaken)|misspoke|misread|stand corrected|"
    r"need to correct|must correct|meant|mean)\b|"
    r"my (?:mistake|bad|earlier answer|previous answer|initial answer|first answer)\b|(?:that's|"
    r"that is|that was|this is) (?:wrong|incorrect|not right|not correct|a mistake)\b|"
    r"actually,? (?:no|wait|i (?:was|made|meant|need)|that's|it (?:is|was)|it's|the (?:correct |"
    r"right )?answer)|or rather\b|revised? answer|corrected answer|the correct answer (?:is|"
    r"should be) actually|"
    r"no,? (?:wait|it's|it is|it was|the answer|that's)\b|oops\b|(?:i )?apologi[sz]e(?: for|"
    r",)? (?:the|my) (?:mistake|error|confusion)|"
    r"更正|纠正|等等|等一下|稍等|不对(?=[,。!;\s]|应|,)|说错了?|我(?:说|搞|弄|记)?错了|搞错了?|"
    r"弄错了?|口误|(?:我)?(?:之前|刚才|前面|上面)(?:的|说的|给出的)?(?:回答|答案|说法)?(?:有误|错|"
    r"不对|是错)|修正(?:一下|为|:|,)|应更正|重新(?:考虑|思考|看了?|检查)|我收回|准确地?说(?=,)|"
    r"哦不|啊不|不,(?=应该|是|答案))"
)
_MOST_MARKS = 20
_AFFIRMED = re.compile(
    r"^(?:[^.。]{0,60}[.。:,])?\W*(?:yes|indeed|right|correct|confirmed|(?:that|it|this)(?:'s| is|"
    r" was) (?:still |indeed )?(?:correct|right|fine))\b(?! answer)"
    r"|^[^。]{0,20}(?:没错|确实|是对的|就是这样|答案正确|无误)"
)
_EXPLAINS = re.compile(
    r"(?:misread|misspoke|wrong|mistaken|mistake|error|apologi[sz]e.*|confusion|right|correct|"
    r"re-?check|re-?evaluate|reconsider|检查|思考|考虑|有误|不对|错了?)$"
)
