"""Hand-written completions with their labels, over every way to answer and to refuse."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from textgym import Prompt, Sample
from textgym_plugins.kbqa import Kbqa


class Setting(NamedTuple):
    question: str
    target: object
    passages: tuple[str, ...] = ()


CAPITAL = Setting(
    "What is the seat of the Lunaris parliament?",
    ["Paris"],
    ("The parliament of Lunaris met in Lyon until 1920.", "Since 1921 it sits in Paris."),
)
CHAMPION = Setting("Who won the women's singles title in 2019?", ["Mira Castell", "Castell"])
YEAR = Setting("When did the observatory open?", ["March 5, 2021"])
COUNT = Setting("How many seats does the new hall have?", ["1,234"])
MONEY = Setting("What was the company's revenue in the first quarter?", "$10.4 billion")
RATE = Setting("How fast did the economy grow?", ["6.1%"])
CAST = Setting("Who plays the two leads?", [["Ana Ruiz"], ["Tom Behr", "Thomas Behr"]])
PLACE = Setting("Where was the final played?", "Tampa, Florida")
HOST = Setting("哪座城市举办了这届运动会？", ["武汉", "武汉市"])
DIRECTOR = Setting("这部电影的导演是谁？", [["李·哈维·唐森", "唐森"]])
DATE = Setting("博物馆是什么时候开放的？", ["2021年3月5日"])
NUMBER = Setting("新礼堂一共有多少个座位？", ["320"])
LEADS = Setting("这部剧的两位主演是谁？", [["张小丹"], ["王大昊"]])
DEATHS = Setting("这次事故造成多少人遇难？", ["12人"])
VOLUME = Setting("志愿者一共有多少人？", ["1.4万"])
SHARE = Setting("人口出生率是多少？", ["7.52‰"])

ANSWERED = [
    # plain
    (CAPITAL, "Paris", "TP"),
    (CAPITAL, "Paris.", "TP"),
    (CAPITAL, "It sits in Paris.", "TP"),
    (CAPITAL, "The seat of the Lunaris parliament is Paris.", "TP"),
    (CAPITAL, "**Answer:** Paris", "TP"),
    (CAPITAL, "According to the second passage, the parliament sits in Paris.", "TP"),
    (CAPITAL, "Based on the provided documents, the answer is Paris.", "TP"),
    (CAPITAL,
        "Based on the passages, the answer is Paris. However, note that it met in Lyon "
        "before 1921.", "TP"),
    (CAPITAL, '{"answer": "Paris"}', "TP"),
    (CAPITAL, r"The seat is \boxed{Paris}.", "TP"),
    (CAPITAL,
        "Let me go through the passages.\n\n1. The first speaks of Lyon until 1920.\n2. "
        "The second says Paris since 1921.\n\nSo the answer is Paris.", "TP"),
    (CAPITAL, "ＰＡＲＩＳ", "TP"),
    (CAPITAL, "París", "TP"),
    (CAPITAL, "Lyon", "FN"),
    (CAPITAL, "The seat is Lyon.", "FN"),
    (CAPITAL, "Parisian suburbs", "FN"),
    (CAPITAL, "Comparison", "FN"),
    (CAPITAL, "Pаris", "FN"),  # a Cyrillic a
    # named, but not claimed
    (CAPITAL, "It is not Paris but Lyon.", "FN"),
    (CAPITAL, "It is Paris, not Lyon.", "TP"),
    (CAPITAL, "It isn't Lyon but Paris.", "TP"),
    (CAPITAL, "The seat is Lyon, not Paris.", "FN"),
    (CAPITAL, "The seat is Lyon rather than Paris.", "FN"),
    (CAPITAL, "The seat is Paris rather than Lyon.", "TP"),
    (CAPITAL, "Either Paris or Lyon.", "FN"),
    (CAPITAL, "It is either Paris or Lyon.", "FN"),
    (CAPITAL, "It could be Paris or Lyon.", "FN"),
    (CAPITAL, "It could be Lyon, Nice, or Paris.", "FN"),
    (CAPITAL, "Paris, Lyon, Nice", "FN"),
    (CAPITAL, "Paris, Lyon and Nice.", "FN"),
    (CAPITAL, "- Paris\n- Lyon\n- Nice", "FN"),
    (CAPITAL, "Paris\nLyon\nNice", "FN"),
    (CAPITAL, "Paris. Lyon. Nice.", "FN"),
    (CAPITAL, "Paris/Lyon", "FN"),
    (CAPITAL, "The answer is Paris. The answer is Lyon.", "FN"),
    (CAPITAL, "The possible answers are Paris, Lyon and Nice.", "FN"),
    (CAPITAL, "Both Paris and Lyon.", "FN"),
    (CAPITAL, "The passages mention Paris.", "FN"),
    (CAPITAL, "Is it Paris?", "FN"),
    (CAPITAL, "Some people think it is Paris, but it is Lyon.", "FN"),
    (CAPITAL, "Although many people believe it is Paris, the parliament sits in Lyon.", "FN"),
    (CAPITAL, "If it were Paris, the passages would say so. It is Lyon.", "FN"),
    (CAPITAL, "I doubt that it is Paris.", "FN"),
    (CAPITAL, "Paris is not the seat.", "FN"),
    (CAPITAL, "Paris is incorrect.", "FN"),
    (CAPITAL, "Document 1 says Lyon, while document 2 says Paris.", "FN"),
    (CAPITAL,
        "Document 1 says Lyon, while document 2 says Paris. The more recent one is right, "
        "so the answer is Paris.", "TP"),
    (CAPITAL, "It is not only the largest city: Paris is also the seat of parliament.", "TP"),
    (CAPITAL, "It is none other than Paris.", "TP"),
    (CAPITAL, "The document says Paris, but this is incorrect; the correct answer is Lyon.", "FN"),
    (CAPITAL,
        "There are factual errors in the provided documents. The correct answer should be "
        "Paris.", "TP"),
    (CAPITAL, "The document says Lyon, but this is wrong. The correct answer is Paris.", "TP"),
    # corrections
    (CAPITAL, "Lyon. Wait, no: Paris.", "TP"),
    (CAPITAL, "The answer is Paris. Wait, that was before 1921. The answer is Lyon.", "FN"),
    (CAPITAL, "The answer is Lyon. Correction: the answer is Paris.", "TP"),
    (CAPITAL, "Paris. Actually, no, it is Lyon.", "FN"),
    (CAPITAL, "It is Paris. I made a mistake: it is Lyon.", "FN"),
    (CAPITAL, "Lyon, or rather Paris.", "TP"),
    (CAPITAL, "The answer is Paris. Wait, let me check again. Yes, that is correct.", "TP"),
    (CAPITAL, "I cannot answer this. Wait, passage 2 does say it: Paris.", "TP"),
    (CAPITAL,
        "The answer is Paris. Wait, the passages do not actually say that. I cannot answer.", "FN"),
    # thought
    (CAPITAL, "<think>Lyon? No, the second passage.</think>Paris", "TP"),
    (CAPITAL, "<think>It is Paris.</think>Lyon", "FN"),
    (CAPITAL, "<think>It is Paris.</think>", "FN"),
    (CAPITAL, "<think>It is Paris.", "FN"),
    (CAPITAL, "<think>I cannot answer.</think>\n\nThe answer is Paris.", "TP"),
    # refusals with an answer
    (CAPITAL, "I'm sorry for the delay. The answer is Paris.", "TP"),
    (CAPITAL, "Sorry, but I have to disappoint you: it's Paris.", "TP"),
    (CAPITAL, "I am not saying there is no answer; it is Paris.", "TP"),
    (CAPITAL, "It is not true that the passages do not mention it: the seat is Paris.", "TP"),
    (CAPITAL, "The passages do not say this explicitly. However, the answer is Paris.", "TP"),
    (CAPITAL,
        "The passages do not state it directly, but it can be inferred that the seat is "
        "Paris.", "TP"),
    (CAPITAL,
        "I cannot find it in the documents, but based on my general knowledge, it is Paris.", "TP"),
    (CAPITAL, "The seat is Paris. Please note that I cannot verify this independently.", "TP"),
    (CAPITAL, "Paris. The passages do not give the reasons for the move.", "TP"),
    (CAPITAL, "I'm not sure, but I think it is Paris.", "TP"),
    (CAPITAL, "It is probably Paris, although the passages do not confirm it.", "TP"),
    (CAPITAL, 'The spokesman said "I cannot answer that question", but the seat is Paris.', "TP"),
    # refusals
    (CAPITAL,
        "I can not answer the question because of the insufficient information in "
        "documents.", "FN"),
    (CAPITAL,
        "The provided documents do not contain information about the seat of the "
        "parliament.", "FN"),
    (CAPITAL, "The passages mention Paris, but do not state where the parliament sits.", "FN"),
    (CAPITAL, "I don't know.", "FN"),
    # nothing
    (CAPITAL, "", "FN"),
    (CAPITAL, "   \n", "FN"),
    (CAPITAL, "What is the seat of the Lunaris parliament?", "FN"),
    (CAPITAL,
        "The parliament of Lunaris met in Lyon until 1920. Since 1921 it sits in Paris.", "FN"),
    # aliases and names
    (CHAMPION, "Castell", "TP"),
    (CHAMPION, "Mira Castell defeated Jo Brandt in the final.", "TP"),
    (CHAMPION, "Castell, Mira", "TP"),
    (CHAMPION, "Mira J. Castell", "TP"),
    (CHAMPION, "mira castell", "TP"),
    (CHAMPION, "Jo Brandt", "FN"),
    (CHAMPION, "Mira Castellano", "FN"),
    (CHAMPION, "The title went to Jo Brandt instead of Mira Castell.", "FN"),
    (CHAMPION, "Mira Castell did not win.", "FN"),
    (PLACE, "Tampa, Florida", "TP"),
    (PLACE, "It was played in Tampa, FL.", "TP"),
    (PLACE, "The final was played at the stadium in Tampa.", "TP"),
    (PLACE, "Tampa, Texas", "FN"),
    (PLACE, "Miami, Florida", "FN"),
    # several groups
    (CAST, "Ana Ruiz and Tom Behr", "TP"),
    (CAST, "The leads are played by Thomas Behr and Ana Ruiz.", "TP"),
    (CAST, "- Ana Ruiz\n- Tom Behr", "TP"),
    (CAST, "Ana Ruiz plays Ida. Tom Behr plays Max.", "TP"),
    (CAST, "Ana Ruiz", "FN"),
    (CAST, "Ana Ruiz and Jim Poe", "FN"),
    (CAST, "Ana Ruiz, but not Tom Behr", "FN"),
    (CAST, "The answer is Ana Ruiz and Tom Behr.", "TP"),
    # dates
    (YEAR, "2021-03-05", "TP"),
    (YEAR, "It opened on 5 March 2021.", "TP"),
    (YEAR, "It opened on the 5th of March, 2021.", "TP"),
    (YEAR, "2021年3月5日", "TP"),
    (YEAR, "Mar. 5, 2021", "TP"),
    (YEAR, "03/05/2021", "TP"),
    (YEAR, "March 15, 2021", "FN"),
    (YEAR, "March 5, 2020", "FN"),
    (YEAR, "In March 2021.", "FN"),
    (YEAR, "2021", "FN"),
    (YEAR, "Not on March 5, 2021, but a year later.", "FN"),
    (YEAR, "It was not until March 5, 2021 that it opened.", "TP"),
    # numbers
    (COUNT, "1234", "TP"),
    (COUNT, "It has 1,234 seats.", "TP"),
    (COUNT, "It has １，２３４ seats.", "TP"),
    (COUNT, "one thousand two hundred and thirty-four", "TP"),
    (COUNT, "一千二百三十四", "TP"),
    (COUNT, "1,235", "FN"),
    (COUNT, "11,234", "FN"),
    (COUNT, "1,234,000", "FN"),
    (COUNT, "1.234", "FN"),
    (COUNT, "about 1.2 thousand", "FN"),
    (COUNT, "between 1,000 and 2,000", "FN"),
    (MONEY, "$10.4 billion", "TP"),
    (MONEY, "10.4 billion US dollars", "TP"),
    (MONEY, "Revenue was $10,400 million.", "TP"),
    (MONEY, "104亿美元", "TP"),
    (MONEY, "$10.4bn", "TP"),
    (MONEY, "$10.4 million", "FN"),
    (MONEY, "€10.4 billion", "FN"),
    (MONEY, "$1.04 billion", "FN"),
    (RATE, "6.1 percent", "TP"),
    (RATE, "It grew by 6.1 per cent.", "TP"),
    (RATE, "百分之六点一", "TP"),
    (RATE, "6.1", "TP"),
    (RATE, "16.1%", "FN"),
    (RATE, "6.1‰", "FN"),
    # Chinese
    (HOST, "武汉", "TP"),
    (HOST, "武漢", "TP"),
    (HOST, "武漢市舉辦了這屆運動會。", "TP"),
    (HOST, "根据提供的文档，答案是武汉。", "TP"),
    (HOST, "根据文档2，这届运动会在武汉举办。", "TP"),
    (HOST, "答：武汉市", "TP"),
    (HOST, "成都", "FN"),
    (HOST, "不是武汉，而是成都。", "FN"),
    (HOST, "不是成都，而是武汉。", "TP"),
    (HOST, "是成都而不是武汉。", "FN"),
    (HOST, "武汉或成都。", "FN"),
    (HOST, "可能是武汉，也可能是成都，或者是长沙。", "FN"),
    (HOST, "武汉、成都、长沙", "FN"),
    (HOST, "可能的答案有武汉、成都、长沙。", "FN"),
    (HOST, "有人认为是武汉，但实际上是成都。", "FN"),
    (HOST, "有人认为是成都，但实际上是武汉。", "TP"),
    (HOST, "文档中提到了武汉。", "FN"),
    (HOST, "是成都。不对，应该是武汉。", "TP"),
    (HOST, "是武汉。更正：是成都。", "FN"),
    (HOST, "抱歉让您久等了，答案是武汉。", "TP"),
    (HOST, "并不是说文档没有答案，答案就是武汉。", "TP"),
    (HOST, "文档并没有明确说明，但根据我的知识，是武汉。", "TP"),
    (HOST, "文档中没有直接提到，不过可以推断举办城市是武汉。", "TP"),
    (HOST, "我不太确定，但我认为是武汉。", "TP"),
    (HOST, "是武汉。不过我无法核实这一信息。", "TP"),
    (HOST, "武汉是错误的。", "FN"),
    (HOST, "是武汉吗？", "FN"),
    (HOST, "提供的文档中存在事实性错误，正确答案应该是武汉。", "TP"),
    (HOST, "文档说是成都，但这是错误的，正确答案是武汉。", "TP"),
    (HOST, "文档信息不足，因此我无法基于提供的文档回答该问题。", "FN"),
    (HOST, "The games were held in 武汉.", "TP"),
    (HOST, "<think>也许是成都</think>武汉", "TP"),
    (DIRECTOR, "李·哈维·唐森", "TP"),
    (DIRECTOR, "李•哈维•唐森", "TP"),
    (DIRECTOR, "李哈维唐森执导了这部电影。", "TP"),
    (DIRECTOR, "導演是唐森。", "TP"),
    (DIRECTOR, "不是由唐森执导的。", "FN"),
    (DATE, "2021年3月5日", "TP"),
    (DATE, "二〇二一年三月五日", "TP"),
    (DATE, "２０２１年３月５日开放。", "TP"),
    (DATE, "March 5, 2021", "TP"),
    (DATE, "2021-03-05", "TP"),
    (DATE, "2021/3/5", "TP"),
    (DATE, "2021年3月15日", "FN"),
    (DATE, "2021年13月5日", "FN"),
    (DATE, "2020年3月5日", "FN"),
    (DATE, "2021年3月", "FN"),
    (NUMBER, "三百二十个", "TP"),
    (NUMBER, "一共有320个座位。", "TP"),
    (NUMBER, "共有三百二十个座位", "TP"),
    (NUMBER, "3200个", "FN"),
    (NUMBER, "1320个", "FN"),
    (NUMBER, "三百二十万", "FN"),
    (NUMBER, "大约300到320个", "FN"),
    (DEATHS, "十二人", "TP"),
    (DEATHS, "共有12人遇难，14人受伤。", "TP"),
    (DEATHS, "twelve people", "TP"),
    (DEATHS, "112人", "FN"),
    (DEATHS, "14人", "FN"),
    (DEATHS, "事故发生在12月。", "FN"),
    (VOLUME, "14000人", "TP"),
    (VOLUME, "1.4万余人", "TP"),
    (VOLUME, "14,000 people", "TP"),
    (VOLUME, "1.4亿", "FN"),
    (VOLUME, "1.4", "FN"),
    (SHARE, "7.52‰", "TP"),
    (SHARE, "0.752%", "TP"),
    (SHARE, "7.52%", "FN"),
    (LEADS, "张小丹和王大昊", "TP"),
    (LEADS, "張小丹、王大昊", "TP"),
    (LEADS, "主演是王大昊与张小丹。", "TP"),
    (LEADS, "张小丹", "FN"),
    (LEADS, "张小丹和李明", "FN"),
    (LEADS, "张小丹和王大昊都不是主演。", "FN"),
]  # fmt: skip

REFUSED = [
    # refused
    (CAPITAL,
        "I can not answer the question because of the insufficient information in documents."),
    (CAPITAL,
        "The provided documents do not contain information about the seat of the Lunaris "
        "parliament."),
    (CAPITAL,
        "Based on the provided passages, it is not possible to determine where the parliament "
        "sits."),
    (CAPITAL, "None of the documents mention the seat of the parliament."),
    (CAPITAL, "There is no information in the given context about this."),
    (CAPITAL, "The answer is not in the passages."),
    (CAPITAL, "I'm sorry, but I couldn't find the answer in the provided documents."),
    (CAPITAL, "I don't have enough information to answer that."),
    (CAPITAL, "Unfortunately, the passages don't specify this."),
    (CAPITAL, "Unable to determine from the passages."),
    (CAPITAL, "Not mentioned."),
    (CAPITAL, "The answer is unknown."),
    (CAPITAL, "N/A"),
    (CAPITAL, "Insufficient information."),
    (CAPITAL, "I'm afraid the text doesn't really say, so I would rather not guess."),
    (CAPITAL, "The question cannot be answered based on the given passages."),
    (CAPITAL,
        "The documents discuss the history of Lunaris and its rivers. However, they do not say "
        "where the parliament sits. To answer this, more information would be needed."),
    (CAPITAL,
        "The passages talk about the parliament until 1920, but not a single one says where it "
        "sits today, so I can't answer."),
    (CAPITAL,
        "Based on the information given, I cannot determine the seat. The first passage only "
        "describes the reform of 1905. If you can provide more documents, I would be happy to "
        "help."),
    (CAPITAL,
        "While the passages mention Lunaris several times, there is no mention of its "
        "parliament's seat. I recommend checking an official source."),
    (CAPITAL, "I do not know."),
    (CAPITAL, "The context provided lacks the details needed to answer this question."),
    (CAPITAL, "As the documents are silent on this, no answer can be given."),
    (CAPITAL, "The seat is not specified in the text."),
    (CAPITAL, "It's unclear from the passages which city is meant."),
    (CAPITAL,
        "<think>Perhaps Paris. But nothing says so.</think>The passages do not contain the "
        "answer."),
    (CAPITAL,
        "The answer is Paris. Wait, I misread the passage. It does not say where the parliament "
        "sits, so I cannot answer."),
    (CAPITAL,
        "It might be Paris, but the passages do not say so, so I cannot answer this question."),
    (CHAMPION,
        "The documents only cover the 2018 and 2020 tournaments; they don't say who won in 2019."),
    (YEAR, "The passages do not provide the opening date of the observatory."),
    (COUNT, "I could not find the number of seats in any of the documents."),
    (HOST, "文档信息不足，因此我无法基于提供的文档回答该问题。"),
    (HOST, "根据提供的资料，无法确定。"),
    (HOST, "文檔資訊不足，因此我無法回答這個問題。"),
    (HOST, "抱歉，提供的文档中没有提到举办城市。"),
    (HOST, "很抱歉，我无法从给定的段落中找到答案。"),
    (HOST, "文中未提及。"),
    (HOST, "不知道。"),
    (HOST, "我不清楚。"),
    (HOST, "没有足够的信息来回答这个问题。"),
    (HOST, "所给材料主要介绍了历届运动会的奖牌情况，但没有说明这届运动会在哪里举办。"),
    (HOST, "无法得知，文档中只介绍了运动会的历史。如果您能提供更多资料，我很乐意帮助您。"),
    (HOST, "這個問題的答案在文件中找不到。"),
    (HOST, "对不起，根据现有信息难以判断。"),
    (HOST, "答案未知。"),
    (HOST, "<think>会不会是武汉？</think>文档没有给出答案，无法回答。"),
    (HOST, "是武汉。不对，文档里并没有说，我无法回答。"),
    (DATE, "根据上下文，无法确定博物馆的开放时间。"),
    (NUMBER, "上述文档均未涉及座位数量，因此无法回答。"),
    (DEATHS, "文档中没有关于遇难人数的具体信息。建议您查阅官方通报。"),
]  # fmt: skip

NOT_REFUSED = [
    (CAPITAL, "Paris"),
    (CAPITAL, "Lyon."),
    (CAPITAL, "The parliament sits in Nice."),
    (CAPITAL, "The answer is Paris."),
    (CAPITAL, "I cannot find it in the passages. However, based on my own knowledge, it is Paris."),
    (CAPITAL, "The passages do not mention it. The answer is Nice."),
    (CAPITAL, "The documents don't say. It is Nice."),
    (CAPITAL,
        "It is not mentioned in the passages, but the seat of the parliament of Lunaris is Nice."),
    (CAPITAL,
        "The seat of the Lunaris parliament is Nice, although the passages do not mention this."),
    (CAPITAL, "I'm not sure, but I believe it is Nice."),
    (CAPITAL, "Sorry for the wait! It's Nice."),
    (CAPITAL, "I'm not saying that there is no answer. It is Nice."),
    (CAPITAL, "I cannot answer. Wait, actually it is Nice."),
    (CAPITAL, "Not in the documents. Nice."),
    (CAPITAL, ""),
    (CAPITAL, "<think>The passages do not contain the answer."),
    (CAPITAL, "<think>I cannot answer this.</think>Nice"),
    (CAPITAL, "What is the seat of the Lunaris parliament?"),
    (CHAMPION,
        "Jo Brandt won the women's singles title in 2019. Note that the passages do not mention "
        "it."),
    (HOST, "武汉"),
    (HOST, "是成都。"),
    (HOST, "文档没有提到，但据我所知是成都。"),
    (HOST, "文档中没有提到。答案是成都。"),
    (HOST, "抱歉让您久等，这届运动会由成都举办。"),
    (HOST, "这届运动会的举办城市是成都，不过文档没有提到这一点。"),
    (HOST, "我无法回答。不对，应该是成都。"),
    (HOST, ""),
    (NUMBER, "文档没有说明，大概是三百个。"),
]  # fmt: skip


def label(setting: Setting, completion: str, *, answerable: bool) -> tuple[str | None, str]:
    prompt = Prompt(
        id="1",
        messages=setting.question,
        target=setting.target,
        passages=setting.passages,
        answerable=answerable,
    )
    score = Kbqa().score(Sample(prompt, completion))
    return score.label, score.reason


@pytest.mark.parametrize(("setting", "completion", "expected"), ANSWERED)
def test_answerable_question(setting: Setting, completion: str, expected: str) -> None:
    found, reason = label(setting, completion, answerable=True)
    assert found == expected, f"{completion!r}: {reason}"


@pytest.mark.parametrize(("setting", "completion"), REFUSED)
def test_refusal_is_seen_whether_due_or_not(setting: Setting, completion: str) -> None:
    found, reason = label(setting, completion, answerable=False)
    assert found == "TN", f"{completion!r}: {reason}"
    found, reason = label(setting, completion, answerable=True)
    assert (found, reason.partition(":")[0]) == ("FN", "refused though answerable"), reason


@pytest.mark.parametrize(("setting", "completion"), NOT_REFUSED)
def test_answer_where_a_refusal_is_due(setting: Setting, completion: str) -> None:
    found, reason = label(setting, completion, answerable=False)
    assert found == "FP", f"{completion!r}: {reason}"
