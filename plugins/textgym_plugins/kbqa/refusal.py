"""Whether a clause declines to answer: it says that the passages, or the speaker, do not know.

Each language has a few families: what a document does not say, what nobody can tell, what is
missing, what the speaker will not do. A negation found by pattern counts only with the right
subject, so that "the police could not say" is content, and "I am not saying there is no answer" is
no refusal. Requests for more material are weaker: they refuse only where nothing is answered.
"""

from __future__ import annotations

import functools
import re
from typing import Literal

Strength = Literal["refusal", "doubt", "request"]
"""`doubt`: cannot confirm, not sure. With an answer beside it, it is a disclaimer."""

_DOCUMENT = (
    r"(?:documents?|passages?|texts?|contexts?|information|sources?|materials?|articles?|snippets?|"
    r"references?|excerpts?|paragraphs?|results?|knowledge base|data|contents?|evidence|extracts?|"
    r"(?:provided|given|available|above) \w+|files?|records?|corpus)"
)
_TELL = (
    r"(?:contain|mention|provide|state|specify|specif|say|include|indicate|give|answer|address|"
    r"tell|offer|"
    r"reveal|list|discuss|cover|identif|explain|show|disclose|confirm|name|have|supply|suppl|"
    r"present|"
    r"describe|clarif|report|note|refer|hold|detail|touch|support|speak|talk|point|suffic)"
)
_PASSIVE = (
    r"(?:mentioned|stated|specified|provided|disclosed|available|known|clear|addressed|indicated|"
    r"answerable|sufficient|enough|given|found|included|contained|listed|present|described|"
    r"discussed|revealed|covered|answered|confirmed|named|identified|detailed|explained|recorded|"
    r"documented|supported|possible|adequate|identifiable|determinable|explicit|relevant)"
)
_LOOSE_PASSIVE = frozenset(
    "given found included contained listed present described discussed covered named confirmed "
    "identified supported possible recorded documented detailed explained revealed relevant".split()
)
_FIND = (
    r"(?:answer|determine|tell|say|identify|infer|conclude|ascertain|establish|find|provide|give|"
    r"know|"
    r"deduce|derive|locate|pinpoint|specify|state|respond|offer|extract|figure|make|draw|see|name|"
    r"assist|help|respond|discern|supply|address|produce|formulate|comment|work out|come up|reach|"
    r"verify|confirm|guarantee|be (?:sure|certain|determined|answered|found|inferred|established|"
    r"known|"
    r"identified|ascertained|concluded|confirmed|verified|derived|deduced|stated|given|provided|"
    r"specified|located|extracted|definitive)|resolve|decide|judge|assess|generate|accurately|pin)"
)
_MISSING = (
    r"(?:information|mention|answers?|evidence|details?|indication|reference|records?|context|data|"
    r"statement|clues?|content|specifics|facts?|documents?|passages?|basis|knowledge|info|"
    r"documentation|material|support|explicit \w+|direct \w+|clear \w+|definitive \w+|way (?:to|"
    r"of)|"
    r"indications?)"
)

