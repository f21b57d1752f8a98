from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from textgym import ConfigError, Sample, Score, Scorer, Step, make_rubric
from textgym.serve.app import create_app
from textgym.serve.fingerprint import rubric_fingerprint
from textgym.serve.services import ScoringService
from textgym.serve.settings import Limits, check_exposure, read_token
from textgym.serve.wire import WireScore
from textgym.worker_main import describe

TOKEN = "0123456789abcdef-token"
CALLS: list[str] = []
RELEASE = threading.Event()

Serve = Callable[..., TestClient]


def by_text(sample: Sample) -> float | Score:
    """Score what the completion asks for."""
    CALLS.append(sample.completion)
    match sample.completion:
        case "abstain":
            return Score.unscored("cannot judge")
        case "raise":
            raise ValueError("broken \ud800")
        case "wait":
            RELEASE.wait(5)
            return 1.0
        case "surrogate":
            return Score(0.5, label="\ud800", reason="\udfff", extracted="\ud800")
    return float(sample.completion)


class Inline(Scorer):
    """Scores in this process, so that tests see the calls."""

    def score_batch(self, samples: Any) -> list[Score]:
        scores = []
        for sample in samples:
            try:
                score = by_text(sample)
            except ValueError as error:
                score = Score.failed("raised", describe(error))
            scores.append(score if isinstance(score, Score) else Score(score))
        return scores


@pytest.fixture
def serve() -> Iterator[Serve]:
    CALLS.clear()
    RELEASE.clear()
    with ExitStack() as stack:

        def start(*, token: str | None = None, **limits: Any) -> TestClient:
            service = ScoringService(Inline(by_text))
            app = create_app(service, limits=Limits(**limits), token=token)
            client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
            stack.callback(RELEASE.set)
            return stack.enter_context(client)

        yield start
        RELEASE.set()


def body(*completions: str, **fields: Any) -> dict[str, Any]:
    prompt = {"id": "1", "messages": "?"}
    return {"samples": [{"prompt": prompt, "completion": c} for c in completions], **fields}


def test_score_answers_every_outcome(serve: Serve) -> None:
    client = serve()
    answer = client.post("/v1/score", json=body("0.25", "abstain", "raise", "surrogate")).json()
    scores = answer["scores"]
    assert [s["status"] for s in scores] == ["scored", "abstained", "failed", "scored"]
    assert [s["value"] for s in scores] == [0.25, None, None, 0.5]
    assert scores[2]["kind"] == "raised"
    assert scores[3]["label"] == "?"
    info = client.get("/v1/info").json()
    assert answer["fingerprint"] == info["fingerprint"]
    assert (info["deterministic"], info["dense"]) == (False, False)
    assert 'textgym_items_total{outcome="failed/raised"} 1.0' in client.get("/metrics").text


def test_real_reward_is_scored_with_its_parts() -> None:
    service = ScoringService(Scorer("math"))
    with TestClient(create_app(service), base_url="http://localhost") as client:
        sample = {"prompt": {"id": "1", "messages": "6*7", "target": "42"}, "completion": "42"}
        answer = client.post("/v1/score", json={"samples": [sample]}).json()
    assert (answer["low"], answer["high"]) == (0.0, 1.0)
    [score] = answer["scores"]
    assert (score["value"], score["label"], score["parts"]["math"]["value"]) == (
        1.0,
        "correct",
        1.0,
    )


def test_prompt_cannot_choose_its_reward(serve: Serve) -> None:
    sample = {"prompt": {"id": "1", "messages": "?", "reward": "os:system"}, "completion": "0.5"}
    with TestClient(
        create_app(ScoringService(Scorer("exact_match"))), base_url="http://localhost"
    ) as client:
        [score] = client.post("/v1/score", json={"samples": [sample]}).json()["scores"]
    assert set(score["parts"]) == {"exact_match"}


def test_same_id_gets_the_same_stored_answer(serve: Serve) -> None:
    client = serve()
    headers = {"X-Request-Id": "one"}
    first = client.post("/v1/score", json=body("0.5"), headers=headers)
    second = client.post("/v1/score", json=body("0.5"), headers=headers)
    assert first.content == second.content
    assert first.headers["X-Request-Id"] == first.json()["request_id"] == "one"
    assert CALLS == ["0.5"]
    other = client.post("/v1/score", json=body("0.75"), headers=headers)
    assert (other.status_code, other.json()["error"]) == (422, "id_taken")


