"""What the math reward takes as the answer of a completion, and where it finds none."""

from __future__ import annotations

import pytest

from textgym import Prompt, Sample, Score
from textgym_plugins.math import MathReward
from textgym_plugins.math.characters import strip_decoration
from textgym_plugins.math.extract import extract

QUESTION = "How much is it in the end?"


def score(completion: str, target: str, question: str = QUESTION) -> Score:
    prompt = Prompt(id="1", messages=question, target=target)
    return MathReward().score(Sample(prompt=prompt, completion=completion))


FOUND = {
    "box": (r"So it is \boxed{42}.", "42", "boxed"),
    "box without braces": (r"So it is \boxed 42.", "42", "boxed"),
    "fbox": (r"\fbox{42}", "42", "boxed"),
    "nested braces": (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}", "boxed"),
    "escaped braces": (r"\boxed{\{1, 2\}}", r"\{1, 2\}", "boxed"),
    "box in math": (r"Thus $x = \boxed{42}$.", "42", "boxed"),
    "box in a phrase": (r"The answer is $\boxed{42}$.", "42", "boxed"),
    "box, rounded as well": (r"\boxed{10\pi} or approximately 31.4", r"10\pi", "boxed"),
    "last of two boxes": (r"A is \boxed{41}. Therefore the total is \boxed{42}.", "42", "boxed"),
    "hashes": ("48 + 24 = 72\n#### 72", "72", "####"),
    "hashes with words": ("#### The total is 72 clips", "72 clips", "####"),
    "the answer is": ("The answer is 42.", "42.", "answer phrase"),
    "the final answer is": ("The final answer is: $42$. I hope so.", "$42$", "answer phrase"),
    "the answer would be": ("The answer would be 42", "42", "answer phrase"),
    "answer colon": ("Answer: 42", "42", "answer phrase"),
    "bold answer": ("**Answer:** 42", "42", "answer phrase"),
    "answer equals": ("Answer = 42", "42", "answer phrase"),
    "answer as heading": ("## Answer\n\n42", "42", "answer phrase"),
    "answer, next line": ("The answer is:\n\n42", "42", "answer phrase"),
    "answer, formula": ("The answer is:\n\\[ 42 \\]", "42", "answer phrase"),
    "chinese is": ("所以答案是42。", "42", "answer phrase"),
    "chinese as": ("答案为42", "42", "answer phrase"),
    "chinese colon": ("答案：42", "42", "answer phrase"),
    "chinese short": ("答：42", "42", "answer phrase"),
    "A line": ("She has 3.\nA: 42", "42", "A: line"),
    "bare number": ("42", "42", "last line"),
    "last line": ("6 * 7 is the thing to do\n42", "42", "last line"),
    "last line with unit": ("42 apples", "42 apples", "last line"),
    "last line as equation": ("x = 42", "x = 42", "last line"),
    "last line as sentence": ("So there are 42 apples left.", "42 apples", "last line"),
    "last line, amount": ("He made a profit of $70,000", "$70,000", "last line"),
    "last line, formula": (r"Thus the value is $\frac{1}{2}$.", r"\frac{1}{2}", "last line"),
    "last line, sum told": ("The sum of 40 and 2 is 42.", "42", "last line"),
    "displayed formula": ("So\n\\[ x = 42 \\]", "x = 42", "last line"),
    "calculator notes": ("She has 6*7=<<6*7=42>>42 eggs", "42 eggs", "last line"),
    "code fence": ("```\n42\n```", "42", "last line"),
    "not but": ("The answer is not 41 but 42.", "42", "answer phrase"),
    "wait, no": ("The answer is 41. Wait, no, the answer is 42.", "42", "answer phrase"),
    "no wait, inside": ("The answer is 41, no wait, 42.", "42", "correction"),
    "correction": ("The answer is 41. Correction: it is 42.", "42", "correction"),
    "scratch that": ("#### 41. Scratch that, 42", "42", "correction"),
    "mistake": ("#### 41\nSorry, I made a mistake.\n#### 42", "42", "####"),
    "actually": (r"\boxed{41}. Actually, it is 42.", "42", "correction"),
    "in chinese": ("答案是41。不对，应该是42", "42", "correction"),
    "in the last line": ("It is 41, no wait, 42", "42", "correction"),
}