_DOC_TELLS_NOT = re.compile(
    r"(?:\b(?:not|never|no|fails? to|failed to|nothing|neither|nor|without)|n't)\s+"
    rf"(?:\w+\s+){{0,3}}?{_TELL}(?:s|es|ed|ies|ied|y|ing|d)?\b"
)
_IS_NOT_IN = re.compile(
    r"\b(?:answers?|information|it|that|this|details?|name|\w+'s \w+)\b[^,]{0,30}?"
    r"\b(?:is|are|was|were)(?:n't| not) (?:in|among|within|part of|to be found|anywhere|there)\b"
    r"|^\W*(?:but )?(?:its|their|his|her|the) [\w' -]{2,40}? (?:is|are|was|were)(?:n't| not)\W*$"
)
_TELLS_ONLY = re.compile(
    rf"\b{_DOCUMENT}\b[^,]{{0,30}}?\b(?:only|merely|just|solely) "
    r"(?:cover|discuss|mention|describe|talk|contain|provide|address|focus|deal|concern)"
    r"|(?:文档|资料|材料|文章|段落|文件|文中).{0,8}(?:只|仅)(?:提到|介绍|涉及|描述|包含|提供|给出|"
    r"讨论)"
)
_NOTHING = re.compile(
    r"\bnothing (?:is |was )?(?:about|for|on|regarding|concerning|in (?:the|any|these|those)|"
    r"relevant|said|stated|mentioned|there|to (?:say|suggest|indicate))\b"
)
_LACKS = re.compile(r"\b(?:lacks?|lacking|omits?|are silent|is silent|says? nothing|leaves? out)\b")
_NONE_TELLS = re.compile(
    rf"\b(?:none of|neither|no) (?:\w+ ){{0,4}}?{_DOCUMENT}\b[^,]{{0,40}}?\b{_TELL}"
    rf"|\bnone (?:of (?:them|these|those) )?{_TELL}|\bnowhere\b"
)
_PRONOUN_DOC = re.compile(
    r"^\W*(?:(?:but|and|however|although|though|yet|while),?\s+)?(?:they|it|this|that|these|which|"
    r"both|all|he|she)\b"
)
_PASSIVE_NOT = re.compile(
    r"\b(?:is|are|was|were|been|being|be|has|have|remains?|seems?|appears?)(?:n't|\s+not|\s+never|"
    r"\s+nowhere)\s+"
    rf"(?:been\s+|be\s+)?(?:\w+ly\s+|yet\s+|even\s+|to be\s+|made\s+|"
    rf"enough\s+)?(?P<verb>{_PASSIVE})\b"
    r"(?!\s+(?:for|as|guilty|until|to many|to have)\b)"
)
_ANSWER_NOUN = re.compile(
    rf"\b(?:{_DOCUMENT}|answer|question|details?|name|dates?|numbers?|figures?|exact|specific|it|"
    rf"this|"
    r"that|here|explicitly|directly|identity|location|time|year|amount|so)\b"
)
_CANNOT = re.compile(
    r"\b(?:cannot|can ?not|can't|cant|could not|couldn't|unable to|not able to|not possible to|"
    r"impossible to|impossible for me to|not possible for me to|no way to|no way of|(?:difficult|"
    r"hard) to|fail(?:ed|s)? to|insufficient to|"
    r"not enough to|not sufficient to|inadequate to|may not be able to|might not be able to|"
    r"not in a position to|not feasible to|incapable of|do not (?:allow|enable|permit) (?:\w+ )?to|"
    r"does not (?:allow|enable|permit) (?:\w+ )?to|don't (?:allow|enable) (?:\w+ )?to)\s+"
    rf"(?:\w+\s+){{0,4}}?(?P<verb>{_FIND})\w*\b"
)
_SPEAKER = re.compile(
    rf"(?:^|[,:;\"(]|\b(?:i|we|one|you|is|was|it's|and|so|am|'m|i'm|are|therefore|thus|hence|but|"
    rf"still|also|"
    rf"question|answer|be|sorry|simply|currently|that|which|this|may|might|it|would|being|"
    rf"am currently|"
    rf"remain|assistant|model|seems?|appears?|ai|\w+ly|{_DOCUMENT}|find|found))\s*$"
)
_CONTENT_VERB = frozenset(
    ("see", "find", "give", "make", "name", "help", "reach", "decide", "produce")
)
_NOT_ENOUGH = re.compile(
    rf"\b(?:no|not enough|insufficient|not sufficient|inadequate|(?:a |the )?lack of|lacks?|"
    rf"lacking|"
    rf"not any|n't any|n't enough|n't sufficient|n't (?:have|contain|provide|find|see|include|"
    rf"give)|"
    rf"absence of|not (?:have|find|see)|missing|without (?:more|additional|further|sufficient|"
    rf"enough)|"
    rf"not have (?:enough|sufficient|any))\s+(?:\w+\s+){{0,4}}?{_MISSING}\b"
)
_UNKNOWN = re.compile(
    r"(?:\b(?:is|are|was|were|remains?|seems?|considered|as|answer:?|be)|'s|^|"
    r"[:,])[\s\"']*(?:still |currently |therefore |thus |simply )?"
    r"(?:unknown|unanswerable|unclear|unspecified|undetermined|not answerable|n/a|inconclusive|"
    r"indeterminate|not applicable|unavailable|undisclosed|not mentioned|not stated|not specified|"
    r"not provided|not available|not given|not found|not enough|no answer|no idea|unsure|uncertain|"
    r"not known|none given|"
    r"not in the (?:documents?|passages?|text|context))\b(?! to (?:many|most))"
)
_KNOW_NOT = re.compile(
    r"\b(?:i|we)(?:'m|'ve| am| have| are|'re)?\s+(?:\w+ly |just |also |still )?(?:do not|don't|"
    r"dont|did not|didn't|haven't|"
    r"have not|not|have no|had no|lack|no)\s+(?:\w+ly |actually |seem to |currently )?"
    r"(?P<verb>know|have|see|find|possess|recall|aware|sure|certain|able|access|knowledge|"
    r"information|"
    r"think (?:i (?:can|have)|there(?:'s| is)|the \w+ (?:say|mention|contain|provide|state|give|"
    r"have|include|answer|tell|specif|address))|idea|enough|confident|familiar|"
    r"clue|answer|sufficient|way|any|data|the (?:answer|information|knowledge)|been (?:given|"
    r"provided)|found|seen)"
)
_WILL_NOT = re.compile(
    r"\b(?:i|we)\b[^,]{0,20}\b(?:decline|refuse|abstain|refrain|(?:won't|will not|would not|"
    r"wouldn't|"
    r"rather not|prefer not to|should not|shouldn't|can't|must not)\s+(?:\w+\s+)?(?:answer|guess|"
    r"speculate|provide|"
    r"give|say|respond|make|assume|risk|attempt))"
    r"|\b(?:beyond|outside|out of) (?:the )?(?:my|scope|its|range|our|their)\b"
    r"|^\W*(?:i )?(?:refuse|decline)[sd]? to (?:answer|respond|say)|^\W*(?:none|null|nil)\W*$"
    r"|^\W*(?:the |any |relevant |specific )*(?:information|answer|data|details?|"
    r"result)s?\s+(?:is |was |are |were )?not (?:found|available|provided|given|mentioned|present|"
    r"specified|included|known)\b"
    r"|\bwithout (?:speculat|guess|further (?:information|context)|more (?:information|context))\w*"
    r"|\b(?:no|not a|without a) (?:definitive|clear|conclusive|reliable|certain|direct|explicit|"
    r"valid) answer\b"
)
_DOUBLE = re.compile(
    r"\b(?:not|n't|never)\s+(?:\w+\s+){0,2}?(?:saying|claiming|suggesting|implying|true|the case|"
    r"correct|right|accurate) (?!information|answer|data)\b"
    r"|\b(?:i|we|one|it|this|that) (?:would|could|can|do|does|should)(?: ?not|n't) (?:say|claim|"
    r"mean|imply|suggest) (?:that )?(?:the|there|it|they|no|i)\b"
    r"|\b(?:wrong|incorrect|false|inaccurate|untrue|mistaken|misleading) (?:to (?:say|claim|think|"
    r"assume)|that)\b"
    r"|(?:not|n't) (?:think|believe) (?:that )?(?:the|these|they)\b.{0,30}\b(?:silent|lack|omit|"
    r"not|fail|without)"
    r"|\b(?:far from|no longer|anything but)\b"
    r"|\bit(?:'s| is| was) not (?:as if|that|like)\b"
    r"|\b(?:doubt|deny|dispute) that\b|\bcannot (?:say|claim) (?:that )?the\b"
)
_SAID = re.compile(
    r"\b(?:he|she|they|officials?|police|spokes\w+|minister|president|ceo|company|team|witness\w*|"
    r"author\w*|"
    r"scientists?|researchers?|experts?|[a-z]+ (?:said|says|told|added|replied|answered|claimed|"
    r"stated))"
    r"\s+(?:\w+\s+)?(?:said|says|told|added|replied|answered|admitted|claimed|insisted)\b"
)
_EN_REQUEST = re.compile(
    r"\b(?:please|could you|can you|would you|kindly)\s+(?:\w+\s+){0,3}?(?:provide|share|supply|"
    r"give|clarify|specify|rephrase)"
    r"|\b(?:need|require[sd]?|needed)\s+(?:\w+\s+){0,2}?(?:more|additional|further|"
    r"other)\s+(?:\w+\s+)?(?:information|context|details?|documents?|sources?|data)"
    r"|\b(?:more|additional|further)\s+(?:\w+\s+)?(?:information|context|details?|documents?|"
    r"sources?|data)\s+(?:\w+\s+){0,3}?(?:needed|required|necessary)"
)
_EN_CUE = re.compile(
    r"\bno\b|not\b|never|only|merely|just|solely|n't|cant\b|none|neither|nothing|nowhere|unable|"
    r"unknown|unclear|un(?:answer|spec|"
    r"determ|avail|disc|sure|cert)|"
    r"insuff|inadeq|lack|fail|imposs|difficult|hard to|silent|n/a|inconcl|indeterm|please|"
    r"could you|"
    r"would you|can you|more |additional |further |declin|refus|null|nil|abstain|refrain|beyond|"
    r"outside|out of|missing|omit|absence|nor\b|without|incapable"
)

