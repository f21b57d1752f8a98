"""The chat service: answers of a small model, alone and together, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from textgym import ConfigError
from textgym.serve.app import create_app
from textgym.serve.chat import ChatService

torch = pytest.importorskip("torch")

PATH = "/v1/chat/completions"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the embedded model with random weights."""
    from textgym_agents.lm.tiny import tiny_model, tiny_tokenizer

    folder, tokenizer = tmp_path_factory.mktemp("chat"), tiny_tokenizer()
    tiny_model(tokenizer, seed=3).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def client(model: Path) -> Iterator[TestClient]:
    app = create_app(ChatService(model, device="cpu"))
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as made:
        yield made


def body(text: str, **fields: Any) -> dict[str, Any]:
    message = {"role": "user", "content": text}
    return {"model": "m", "messages": [message], "max_tokens": 12, "temperature": 0, **fields}


def greedy(folder: Path, text: str, count: int) -> str:
    """Return what the model says, computed without a batch and without a cache."""
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    lm = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    prompt = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer(prompt)["input_ids"]
    start = len(ids)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(lm(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] in lm.generation_config.eos_token_id:
            break
    return str(tokenizer.decode(ids[start:], skip_special_tokens=True))


def test_the_answer_is_the_models(client: TestClient, model: Path) -> None:
    answer = client.post(PATH, json=body("hello")).json()
    assert answer["choices"][0]["message"]["content"] == greedy(model, "hello", 12)
    assert answer["usage"]["total_tokens"] == (
        answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
    )


def test_requests_at_once_are_answered_as_alone(client: TestClient) -> None:
    texts = ["a", "a longer question", "b?", "1+1=", "the last one of them all"]

    def ask(text: str) -> str:
        return str(client.post(PATH, json=body(text)).json()["choices"][0]["message"]["content"])

    alone = [ask(text) for text in texts]
    with ThreadPoolExecutor(len(texts)) as pool:
        assert list(pool.map(ask, texts)) == alone


def test_limits_of_each_request_hold(client: TestClient) -> None:
    short = client.post(PATH, json=body("hello", max_completion_tokens=2)).json()
    assert short["usage"]["completion_tokens"] <= 2
    assert client.post(PATH, json=body("hello", temperature=0.7)).status_code == 200


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"stream": True}, "stream"),
        ({"messages": []}, "invalid"),
        ({"max_tokens": 0}, "invalid"),
        ({"messages": [{"role": "user", "content": "x" * 5000}]}, "too_long"),
    ],
)
def test_what_cannot_be_answered_is_refused(
    client: TestClient, fields: dict[str, Any], code: str
) -> None:
    answer = client.post(PATH, json=body("hello", **fields))
    assert (answer.status_code, answer.json()["error"]) == (422, code)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.json"):
        ChatService(tmp_path)