@pytest.mark.parametrize(("completion", "text", "how"), FOUND.values(), ids=FOUND)
def test_extract_finds_the_answer(completion: str, text: str, how: str) -> None:
    found = extract(completion)
    assert found.text is not None
    assert (strip_decoration(found.text), found.how) == (strip_decoration(text), how)


@pytest.mark.parametrize(("completion", "text", "how"), FOUND.values(), ids=FOUND)
def test_score_reports_what_was_extracted_and_how(completion: str, text: str, how: str) -> None:
    found = score(completion, text)
    assert (found.value, found.label) == (1.0, "correct")
    assert found.reason.startswith(how)
    assert found.extracted is not None
    assert found.extracted in completion.replace("\\ ", "")


NOT_FOUND = {
    "nothing": "",
    "blanks": " \n\t ",
    "words": "I do not know.",
    "empty box": r"\boxed{}",
    "blank box": r"\boxed{ }",
    "open box": r"\boxed{42",
    "empty hashes": "#### ",
    "empty phrase": "The answer is",
    "empty heading": "Answer:",
    "question": "Is it 42?",
    "answer in question": "The answer is 42?",
    "negated": "The answer is not 42.",
    "negated sentence": "It is not 42",
    "lower bound": "at least 42",
    "upper bound": "It is less than 42.",
    "withdrawn": r"\boxed{42}. That is wrong.",
    "withdrawn phrase": "The answer is 42. Scratch that.",
    "withdrawn twice": "The answer is 42. No wait, 41. Wait, no, it is 40 or 41.",
    "either": "either 42 or 41",
    "answer is either": "The answer is either 42 or 41.",
    "maybe": "maybe 42, maybe 41",
    "or perhaps": "42, or perhaps 41",
    "guess": "I would guess 42, 43 or 44.",
    "several numbers": "40 41 42 43 44",
    "two sentences": "It may be 41.\nIt may be 42.",
    "two values": "2 apples and 42 pears",
    "two lines": "41\n42",
    "bullets": "- 41\n- 42",
    "numbered": "1. 41\n2. 42",
    "options in lines": "A: 41\nB: 42\nC: 43\nD: 44",
    "two boxes": r"\boxed{41}\boxed{42}",
    "two boxes with or": r"\boxed{41} or \boxed{42}",
    "box and another value": r"\boxed{42} or 41",
    "box and two other values": r"$\boxed{42}$ or 41 or 40",
    "two hashes": "#### 41 #### 42",
    "two lines of hashes": "#### 41\n#### 42",
    "two answers": "Answer: 41\nAnswer: 42",
    "two answers, one line": "Answer: 41 Answer: 42",
    "two answers in prose": "The answer is 42 the answer is 41",
    "by condition": "The answer is 42 if n is even and 41 if n is odd.",
    "box of two": r"\boxed{41, 42}",
    "box with or": r"\boxed{42 \text{ or } 41}",
    "contradiction": "41 = 42",
    "approximate contradiction": "41≈42",
    "open think tag": "<think>The answer is 42.\n#### 42",
    "reopened think tag": "</think><think>42",
    "answer while thinking": "<think>\\boxed{42}</think>",
    "no answer after thinking": "<think>\\boxed{42}</think> I do not know.",
    "prompt echoed": QUESTION,
    "prompt echoed twice": f"{QUESTION}\n{QUESTION}",
}


@pytest.mark.parametrize("target", ["42", "41"])
@pytest.mark.parametrize("completion", NOT_FOUND.values(), ids=NOT_FOUND)
def test_score_finds_no_answer(completion: str, target: str) -> None:
    found = score(completion, target)
    assert found.value == 0.0
    assert found.label == "no_answer", found


