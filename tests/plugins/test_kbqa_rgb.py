from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import textgym
from textgym import Prompt, Sample
from textgym.errors import PromptError
from textgym_plugins.kbqa import Kbqa
from textgym_plugins.kbqa.rgb import Rgb, Task
from textgym_plugins.kbqa.target import names_all, read_target

ROW = {
    "id": 1,
    "query": "Who runs the mill?",
    "answer": [["Ida Holm", "Holm"]],
    "fakeanswer": "Per Lund",
    "positive": [f"Ida Holm runs the mill, says source {i}." for i in range(6)],
    "positive_wrong": [f"Per Lund runs the mill, says source {i}." for i in range(4)],
    "negative": [f"The mill has {i} wheels." for i in range(8)],
}
PARTS = {
    "id": 2,
    "query": "磨坊的主人和地点是什么？",
    "answer": ["王小明", ["南京", "南京市"]],
    "positive": [["磨坊的主人是王小明。", "王小明拥有磨坊。"], ["磨坊在南京。"]],
    "negative": ["磨坊很旧。", "磨坊很大。", "磨坊很老。", "磨坊有水轮。"],
}


def write(path: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def mill(tmp_path: Path) -> Path:
    return write(tmp_path / "mill.jsonl", ROW)


@pytest.mark.parametrize(("rate", "holding"), [(0.0, 5), (0.2, 4), (0.4, 3), (0.8, 1), (1.0, 0)])
def test_noise_rate_sets_the_share(mill: Path, rate: float, holding: int) -> None:
    prompt = Rgb(path=mill, task="noise", noise_rate=rate).prompt(0)
    assert len(prompt.passages) == 5
    assert sum("Ida Holm" in passage for passage in prompt.passages) == holding
    assert prompt.answerable is (holding > 0)
    assert prompt.reward == "kbqa"
    assert prompt.target == [["Ida Holm", "Holm"]]


def test_rejection_holds_noise_alone(mill: Path) -> None:
    prompt = Rgb(path=mill, task="rejection", num_passages=3).prompt(0)
    assert set(prompt.passages) < {f"The mill has {i} wheels." for i in range(8)}
    assert len(prompt.passages) == 3
    assert prompt.answerable is False


def test_rejection_leaves_out_noise_that_names_the_answer(tmp_path: Path) -> None:
    row = ROW | {"negative": ["Mr. Holm repairs it.", "It is old."]}
    prompt = Rgb(path=write(tmp_path / "a.jsonl", row), task="rejection").prompt(0)
    assert prompt.passages == ("It is old.",)
    path = write(tmp_path / "b.jsonl", ROW | {"negative": ["Mr. Holm repairs it."]})
    with pytest.raises(PromptError, match="without the answer"):
        Rgb(path=path, task="rejection").num_prompts()


def test_counterfactual_holds_the_wrong_answer(mill: Path) -> None:
    prompt = Rgb(path=mill, task="counterfactual").prompt(0)
    assert sum("Per Lund" in passage for passage in prompt.passages) == 3
    assert not any("Ida Holm" in passage for passage in prompt.passages)
    assert prompt.metadata["fake_answer"] == "Per Lund"
    assert Kbqa().score(Sample(prompt, "Ida Holm")).label == "TP"
    assert Kbqa().score(Sample(prompt, "Per Lund")).label == "FN"


def test_integration_takes_a_passage_of_each_part(tmp_path: Path) -> None:
    path = write(tmp_path / "parts.jsonl", PARTS)
    for seed in range(8):
        source = Rgb(path=path, task="integration", num_passages=4, noise_rate=0.75, seed=seed)
        passages = source.prompt(0).passages
        assert len(passages) == 4
        assert sum("王小明" in passage for passage in passages) == 1
        assert "磨坊在南京。" in passages
    one = Rgb(path=path, task="integration", num_passages=1).prompt(0)
    assert len(one.passages) == 2  # an answer in two parts needs two
    assert one.target == [["王小明"], ["南京", "南京市"]]


def test_passages_depend_on_seed_and_row_alone(tmp_path: Path) -> None:
    rows = [ROW | {"id": i, "query": f"Who runs mill {i}?"} for i in range(6)]
    path = write(tmp_path / "mills.jsonl", *rows)
    first, again = Rgb(path=path), Rgb(path=path)
    assert [first.prompt(i) for i in range(6)] == [again.prompt(i) for i in range(6)]
    shorter = Rgb(path=write(tmp_path / "copy.jsonl", *rows[3:]))
    assert shorter.prompt(0).passages == first.prompt(3).passages
    other = [Rgb(path=path, seed=1).prompt(i).passages for i in range(6)]
    assert sum(other[i] == first.prompt(i).passages for i in range(6)) < 2


def test_message_speaks_the_language_of_the_question(tmp_path: Path, mill: Path) -> None:
    english = Rgb(path=mill).prompt(0)
    assert [m.role for m in english.messages] == ["system", "user"]
    assert english.text.endswith("Question: Who runs the mill?")
    assert all(passage in english.text for passage in english.passages)
    chinese = Rgb(path=write(tmp_path / "parts.jsonl", PARTS), instructions=False).prompt(0)
    assert [m.role for m in chinese.messages] == ["user"]
    assert chinese.text.endswith("问题：磨坊的主人和地点是什么？")


def test_question_has_one_split_key_in_all_tasks(mill: Path) -> None:
    keys = {int(Rgb(path=mill, task=t, seed=s).split_keys()[0]) for t in _TASKS for s in (0, 1)}
    assert len(keys) == 1
    assert Rgb(path=mill).split_keys().dtype == np.uint64


_TASKS: tuple[Task, ...] = ("noise", "rejection", "counterfactual")


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({k: v for k, v in ROW.items() if k != "query"}, "query"),
        (ROW | {"query": " "}, "query"),
        (ROW | {"answer": []}, "answer"),
        (ROW | {"answer": 7}, "answer"),
        (ROW | {"answer": [["Holm", 3]]}, "answer.0.1"),
        (ROW | {"positive": []}, "positive"),
        (ROW | {"positive": [["x"], []]}, "positive.1"),
        (ROW | {"positive": ["x", ["y"]]}, "positive.1"),
        (ROW | {"negative": "x"}, "negative"),
        (ROW | {"negative": [None]}, "negative.0"),
        (ROW | {"id": [1]}, "id"),
        (ROW | {"positive_wrong": []}, "positive_wrong"),
        ("{not json", ""),
    ],
)
def test_malformed_line_is_named_and_the_rest_used(tmp_path: Path, row: object, field: str) -> None:
    path = write(tmp_path / "bad.jsonl", ROW, row, ROW | {"id": 9})
    source = Rgb(path=path, task="counterfactual")
    with pytest.warns(UserWarning, match=r"bad\.jsonl:2"):
        assert source.num_prompts() == 2
    [problem] = source.problems
    assert (problem.line, problem.field) == (2, field)
    assert problem.message


