"""An OpenAI-compatible chat endpoint: where it is, how it is called, what it replies.

A judge and a downstream generator call it alike. The requests themselves, with their deadlines,
retries and limits, are those of `textgym.http_calls`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from textgym.http_calls import (
    BaseUrl,
    CallerSpec,
    JsonCaller,
    Retry,
    UnusableAnswerError,
    json_caller,
)
from textgym.prompt import Message

CHAT_PATH = "/chat/completions"


class ChatEndpoint(BaseModel):
    """Where a chat model is and how it is called."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    url: BaseUrl
    """The base URL up to the version, such as `http://127.0.0.1:8000/v1`."""
    model: str = Field(min_length=1)
    """The model's name at the endpoint."""
    api_key_env: str | None = None
    """The environment variable that holds the key; None sends none. The key itself is read when a
    request is made and is in no configuration, log, error or pickle."""
    temperature: float | None = Field(default=0.0, ge=0, le=2)
    """Sampling temperature; None leaves it to the endpoint."""
    max_tokens: int = Field(default=1024, ge=16)
    """Tokens that the model may write, its thinking included."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the endpoint calls that limit."""
    extra_body: dict[str, JsonValue] = Field(default_factory=dict)
    """Further fields of the request, such as `chat_template_kwargs`; they win over those above."""
    concurrency: int = Field(default=8, ge=1, le=1024)
    """Requests at once."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """Attempts that may start in a minute, spread evenly; None sets no limit."""
    retry: Retry = Retry()
    """How long a request may take and how often it is tried."""

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    def caller(self, purpose: str) -> JsonCaller:
        """Return the caller of this endpoint; to be called on the background loop.

        Args:
            purpose: what needs it, for the message where a package is missing.
        """
        return json_caller(
            CallerSpec(
                self.url, self.api_key_env, self.retry, self.concurrency,
                self.requests_per_minute, purpose,
            )
        )  # fmt: skip

    def body(self, messages: Sequence[Message], more: Mapping[str, object] | None = None) -> bytes:
        """Return the body of a request; `more` are fields of the caller's own."""
        body: dict[str, object] = {
            "model": self.model,
            "messages": [message.model_dump() for message in messages],
            self.max_tokens_field: self.max_tokens,
        }
        if self.temperature is not None:
            body["temperature"] = self.temperature
        return json.dumps(body | dict(more or {}) | self.extra_body).encode()


class ChatReply(NamedTuple):
    """One answer of a chat endpoint."""

    text: str
    finish_reason: str
    refusal: str
    has_usage: bool
    prompt_tokens: int
    completion_tokens: int


def read_reply(answer: object) -> ChatReply:
    """Return the first choice of a chat answer.

    Raises:
        UnusableAnswerError: the answer is no chat answer.
    """
    choices = _field(answer, "choices")
    if not isinstance(choices, list) or not choices:
        raise UnusableAnswerError("it has no 'choices'")
    message = _field(choices[0], "message")
    if not isinstance(message, dict):
        raise UnusableAnswerError("its first choice has no 'message'")
    usage = _field(answer, "usage")
    prompt_tokens = _count(_field(usage, "prompt_tokens"))
    completion_tokens = _count(_field(usage, "completion_tokens"))
    return ChatReply(
        _text(message.get("content")),
        _text(_field(choices[0], "finish_reason")),
        _text(message.get("refusal")),
        prompt_tokens is not None and completion_tokens is not None,
        prompt_tokens or 0,
        completion_tokens or 0,
    )


def _field(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _count(value: object) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40
    return value if isinstance(value, int) and is_count else None


def _text(value: object) -> str:
    if isinstance(value, list):  # content in parts
        return "".join(_text(_field(part, "text")) for part in value)
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""