def test_same_id_after_the_window_is_computed_again(serve: Serve) -> None:
    client = serve(window=0.05)
    for _ in range(2):
        client.post("/v1/score", json=body("0.5"), headers={"X-Request-Id": "one"})
        time.sleep(0.1)
    assert len(CALLS) == 2


def test_answers_are_dropped_when_they_are_too_many(serve: Serve) -> None:
    client = serve(max_kept_bytes=500)
    for name in ("a", "b", "c", "c", "a"):
        client.post("/v1/score", json=body("0.5"), headers={"X-Request-Id": name})
    assert len(CALLS) == 4  # the second c was kept, the second a was not


def test_failed_sample_is_not_kept(serve: Serve) -> None:
    client = serve()
    for _ in range(2):
        client.post("/v1/score", json=body("raise"), headers={"X-Request-Id": "one"})
    assert len(CALLS) == 2


def test_repetition_after_the_time_limit_gets_the_outcome(serve: Serve) -> None:
    client = serve(time_limit=0.1)
    headers = {"X-Request-Id": "one"}
    late = client.post("/v1/score", json=body("wait"), headers=headers)
    assert (late.status_code, late.json()["error"]) == (504, "time_limit")
    RELEASE.set()
    assert client.post("/v1/score", json=body("wait"), headers=headers).status_code == 200
    assert CALLS == ["wait"]


def test_too_many_pending_requests_are_refused(serve: Serve) -> None:
    client = serve(time_limit=0.1, max_pending=1)
    assert client.post("/v1/score", json=body("wait")).status_code == 504
    busy = client.post("/v1/score", json=body("0.5"))
    assert (busy.status_code, busy.headers["Retry-After"]) == (503, "1")
    RELEASE.set()
    time.sleep(0.05)
    assert client.post("/v1/score", json=body("0.5")).status_code == 200


def test_another_fingerprint_is_refused(serve: Serve) -> None:
    client = serve()
    refused = client.post("/v1/score", json=body("0.5", fingerprint="old"))
    assert (refused.status_code, CALLS) == (409, [])
    assert "have changed" in refused.json()["message"]


def test_too_large_requests_are_refused(serve: Serve) -> None:
    client = serve(max_body_bytes=2000, max_items=2)
    assert client.post("/v1/score", json=body("0.5", "0.5", "0.5")).status_code == 413
    assert client.post("/v1/score", json=body("0" * 3000)).status_code == 413
    chunks = (b" " * 500 for _ in range(10))  # without a Content-Length
    assert client.post("/v1/score", content=chunks).json()["error"] == "too_large"
    assert CALLS == []


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN]
)
def test_wrong_token_is_refused(serve: Serve, authorization: str | None) -> None:
    client = serve(token=TOKEN)
    headers = {} if authorization is None else {"Authorization": authorization}
    for path in ("/v1/score", "/v1/info", "/metrics", "/openapi.json", "/none"):
        response = client.request("POST" if "score" in path else "GET", path, headers=headers)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
    assert client.get("/healthz").status_code == 200


def test_right_token_is_let_in_under_any_host(serve: Serve) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Host": "gpu-1.example"}
    assert serve(token=TOKEN).get("/v1/info", headers=headers).status_code == 200


