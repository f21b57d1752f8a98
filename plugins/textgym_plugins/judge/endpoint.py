"""An OpenAI-compatible chat endpoint: how to reach it, what it is asked for, what it has cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, JsonValue, NonNegativeFloat

from textgym.http_calls import (
    BaseUrl,
    CallCounts,
    CallerSpec,
    JsonCaller,
    Retry,
    UnusableAnswerError,
    json_caller,
)


class Prices(BaseModel):
    """What an endpoint charges, in any currency, for a million tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    prompt: NonNegativeFloat
    """For a million tokens that the judge reads."""
    completion: NonNegativeFloat
    """For a million tokens that the judge writes."""


class Endpoint(BaseModel):
    """Where the judge is and how it is called."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    url: BaseUrl
    """The base URL up to the version, such as `http://127.0.0.1:8000/v1`."""
    model: str = Field(min_length=1)
    """The model's name at the endpoint."""
    api_key_env: str | None = None
    """The environment variable that holds the key; None sends none. The key itself is read when a
    request is made and is in no configuration, log, error or pickle."""
    response_format: Literal["json_schema", "json_object", "none"] = "json_schema"
    """How the endpoint is asked to keep to the form; `none` where it can do neither."""
    temperature: float | None = Field(default=0.0, ge=0, le=2)
    """Sampling temperature; None leaves it to the endpoint."""
    max_tokens: int = Field(default=1024, ge=16)
    """Tokens that the judge may write, its thinking included."""
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
    prices: Prices | None = None
    """For the cost; None counts tokens only."""

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    def caller(self) -> JsonCaller:
        """Return the caller of this endpoint; to be called on the background loop."""
        purpose = "the reward 'judge'"
        return json_caller(
            CallerSpec(
                self.url, self.api_key_env, self.retry, self.concurrency,
                self.requests_per_minute, purpose,
            )
        )  # fmt: skip

    def request(self, system: str, user: str, *, schema: Mapping[str, object]) -> bytes:
        """Return the body of a chat request."""
        body: dict[str, object] = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": user},
            ],
            self.max_tokens_field: self.max_tokens,
        }
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if self.response_format == "json_schema":
            wanted = {"name": "verdict", "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": wanted}
        elif self.response_format == "json_object":
            body["response_format"] = {"type": "json_object"}
        return json.dumps(body | self.extra_body).encode()


@dataclass(frozen=True)
class Usage:
    """What judging has taken so far in this process."""

    num_answers: int = 0
    """Answers that came back, readable or not."""
    num_unpriced: int = 0
    """Answers that named no token counts; they are missing in what follows."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    """Sum over the requests of the time from asking to the answer, waiting for a turn included."""
    cost: float = 0.0
    """In the currency of the prices; 0.0 without prices."""
    num_attempts: int = 0
    num_retries: int = 0
    num_failed: int = 0
    """Requests that came to nothing after their last attempt."""

    def plus(self, reply: Reply, seconds: float, prices: Prices | None) -> Usage:
        """Return the usage with one more answer."""
        cost = 0.0
        if prices is not None:
            cost = reply.prompt_tokens * prices.prompt + reply.completion_tokens * prices.completion
        return replace(
            self,
            num_answers=self.num_answers + 1,
            num_unpriced=self.num_unpriced + (not reply.has_usage),
            prompt_tokens=self.prompt_tokens + reply.prompt_tokens,
            completion_tokens=self.completion_tokens + reply.completion_tokens,
            seconds=self.seconds + seconds,
            cost=self.cost + cost / 1e6,
        )

    def with_counts(self, counts: CallCounts) -> Usage:
        """Return the usage with the counts of a caller."""
        return replace(
            self,
            num_attempts=counts.num_attempts,
            num_retries=counts.num_retries,
            num_failed=counts.num_failed,
        )


class Reply(NamedTuple):
    """One answer of a chat endpoint."""

    text: str
    finish_reason: str
    refusal: str
    has_usage: bool
    prompt_tokens: int
    completion_tokens: int


def read_reply(answer: object) -> Reply:
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
    return Reply(
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