_ZH_DOC = (
    r"(?:文档|文件|文章|资料|材料|段落|文中|上下文|信息|内容|文本|片段|参考|背景|原文|上述|以上|"
    r"所给|给定|提供的|题目|"
    r"检索|搜索结果|知识库|语料|文献|资讯|数据|报道|其中|里面|文段|来源|这些|篇章|记录|证据|线索|"
    r"它们)"
)
_ZH_NOT = (
    r"(?:并?没有|并?没|并?未曾?|并?未能|并?不|缺乏|缺少|缺失|无|均未|均没有|都没有|都未|也没有|"
    r"也未|尚未|从未|不曾)"
)
_ZH_TELL = (
    r"(?:提到|提及|提供|说明|给出|包含|包括|涉及|指出|明确|记载|显示|透露|介绍|描述|答案|信息|足以|"
    r"足够|找到|说到|谈到|"
    r"说|写|回答|列出|公布|具体|直接|相关|有关|对应|支持|表明|交代|阐述|关于|讲到|讲|详细|标明|"
    r"注明|能够|含有|资料|内容|提|确切|任何|论述|披露|记录|出现|存在|依据|报道|数据)"
)
_ZH_FIND = (
    r"(?:回答|确定|判断|得知|得出|提供|给出|找到|推断|确认|获知|获取|知道|知晓|解答|作答|答复|推测|"
    r"查到|查询|说明|准确|"
    r"告诉|断定|得到|识别|了解|看出|判定|支持|确切|明确|推导|推出|推理|做出|作出|获得|核实|验证|"
    r"辨别|定位|查找|查证|给您|为您|"
    r"告知|从|根据|依据|基于|直接|就此|对此|解决|保证|肯定|找出|回复|完成|答出|辨认|归纳|总结|"
    r"下结论|提取|检索|满足|具体|计算)"
)
_ZH_REFUSAL = re.compile(
    rf"{_ZH_DOC}.{{0,24}}?{_ZH_NOT}.{{0,6}}?{_ZH_TELL}"
    rf"|(?:无法|不能|难以|没法|没有办法|没办法|未能|不可能|不足以|无从|不便|不能够|不好|很难|"
    rf"不太能|不支持我?|没有能力)"
    rf"(?:.{{0,14}}?){_ZH_FIND}"
    r"|(?:我们?|本人|目前|暂时|暂|尚|仍|还|现在|在下|助手|对此|抱歉,?)(?:也|还|确实|真的|并|暂时|"
    r"目前|对此|对这个问题)?(?:不知道|不清楚|不确定|不了解|不知|不太清楚|不太确定|不太了解|"
    r"无法得知|不能确定|不晓得)"
    r"|^\W*(?:也|还)?(?:不知道|不清楚|不确定|不了解|不明|不详|未知|不得而知|无答案|没有答案|"
    r"无法回答|无|没有提到|未提及|未提到|未说明|没提到|不可知|无可奉告|查无(?:结果|信息|资料)?)\W*$"
    r"|(?:信息|资料|内容|证据|数据|材料|依据|线索|文档|文件|资讯|背景|上下文)(?:还|都|并|仍|明显|"
    r"严重|太)?(?:不足|不够|不充分|有限|缺失|不全|不完整|不充足|匮乏|缺乏|过少|太少)"
    r"|(?:没有|没|并无|无|未找到|找不到|没找到|没有找到|没有发现|未发现|未见|缺乏|缺少|不包含|"
    r"查不到|不存在|没看到|没有看到|未检索到|未能找到|未查到|没有查到|没查到|未包含|搜不到|"
    r"没有获得|未获得|未提供)"
    r"(?:.{0,16}?)(?:相关|足够|明确|具体|任何|直接|充分|有关|确切|可靠|答案|信息|资料|说明|记录|"
    r"依据|提及|线索|证据|记载|描述|数据|数字|统计|人知道)"
    r"|(?:未|没有|没|并未|均未|尚未|未被|没有被|不曾)(?:被|有|在.{0,8}中|明确|具体|直接|详细|清楚|"
    r"专门|特别|进一步){0,2}(?:提及|提到|说明|指明|涉及|记载|指出|公布|公开|透露|提供|列出|给出|"
    r"回答|明示|写明|标明|注明|交代|披露)"
    r"|(?:是|为|尚|仍|依然|目前|暂时|暂|还)(?:未知|不明确|不明|不详|不得而知|未知数|不确定|不清楚|"
    r"无法得知)"
    r"|(?:不详|不明|未知)\W*$|(?:信息|答案|内容)不在.{0,8}(?:文档|资料|文中|上下文|文件|范围)"
    r"|不得而知|无可奉告|拒绝回答|不予回答|不作回答|不便回答|无法作答|无解|无从得知|无从知晓|"
    r"无从回答|超出.{0,10}(?:范围|能力|知识)|答案(?:并)?(?:不在|未知|不明|不详|不存在|缺失)"
    r"|(?:不|未|没有|并不|并未)(?:能|足以|够|能够)?(?:让我|使我|使我们|支持我|"
    r"帮助我).{0,10}(?:回答|确定|判断|得出)"
    r"|^\W*(?:但是|但|不过|却|而|可是|然而)?(?:它们?|其中|里面|均|都|也|却|并)*(?:没有|未|"
    r"没)(?:明确|直接|具体|详细|清楚|专门){0,2}(?:地)?(?:说明|提到|提及|给出|指出|提供|涉及|介绍|"
    r"写|说|交代|透露|记载|列出|显示|公布|回答)"
    r"|(?:答案|信息|内容|资料|线索|依据).{0,16}(?:找不到|没有找到|查不到|没找到|无法找到|缺失)"
    r"|与.{0,14}(?:无关|没有关系|不相关|没关系)|(?:文档|内容|资料|信息|段落|文件|"
    r"材料).{0,10}(?:不相关|不匹配|并不相关|无关|不相符)"
    r"|不(?:作|做|予|便|会|想|愿|能|应)(?:出|任何)?(?:随意|妄加|主观|凭空|胡乱)?(?:猜测|推测|臆测|"
    r"作答|评论|编造)"
    r"|(?:抱歉|对不起|很遗憾|遗憾).{0,8}(?:不知道|不清楚|不能|无法)"
)
_ZH_DOUBT = re.compile(
    r"(?:无法|不能|未能|没法|难以|没有办法)(?:.{0,8}?)(?:核实|保证|验证|查证|肯定|完全确定|"
    r"完全确认)|不(?:太|能|敢)?(?:完全)?(?:确定|肯定)|仅供参考|未经证实|未被证实|有待(?:核实|确认|"
    r"考证)|需要(?:进一步)?(?:核实|确认|验证)"
)
_ZH_DOUBLE = re.compile(
    r"(?:不是|并不是|并非|不意味着|不代表|不等于|不至于)(?:说|认为|因为|指|表示|表明|意味着|文|"
    r"资料|没|不|无|未|所有|我)"
    r"|(?:不是|并不是|并非|不会)(?:没有|没|未|无|不)|无法否认|不能否认|不能说|说.{0,12}(?:是|"
    r"并)(?:错|不对|不正确)|不(?:认为|觉得|相信|同意).{0,8}(?:没|无|未|不)|不难|难以否认|毫无疑问|"
    r"无疑|不无"
)
_ZH_REQUEST = re.compile(
    r"请(?:您|你)?(?:再|能否|先)?(?:提供|补充|给出|上传|说明|明确|告知)|(?:需要|需|还需|还需要|"
    r"如有|有).{0,6}(?:更多|其他|进一步|额外|补充).{0,8}(?:信息|资料|文档|内容|背景|线索)"
)
_ZH_CUE = re.compile(r"[没无未不缺难拒详请需遗歉超只仅]")