def test_id_that_occurs_twice_is_malformed(tmp_path: Path) -> None:
    source = Rgb(path=write(tmp_path / "twice.jsonl", ROW, ROW))
    with pytest.warns(UserWarning, match="is the id of line 1 already"):
        assert source.num_prompts() == 1


def test_missing_or_empty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"gone\.jsonl: cannot be read"):
        Rgb(path=tmp_path / "gone.jsonl").num_prompts()
    with pytest.raises(PromptError, match="no usable row"):
        Rgb(path=write(tmp_path / "empty.jsonl", "")).num_prompts()


def test_index_outside_is_an_error(mill: Path) -> None:
    with pytest.raises(IndexError, match="prompt 1 of 1"):
        Rgb(path=mill).prompt(1)


def test_source_is_installed_by_name(mill: Path) -> None:
    source = textgym.make_prompt_source("rgb", path=str(mill), task="rejection")
    assert source.prompt(0).answerable is False


FILES = {
    "rgb_en_fact.jsonl": ("noise", "rejection", "counterfactual"),
    "rgb_zh_fact.jsonl": ("noise", "rejection", "counterfactual"),
    "rgb_zh_int.jsonl": ("noise", "rejection", "integration"),
    "rgb_zh_refine.jsonl": ("noise", "rejection"),
}
CASES = [(name, task) for name, tasks in FILES.items() for task in tasks]
ANSWERS = {
    "en": (
        "{a}",
        "The answer is {a}.",
        "Based on the provided documents, the answer is {a}.",
        "Based on the passages, the answer is {a}. However, note that some documents differ.",
        "The documents do not state this explicitly, but it can be inferred that it is {a}.",
        "Answer: {a}\n\nExplanation: several documents say so.",
        "There are factual errors in the provided documents. The correct answer is {a}.",
        "<think>Let me see.</think>\n\nThe final answer is {a}.",
        "I cannot find this in the documents, but to my knowledge it is {a}.",
    ),
    "zh": (
        "{a}",
        "答案是{a}。",
        "根据文档2，答案为{a}。",
        "根据上述资料，答案是{a}。不过，需要注意的是部分文档给出了其他信息。",
        "文档没有明确说明，但可以推断答案是{a}。",
        "答案：{a}\n\n解释：多篇文档都提到了这一点。",
        "提供的文档中存在事实性错误。正确答案是{a}。",
        "<think>我看看。</think>\n\n最终答案是{a}。",
        "文档信息不足，但据我所知，答案是{a}。",
    ),
}
REFUSALS = {
    "en": (
        "I can not answer the question because of the insufficient information in documents.",
        'Based on the documents, it is not possible to determine the answer to "{q}".',
    ),
    "zh": (
        "文档信息不足，因此我无法基于提供的文档回答该问题。",
        "根据提供的文档，无法确定“{q}”的答案。",
    ),
}


