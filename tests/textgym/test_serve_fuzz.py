"""Every path of the services under generated requests, right and wrong: never a 500."""

from __future__ import annotations

import importlib
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings

from textgym import Scorer, make_reward
from textgym.serve.app import create_app
from textgym.serve.services import ScoringService
from textgym.serve.settings import Limits

schemathesis = pytest.importorskip("schemathesis")

TOKEN = "0123456789abcdef-token"
LIMITS = Limits(max_items=3, max_body_bytes=20_000)
MODES = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
CHECKS = (
    "status_code_conformance", "content_type_conformance", "response_schema_conformance",
)  # fmt: skip
EXAMPLES = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def fuzz(app: FastAPI) -> Counter[tuple[str, int]]:
    """Send generated requests to every operation; return how often each status was answered.

    Each answer is held against the OpenAPI document: a status, a content type or a body that it
    does not describe is an error, and so is a 500.
    """
    headers = {"Authorization": f"Bearer {TOKEN}"}
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=headers)
    found = importlib.import_module("schemathesis.specs.openapi.checks")
    checks = [schemathesis.checks.not_a_server_error, *(getattr(found, name) for name in CHECKS)]
    answered: Counter[tuple[str, int]] = Counter()

    def check(case: Any) -> None:
        response = case.call(headers=headers)
        case.validate_response(response, checks=checks)
        answered[(case.path, response.status_code)] += 1

    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in MODES if operation.method == "post" else MODES[:1]:  # GET takes nothing wrong
            strategy = operation.as_strategy(generation_mode=mode)
            EXAMPLES(given(case=strategy)(check))()
    return answered


def test_scoring_service_answers_no_500() -> None:
    service = ScoringService(Scorer("exact_match"))
    answered = fuzz(create_app(service, limits=LIMITS, token=TOKEN))
    assert answered["/v1/score", 200] > 0
    assert answered["/v1/score", 422] > 0


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bwrap is not installed")
def test_executor_answers_no_500() -> None:
    app = create_app(
        ScoringService(Scorer(make_reward("code", num_workers=1)), name="executor"),
        limits=LIMITS,
        token=TOKEN,
    )
    answered = fuzz(app)
    assert answered["/v1/execute", 200] > 0
    assert answered["/v1/execute", 422] > 0


def test_reference_service_answers_no_500(reference_model: Path) -> None:
    from textgym.serve.reference import ReferenceService

    service = ReferenceService(reference_model, device="cpu")
    answered = fuzz(create_app(service, limits=LIMITS, token=TOKEN))
    assert sum(answered.values()) >= 40
    assert answered["/v1/logprobs", 422] > 0


def test_chat_answers_no_500(tmp_path: Path) -> None:
    lm = importlib.import_module("textgym_agents.lm.tiny")
    chat = importlib.import_module("textgym.serve.chat")
    tokenizer = lm.tiny_tokenizer()
    model = lm.tiny_model(tokenizer, seed=0)
    model.config.max_position_embeddings = 48  # so that answers are short
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    service = chat.ChatService(tmp_path, device="cpu")
    answered = fuzz(create_app(service, limits=LIMITS, token=TOKEN))
    assert answered["/v1/chat/completions", 200] > 0
    assert answered["/v1/chat/completions", 422] > 0