_LATIN = re.compile(r"[a-z]")


def may_decline(text: str) -> bool:
    """Whether any clause of a folded, lower-case text can decline; quick, and often no."""
    if not text.isascii() and _ZH_CUE.search(text):
        return True
    return bool(_LATIN.search(text)) and bool(_EN_CUE.search(text))


_READ = 400
"""Characters of a clause that are read: it is short, or no clause."""


def strength(clause: str, *, after_document: bool = False) -> Strength | None:
    """Return how a folded, lower-case clause declines, or None if it does not.

    `after_document` says that the clause before spoke of the passages, which its pronoun then is.
    """
    return _strength(clause[:_READ], after_document)


@functools.lru_cache(maxsize=8192)  # a policy refuses in few words, over and over
def _strength(clause: str, after_document: bool) -> Strength | None:
    if not clause.isascii() and _ZH_CUE.search(clause):
        found = _chinese(clause)
        if found is not None:
            return found
    if _LATIN.search(clause) and _EN_CUE.search(clause):
        return _english(clause, after_document)
    return None


def _chinese(clause: str) -> Strength | None:
    found = _ZH_REFUSAL.search(clause)
    if found is not None and not _ZH_DOUBLE.search(clause):
        return "doubt" if _ZH_DOUBT.search(clause) else "refusal"
    if _ZH_DOUBT.search(clause):
        return "doubt"
    is_request = _ZH_REQUEST.search(clause) or _TELLS_ONLY.search(clause)
    return "request" if is_request else None


