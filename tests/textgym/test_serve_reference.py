from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient

from textgym import ConfigError
from textgym.serve.app import create_app
from textgym.serve.fingerprint import model_fingerprint
from textgym.serve.reference import ReferenceService


def logprobs_one_by_one(folder: Path, prompt: list[int], completion: list[int]) -> list[float]:
    """Return the log-probabilities from one pass per token, without padding or chunks."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    values = []
    for index, token in enumerate(completion):
        ids = torch.tensor([prompt + completion[:index]])
        with torch.no_grad():
            logits = model(ids).logits[0, -1].double()
        values.append(float(logits[token] - torch.logsumexp(logits, 0)))
    return values


SEQUENCES = [([1, 2, 3], [4, 5]), ([7], [8, 9, 10, 11, 12, 13]), ([1, 2], []), ([5, 5, 5], [0])]


@pytest.mark.parametrize("max_tokens", [8, 1000])
def test_logprobs_equal_one_pass_per_token(reference_model: Path, max_tokens: int) -> None:
    service = ReferenceService(reference_model, device="cpu", max_tokens=max_tokens)
    body = {"sequences": [{"prompt_ids": p, "completion_ids": c} for p, c in SEQUENCES]}
    with TestClient(create_app(service), base_url="http://localhost") as client:
        answer = client.post("/v1/logprobs", json=body).json()
    assert answer["fingerprint"] == model_fingerprint(reference_model)
    for row, (prompt, completion) in zip(answer["logprobs"], SEQUENCES, strict=True):
        assert row == pytest.approx(
            logprobs_one_by_one(reference_model, prompt, completion), abs=1e-5
        )


def test_chunks_of_rows_change_nothing(
    reference_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = ReferenceService(reference_model, device="cpu")
    body = {"sequences": [{"prompt_ids": p, "completion_ids": c} for p, c in SEQUENCES]}
    answers = []
    with TestClient(create_app(service), base_url="http://localhost") as client:
        for rows in (1024, 2):
            monkeypatch.setattr("textgym.serve.reference._ROWS", rows)
            answers.append(client.post("/v1/logprobs", json=body).json()["logprobs"])
    assert answers[0] == answers[1]


def test_temperature_divides_the_logits(reference_model: Path) -> None:
    service = ReferenceService(reference_model, device="cpu")
    body: dict[str, Any] = {"sequences": [{"prompt_ids": [1], "completion_ids": [2, 3]}]}
    with TestClient(create_app(service), base_url="http://localhost") as client:
        answer = client.post("/v1/logprobs", json={**body, "temperature": 100.0}).json()
    vocabulary = json.loads((reference_model / "config.json").read_text())["vocab_size"]
    assert answer["logprobs"][0] == pytest.approx([-math.log(vocabulary)] * 2, abs=0.05)


@pytest.mark.parametrize(
    ("sequence", "error"),
    [
        ({"prompt_ids": [64], "completion_ids": [1]}, "token_id"),
        ({"prompt_ids": [-1], "completion_ids": [1]}, "token_id"),
        ({"prompt_ids": [10**30], "completion_ids": [1]}, "token_id"),
        ({"prompt_ids": [1] * 33, "completion_ids": []}, "too_long"),
        ({"prompt_ids": [], "completion_ids": [1]}, "invalid"),
        ({"prompt_ids": [1.5], "completion_ids": [1]}, "invalid"),
    ],
)
def test_unusable_sequence_is_refused(
    reference_model: Path, sequence: dict[str, Any], error: str
) -> None:
    service = ReferenceService(reference_model, device="cpu")
    with TestClient(create_app(service), base_url="http://localhost") as client:
        answer = client.post("/v1/logprobs", json={"sequences": [sequence]})
    assert (answer.status_code, answer.json()["error"]) == (422, error)


def test_fingerprint_follows_the_weights(reference_model: Path, tmp_path: Path) -> None:
    before = model_fingerprint(reference_model)
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in reference_model.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert model_fingerprint(copy) == before
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert model_fingerprint(copy) != before


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        ReferenceService(tmp_path)


def test_illegal_ids_have_no_probability(reference_model: Path) -> None:
    service = ReferenceService(reference_model, device="cpu")
    sequence = {"prompt_ids": [1, 2], "completion_ids": [3, 4]}
    ranges = [[0, 3], [10, 10**30], [-5, -2], [7, 6]]
    with TestClient(create_app(service), base_url="http://localhost") as client:
        plain = client.post("/v1/logprobs", json={"sequences": [sequence]}).json()
        body: dict[str, Any] = {"sequences": [sequence], "illegal_ranges": ranges}
        [row] = client.post("/v1/logprobs", json=body).json()["logprobs"]
        everything = client.post("/v1/logprobs", json={**body, "illegal_ranges": [[0, 99]]})
        every = [{"prompt_ids": [1, 2], "completion_ids": [token]} for token in range(3, 10)]
        body = {"sequences": every, "illegal_ranges": ranges}
        shares = client.post("/v1/logprobs", json=body).json()["logprobs"]
    assert all(a > b for a, b in zip(row, plain["logprobs"][0], strict=True))
    assert sum(math.exp(share) for [share] in shares) == pytest.approx(1.0, abs=1e-5)
    assert everything.status_code == 422