def test_foreign_host_is_refused_without_a_token(serve: Serve) -> None:
    client = serve()
    for host in ("evil.example", "127.0.0.1.evil.example", "", "[::2]"):
        assert client.get("/v1/info", headers={"Host": host}).status_code == 403
    for host in ("localhost:80", "[::1]:80", "127.0.0.1"):
        assert client.get("/v1/info", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[" * 100_000,
        b'{"samples": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"samples": [{"prompt": {"id": "\\ud800", "messages": "?"}, "completion": "1"}]}',
        b'{"\\ud800": 1}',
        b'{"samples": NaN}',
        b'{"samples": ' + b"9" * 10_000 + b"}",
        b'{"samples": []}',
        b'{"samples": [{"prompt": {"id": "1", "messages": []}, "completion": "1"}]}',
        b'{"samples": [{"prompt": {"id": "1", "messages": "?"}, "completion": 1}]}',
    ],
)
def test_malformed_body_is_refused_with_a_reason(serve: Serve, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    response = serve().post("/v1/score", content=content, headers=headers)
    assert response.status_code in (400, 422)
    assert set(response.json()) == {"error", "message"}


@pytest.mark.parametrize("request_id", ["", "a b", "x" * 129, "ä"])
def test_malformed_id_is_refused(serve: Serve, request_id: str) -> None:
    headers = {"X-Request-Id": request_id.encode("latin-1")}
    assert serve().post("/v1/score", json=body("1"), headers=headers).status_code == 422  # type: ignore[arg-type]  # bytes reach the header as they are


def test_deep_target_does_not_break_the_service(serve: Serve) -> None:
    target = "[" * 5000 + "]" * 5000
    sample = f'{{"prompt": {{"id": "1", "messages": "?", "target": {target}}}, "completion": "1"}}'
    response = serve().post(
        "/v1/score",
        content=f'{{"samples": [{sample}]}}',
        headers={"Content-Type": "application/json"},
    )
    assert response.status_code in (200, 400, 422)


def test_wire_score_survives_the_way_back() -> None:
    parts = {"a": Score(1.0, label="x"), "b": Score.failed("timeout", "slow")}
    steps = (Step(0.75, 3, "tokens", "well"), Step(-0.25))
    score = Score(0.5, reason="r", extracted="e", seconds=0.1, parts=parts, steps=steps)
    back = WireScore.model_validate_json(WireScore.of(score).model_dump_json()).score()
    assert (back.value, back.parts["a"], back.parts["b"].kind) == (0.5, parts["a"], "timeout")
    assert math.isnan(back.parts["b"].value)
    assert back.steps == steps
    with pytest.raises(ValueError, match="the status is 'failed' and the value 0"):
        WireScore(value=0.0, status="failed").score()


def test_fingerprint_follows_name_configuration_and_files(tmp_path: Path) -> None:
    file = tmp_path / "rewards.py"
    file.write_text("def one(sample): return 1.0")
    specs: list[Any] = ["exact_match", "length", {"reward": "length", "config": {"maximum": 9}}]
    found = [rubric_fingerprint(make_rubric(spec)) for spec in [*specs, f"{file}:one"]]
    assert found[:3] == [rubric_fingerprint(make_rubric(spec)) for spec in specs]
    file.write_text("def one(sample): return 2.0")
    found.append(rubric_fingerprint(make_rubric(f"{file}:one")))
    assert len(set(found)) == 5


def test_exposed_service_needs_a_token() -> None:
    check_exposure("127.0.0.1", None)
    check_exposure("0.0.0.0", TOKEN)
    for host in ("0.0.0.0", "::", "127.0.0.1.example", ""):
        with pytest.raises(ConfigError, match="reached from other machines"):
            check_exposure(host, None)


def test_token_is_read_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert read_token(file=file, env=None) == TOKEN
    monkeypatch.setenv("SHORT", "abc")
    with pytest.raises(ConfigError, match="SHORT holds no token"):
        read_token(file=None, env="SHORT")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_token(file=tmp_path / "none", env=None)
    with pytest.raises(ConfigError, match="both name a token"):
        read_token(file=file, env="SHORT")


def test_openapi_document_describes_answers_and_refusals(serve: Serve) -> None:
    document = json.loads(serve().get("/openapi.json").content)
    post = document["paths"]["/v1/score"]["post"]
    assert set(post["responses"]) >= {"200", "401", "409", "413", "422", "503", "504"}
    score = document["components"]["schemas"]["WireScore"]["properties"]
    assert score["status"]["enum"] == ["scored", "abstained", "failed"]
    assert post["responses"]["422"]["content"]["application/json"]["schema"]["$ref"].endswith(
        "/Problem"
    )


def test_body_that_does_not_arrive_is_refused() -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(event: Any) -> None:
        sent.append(event)

    service = ScoringService(Inline(by_text))
    app = create_app(service, limits=Limits(body_time_limit=0.1))
    scope = {
        "type": "http", "method": "POST", "path": "/v1/score", "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 408