def _english(clause: str, after_document: bool) -> Strength | None:
    if not _DOUBLE.search(clause) and not _SAID.search(clause):
        found = _declines(clause, after_document)
        if found is not None:
            return found
    is_request = _EN_REQUEST.search(clause) or _TELLS_ONLY.search(clause)
    return "request" if is_request else None


_VERIFY = re.compile(r"verif|confirm|guarantee|certain|sure|vouch|confident|definitive|accurately")


def _declines(clause: str, after_document: bool) -> Strength | None:
    cannot = _CANNOT.search(clause)
    if cannot is not None and _is_speaker(clause, cannot):
        return "doubt" if _VERIFY.match(cannot["verb"]) or "verify" in cannot[0] else "refusal"
    knows_not = _KNOW_NOT.search(clause)
    if knows_not is not None:
        return "doubt" if _VERIFY.match(knows_not["verb"]) else "refusal"
    tells_not = _DOC_TELLS_NOT.search(clause)
    if tells_not is not None and _speaks_of_document(clause[: tells_not.start()], after_document):
        return "refusal"
    passive = _PASSIVE_NOT.search(clause)
    if passive is not None and (
        passive["verb"] not in _LOOSE_PASSIVE or _ANSWER_NOUN.search(clause)
    ):
        return "refusal"
    for pattern in (_NONE_TELLS, _NOTHING, _IS_NOT_IN, _NOT_ENOUGH, _UNKNOWN, _WILL_NOT):
        if pattern.search(clause):
            return "refusal"
    lacks = _LACKS.search(clause)
    if lacks is not None and _speaks_of_document(clause[: lacks.start()], after_document):
        return "refusal"
    return None