def real_prompts(path: Path, task: Task) -> list[Prompt]:
    source = Rgb(path=path, task=task)
    return [source.prompt(i) for i in range(source.num_prompts())]


def answer_of(prompt: Prompt, language: str) -> str:
    groups = prompt.target
    assert isinstance(groups, list)
    return ("和" if language == "zh" else " and ").join(str(group[0]) for group in groups)  # type: ignore[index]


@pytest.mark.parametrize(("name", "task"), CASES)
def test_real_rows_with_right_wrong_and_refusing_completions(
    shared_data: Callable[[str], Path], name: str, task: Task
) -> None:
    language = "zh" if "zh" in name else "en"
    prompts, reward = real_prompts(shared_data(name), task), Kbqa()
    mistakes = []
    for index, prompt in enumerate(prompts):
        other = prompts[(index + 7) % len(prompts)]
        fake = prompt.metadata.get("fake_answer")
        right = "TP" if prompt.answerable else "FP"
        wrong = "FN" if prompt.answerable else "FP"
        refused = "FN" if prompt.answerable else "TN"
        cases = [(t.format(a=answer_of(prompt, language)), right) for t in ANSWERS[language]]
        if str(other.target) != str(prompt.target):
            cases += [(t.format(a=answer_of(other, language)), wrong) for t in ANSWERS[language]]
        if isinstance(fake, str) and fake not in answer_of(prompt, language):
            cases += [
                (t.format(a=fake), wrong)
                for t in ANSWERS[language]
                if fake not in str(prompt.target)
            ]
        question = prompt.metadata["question"]
        cases += [(t.format(q=question), refused) for t in REFUSALS[language]]
        for completion, expected in cases:
            score = reward.score(Sample(prompt, completion))
            if score.label != expected:
                mistakes.append((completion, prompt.target, score.label, score.reason))
    assert not mistakes


@pytest.mark.parametrize(("name", "task"), CASES)
def test_real_files_load_whole(shared_data: Callable[[str], Path], name: str, task: Task) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prompts = real_prompts(shared_data(name), task)
    assert len(prompts) >= (150 if "refine" in name else 47)
    for prompt in prompts:
        assert prompt.answerable is (task != "rejection")
        assert prompt.passages
        target = read_target(prompt.target)
        assert target is not None
        if task == "rejection":
            assert not any(names_all(target, passage) for passage in prompt.passages)
