from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import textgym.jsonl
from textgym import Message, Prompt, PromptError
from textgym.prompt_files import read_prompts, summarise, write_prompts

GOOD = '{"question": "1+1?", "target": "2"}'


@pytest.fixture
def prompt_file(tmp_path: Path) -> Callable[..., Path]:
    def write(*lines: str | bytes) -> Path:
        path = tmp_path / "prompts.jsonl"
        path.write_bytes(b"\n".join(x.encode() if isinstance(x, str) else x for x in lines))
        return path

    return write


def test_read_prompts_gsm8k_takes_the_number_after_the_marks(
    prompt_file: Callable[..., Path],
) -> None:
    path = prompt_file('{"question": "How many?", "answer": "2 * 600 = 1200\\n#### 1,200"}')
    (prompt,) = read_prompts(path).prompts
    assert prompt.id == "prompts:1"
    assert (prompt.text, prompt.target, prompt.reward) == ("How many?", "1200", "math")
    assert prompt.metadata == {"solution": "2 * 600 = 1200"}


def test_read_prompts_math_keeps_the_notes(prompt_file: Callable[..., Path]) -> None:
    row = {"problem": "$x$?", "expected_answer": "\\frac12", "level": "Level 1", "id": "a/1.json"}
    (prompt,) = read_prompts(prompt_file(json.dumps(row))).prompts
    assert (prompt.id, prompt.target, prompt.reward) == ("a/1.json", "\\frac12", "math")
    assert prompt.metadata == {"level": "Level 1"}


def test_read_prompts_question_rows_keep_their_target_as_it_is(
    prompt_file: Callable[..., Path],
) -> None:
    rows = ['{"prompt": "p", "target": ["a", "b"], "id": 7}', '{"question": "q", "answer": 3}']
    first, second = read_prompts(prompt_file(*rows)).prompts
    assert (first.id, first.text, first.target, first.reward) == ("7", "p", ["a", "b"], None)
    assert (second.id, second.target) == ("prompts:2", 3)


def test_write_prompts_reads_back_equal(tmp_path: Path) -> None:
    prompts = (
        Prompt(id="1", messages="a\u2028b\n\0 é 漢", target={"cases": [1, None, 2.5]}),
        Prompt(
            id="2",
            messages=(Message(role="system", content="s"), Message(role="user", content="u")),
            reward="kbqa",
            passages=("p",),
            answerable=False,
            metadata={"k": [1]},
        ),
    )
    path = tmp_path / "out.jsonl"
    write_prompts(path, prompts)
    assert read_prompts(path).prompts == prompts
    assert not read_prompts(path).problems


def test_write_prompts_leaves_the_old_file_if_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write_prompts(path, [Prompt(id="old", messages="x")])

    def broken() -> object:
        yield Prompt(id="new", messages="y")
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_prompts(path, broken())  # type: ignore[arg-type]
    assert [p.id for p in read_prompts(path).prompts] == ["old"]
    assert os.listdir(tmp_path) == ["out.jsonl"]


@pytest.mark.parametrize(
    ("line", "field", "message"),
    [
        ("{'question': 1}", "", "not JSON: .* at column 2"),
        ('{"question": "q"', "", "not JSON"),
        (b'{"question": "\xff", "target": "2"}', "", "byte 15 is not UTF-8"),
        ("[1]", "", "expected a JSON object in each line, got a list"),
        ("null", "", "expected a JSON object in each line, got a NoneType"),
        ('{"question": "q\0", "target": "2"}', "", "not JSON"),
        ('{"question": "q", "target": NaN}', "", "NaN is no JSON value"),
        ('{"question": "\\ud800", "target": "2"}', "", "half a character"),
        ("[" * 100_000, "", "not usable as JSON|maximum recursion"),
        ('{"question": "q", "target": ' + "9" * 5000 + "}", "", "not usable as JSON"),
        ('{"question": "q"}', "target", "missing"),
        ('{"question": "q", "anwser": "2"}', "target", "Did you mean 'answer'"),
        ('{"qestion": "q", "answer": "2"}', "messages", "Did you mean 'question'"),
        ('{"question": 3, "answer": "2"}', "question", "expected text, got 3"),
        ('{"question": " ", "answer": "2"}', "question", "is empty"),
        ('{"question": "q", "answer": "so #### many"}', "answer", "a number after '####'"),
        ('{"question": "q", "answer": "####"}', "answer", "a number after '####'"),
        ('{"question": "q", "answer": "2", "target": "2"}', "answer", "keep one"),
        ('{"question": "q", "target": "A", "choices": []}', "choices", "no such field"),
        ('{"problem": "q", "answer": true}', "answer", "text or a number, got True"),
        ('{"messages": []}', "messages", "at least 1 item"),
        ('{"messages": "q", "taget": 1}', "taget", "Did you mean 'target'"),
        ('{"messages": [{"role": "boss", "content": "x"}]}', "messages.0.role", "'boss'"),
        ('{"messages": "q", "id": ""}', "id", "at least 1 character"),
        ('{"messages": "q", "answerable": "maybe"}', "answerable", "boolean"),
        ("{}", "messages", "missing"),
    ],
)
def test_read_prompts_reports_a_malformed_line_and_uses_the_others(
    prompt_file: Callable[..., Path], line: str | bytes, field: str, message: str
) -> None:
    path = prompt_file(GOOD, "", line, GOOD)
    found = read_prompts(path)
    assert [p.id for p in found.prompts] == ["prompts:1", "prompts:4"]
    (problem,) = found.problems
    assert (problem.path, problem.line, problem.field) == (str(path), 3, field)
    with pytest.raises(ValueError, match=message):
        raise ValueError(str(problem))
    assert str(problem).startswith(f"{path}:3: ")