def test_prompt_with_the_target_in_it_is_no_answer_when_echoed() -> None:
    question = "Is the answer 42? The answer is 42"
    assert score(question, "42", question).label == "no_answer"
    assert score(f"{question}\nSo: 42", "42", question).label == "correct"


CHOICES = {
    "letter": ("C", 1.0),
    "letter in parentheses": ("(C)", 1.0),
    "box": (r"\boxed{C}", 1.0),
    "box with text": (r"\boxed{\text{(C)}}", 1.0),
    "phrase": ("The answer is C.", 1.0),
    "option with its text": ("The answer is (C) 42.", 1.0),
    "dotted option": (r"\boxed{C. 42}", 1.0),
    "bold option": (r"\boxed{\textbf{(C) } 42}", 1.0),
    "colon": ("The answer is C: 42", 1.0),
    "option as last line": ("C) 42", 1.0),
    "other letter": ("The answer is D.", 0.0),
    "other option": (r"\boxed{D. 42}", 0.0),
    "two letters": (r"\boxed{C, D}", 0.0),
    "two letters with or": ("The answer is (C) or (D).", 0.0),
    "two options": (r"\boxed{C. 42, D. 43}", 0.0),
    "all options in a line": ("(A) 40 (B) 41 (C) 42 (D) 43", 0.0),
    "all options": ("A) 40\nB) 41\nC) 42\nD) 43", 0.0),
    "letters in a row": (r"\boxed{ABCD}", 0.0),
    "negated": ("The answer is not C.", 0.0),
    "about the option": ("(C) is wrong", 0.0),
}


@pytest.mark.parametrize(("completion", "value"), CHOICES.values(), ids=CHOICES)
def test_choices_are_read_by_their_letter(completion: str, value: float) -> None:
    assert score(completion, "C").value == value


def test_value_of_a_lettered_option_counts_where_the_target_is_a_value() -> None:
    assert score("The answer is (C) 42.", "42").value == 1.0
    assert score("The answer is (C) 41.", "42").label == "wrong"


WORDS = {
    "box": ("ellipse", r"\boxed{\text{ellipse}}", 1.0),
    "sentence": ("ellipse", "The answer is an ellipse.", 1.0),
    "led up to": ("ellipse", "Answer: the correct answer is ellipse", 1.0),
    "yes": ("yes", "Answer: Yes.", 1.0),
    "time of day": ("3:00", "#### 3:00", 1.0),
    "other time": ("3:00", "#### 3:30", 0.0),
    "date": (r"\text{June 20}", r"\boxed{\text{June 20}}", 1.0),
    "both": ("ellipse", "ellipse or circle", 0.0),
    "both answers": ("yes", "yes and no", 0.0),
    "other word": ("ellipse", "The answer is a circle.", 0.0),
}


@pytest.mark.parametrize(("target", "completion", "value"), WORDS.values(), ids=WORDS)
def test_words_are_answers_where_the_target_is_one(
    target: str, completion: str, value: float
) -> None:
    assert score(completion, target).value == value


@pytest.mark.parametrize("target", [None, True, ["42"], {"a": 1}, "", " $ $ "])
def test_target_that_is_no_answer_is_abstained_from(target: object) -> None:
    prompt = Prompt(id="p7", messages=QUESTION, target=target)
    found = MathReward().score(Sample(prompt=prompt, completion="42"))
    assert found.status == "abstained"
    assert "p7" in found.reason


@pytest.mark.parametrize(
    "target",
    ["42", 42, 42.0, "#### 42", "6*7 = <<6*7=42>>42\n#### 42", r"It is $\boxed{42}$.", "A: 42"],
)
def test_target_may_be_a_number_or_a_reference_solution(target: object) -> None:
    prompt = Prompt(id="1", messages=QUESTION, target=target)
    assert MathReward().score(Sample(prompt=prompt, completion="It is 42.")).value == 1.0
    assert MathReward().score(Sample(prompt=prompt, completion="It is 41.")).value == 0.0
