"""The judge's endpoint: how it is asked to keep to a form, and what it has cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, NonNegativeFloat

from textgym import Message
from textgym.chat_endpoint import ChatEndpoint, ChatReply
from textgym.http_calls import CallCounts


class Prices(BaseModel):
    """What an endpoint charges, in any currency, for a million tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    prompt: NonNegativeFloat
    """For a million tokens that the judge reads."""
    completion: NonNegativeFloat
    """For a million tokens that the judge writes."""


class Endpoint(ChatEndpoint):
    """Where the judge is and how it is called."""

    response_format: Literal["json_schema", "json_object", "none"] = "json_schema"
    """How the endpoint is asked to keep to the form; `none` where it can do neither."""
    prices: Prices | None = None
    """For the cost; None counts tokens only."""

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    def request(self, system: str, user: str, *, schema: Mapping[str, object]) -> bytes:
        """Return the body of a chat request."""
        messages = (Message(role="system", content=system), Message(role="user", content=user))
        more: dict[str, object] = {}
        if self.response_format == "json_schema":
            wanted = {"name": "verdict", "strict": True, "schema": schema}
            more["response_format"] = {"type": "json_schema", "json_schema": wanted}
        elif self.response_format == "json_object":
            more["response_format"] = {"type": "json_object"}
        return self.body(messages, more)


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

    def plus(self, reply: ChatReply, seconds: float, prices: Prices | None) -> Usage:
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