def test_read_prompts_reports_a_second_use_of_an_id(prompt_file: Callable[..., Path]) -> None:
    row = '{"messages": "q", "id": "same"}'
    found = read_prompts(prompt_file(row, row))
    assert len(found.prompts) == 1
    assert "'same' is the id of line 1 already" in str(found.problems[0])


def test_read_prompts_accepts_bom_and_crlf(prompt_file: Callable[..., Path]) -> None:
    found = read_prompts(prompt_file(b"\xef\xbb\xbf" + GOOD.encode() + b"\r", b"\r", GOOD + "\r"))
    assert [p.id for p in found.prompts] == ["prompts:1", "prompts:3"]
    assert not found.problems


def test_read_prompts_skips_a_line_that_is_too_long(
    prompt_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(textgym.jsonl, "MAX_LINE_BYTES", 100)
    at_limit = '{"question": "q", "target": "' + "x" * 68 + '"}'
    assert len(at_limit) == 99
    long = '{"question": "q", "target": "' + "x" * 1000 + '"}'
    found = read_prompts(prompt_file(at_limit, long, GOOD, long))
    assert [p.id for p in found.prompts] == ["prompts:1", "prompts:3"]
    assert [p.line for p in found.problems] == [2, 4]
    assert "longer than" in str(found.problems[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "the file is empty"),
        (b"nonsense\n" * 7, "7 malformed lines:(.|\n)*and 2 more"),
        (GOOD.encode("utf-16"), "the file is UTF-16; save it as UTF-8"),
    ],
)
def test_read_prompts_refuses_a_file_without_prompts(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(content)
    with pytest.raises(PromptError, match=message):
        read_prompts(path)


def test_read_prompts_names_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"no\.jsonl: cannot be read: No such file"):
        read_prompts(tmp_path / "no.jsonl")
    with pytest.raises(PromptError, match="cannot be read: Is a directory"):
        read_prompts(tmp_path)


def test_summarise_counts_what_it_does_not_list(prompt_file: Callable[..., Path]) -> None:
    found = read_prompts(prompt_file(GOOD, *["?"] * 8))
    assert summarise(found.problems).startswith("8 malformed lines:")
    assert summarise(found.problems).endswith("and 3 more")
    assert summarise(found.problems[:1]).startswith("1 malformed line:")
    assert "more" not in summarise(found.problems[:5])


@pytest.mark.parametrize(
    ("name", "count"),
    [("gsm8k_train.jsonl", 2000), ("gsm8k_test.jsonl", 660), ("math500.jsonl", 250)],
)
def test_read_prompts_loads_real_files_whole(
    shared_data: Callable[[str], Path], name: str, count: int
) -> None:
    found = read_prompts(shared_data(name))
    assert (len(found.prompts), found.problems) == (count, ())
    assert {p.reward for p in found.prompts} == {"math"}
    assert all(p.target for p in found.prompts)


def test_read_prompts_does_not_guess_at_multiple_choice(
    shared_data: Callable[[str], Path],
) -> None:
    path = shared_data("mmlu_stem.jsonl")
    with pytest.raises(PromptError, match="no such field"):
        read_prompts(path)