def _is_speaker(clause: str, cannot: re.Match[str]) -> bool:
    """Whether it is the speaker, or anybody, who cannot tell, and not somebody in the story."""
    if cannot["verb"].startswith("be "):
        return True
    before = clause[max(0, cannot.start() - 40) : cannot.start()]
    return bool(_SPEAKER.search(before))


_ASSERTS = re.compile(
    r"\b(?:say|state|indicate|report|confirm|note|show|mention|suggest|reveal|claim)(?:s|"
    r"ed)? (?:that\b|the\b|he\b|she\b|it\b)"
    r"|\bsaid\b"
)
_STRONG_DOCUMENT = re.compile(rf"\b{_DOCUMENT}\b")


def _speaks_of_document(before: str, after_document: bool) -> bool:
    if _ASSERTS.search(before):  # "the passage says that he did not give ..." is content
        return False
    if _STRONG_DOCUMENT.search(before):
        return True
    return after_document and bool(_PRONOUN_DOC.match(before) or _ELIDED.match(before))


_ELIDED = re.compile(
    r"^\W*(?:but|and|yet|however|though|although)?\s*(?:do|does|did|has|have|is|are)?\s*$"
)
_ANY_DOCUMENT = re.compile(rf"\b{_DOCUMENT}\b|{_ZH_DOC}")


def names_document(clause: str) -> bool:
    """Whether a clause speaks of the passages."""
    return bool(_ANY_DOCUMENT.search(clause[:_READ]))
