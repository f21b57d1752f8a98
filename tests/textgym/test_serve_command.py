from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from textgym.cli.main import main

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")

TOKEN = "0123456789abcdef-token"


@pytest.fixture
def start() -> Iterator[Callable[..., dict[str, Any]]]:
    """Return a function that starts `textgym serve` on a free port and returns what it prints."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> dict[str, Any]:
        process = subprocess.Popen(
            [sys.executable, "-m", "textgym", "serve", *map(str, arguments), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        processes.append(process)
        assert process.stdout is not None
        return {**json.loads(process.stdout.readline()), "process": process}

    yield start
    for process in processes:
        process.kill()
        process.communicate(timeout=30)


def client(started: dict[str, Any], **options: Any) -> Any:
    transport = httpx.HTTPTransport(retries=5)
    return httpx.Client(
        base_url=started["url"], transport=transport, timeout=60, trust_env=False, **options
    )


def test_rubric_file_is_served_with_a_token_from_a_file(
    start: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    rubric, token = tmp_path / "rubric.yaml", tmp_path / "token"
    rubric.write_text("rewards:\n  - reward: exact_match\n  - reward: length\n    weight: 0.5\n")
    token.write_text(TOKEN)
    started = start("rewards", "--rubric", rubric, "--token-file", token, "--workers", 1)
    assert (started["service"], started["title"]) == ("rewards", "exact_match, length")
    assert started["token"] is True
    sample = {"prompt": {"id": "1", "messages": "?", "target": "a"}, "completion": "a"}
    with client(started, headers={"Authorization": f"Bearer {TOKEN}"}) as http:
        [score] = http.post("/v1/score", json={"samples": [sample]}).json()["scores"]
        assert set(score["parts"]) == {"exact_match", "length"}
        assert score["parts"]["exact_match"]["value"] == 1.0
    process = started["process"]
    process.send_signal(signal.SIGINT)
    process.wait(timeout=30)
    assert "Traceback" not in process.communicate()[1]


def test_executor_serves_the_code_reward(start: Callable[..., dict[str, Any]]) -> None:
    started = start("executor", "--set", "allow_weak_isolation=true", "--workers", 1)
    assert (started["service"], started["title"]) == ("executor", "code")
    target = {"kind": "assert", "code": "assert add(1, 2) == 3"}
    programs = ["def add(a, b):\n    return a + b", "def add(a, b):\n    return a - b"]
    samples = [
        {"prompt": {"id": "1", "messages": "add", "target": target}, "completion": program}
        for program in programs
    ]
    with client(started) as http:
        scores = http.post("/v1/execute", json={"samples": samples}).json()["scores"]
        assert http.post("/v1/score", json={"samples": samples}).status_code == 404
    assert [score["value"] for score in scores] == [1.0, 0.0]


def test_reference_serves_a_model(
    start: Callable[..., dict[str, Any]], reference_model: Path
) -> None:
    started = start("reference", "--model", reference_model, "--device", "cpu")
    assert started["service"] == "reference"
    with client(started) as http:
        body = {"sequences": [{"prompt_ids": [1], "completion_ids": [2, 3]}]}
        answer = http.post("/v1/logprobs", json=body).json()
    assert answer["fingerprint"] == started["fingerprint"]
    assert [len(row) for row in answer["logprobs"]] == [2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rewards"], "give --reward NAME or --rubric FILE"),
        (["rewards", "--reward", "lenght"], "Did you mean 'length'?"),
        (["rewards", "--reward", "length", "--host", "0.0.0.0"], "reached from other machines"),
        (["rewards", "--reward", "length", "--token-env", "NO_SUCH_VARIABLE"], "holds no token"),
        (["rewards", "--reward", "length", "--set", "maximun=3"], "no field 'maximun'"),
        (["rewards", "--reward", "length", "--port", "99999"], "is no port"),
        (["reference", "--model", "/nowhere"], "has no config.json"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    port = [] if "--port" in arguments else ["--port", "0"]
    assert main(["serve", *arguments, *port]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""


def test_rubric_that_lets_prompts_choose_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rubric.yaml"
    file.write_text("routes:\n  math: exact_match\n")
    assert main(["serve", "rewards", "--rubric", str(file), "--port", "0"]) == 2
    assert "may not name what scores them" in capsys.readouterr().err


def test_port_in_use_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = str(held.getsockname()[1])
        assert main(["serve", "rewards", "--reward", "length", "--port", port]) == 2
    assert f"--port {port} cannot be listened on" in capsys.readouterr().err
