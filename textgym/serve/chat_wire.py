"""What travels between the chat service and its clients: a part of OpenAI's chat completions."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from textgym.prompt import Message


class ChatRequest(BaseModel):
    """A conversation to go on with. Fields of the protocol that are not here have no effect."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    messages: tuple[Message, ...] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    """Tokens that may be written; `max_completion_tokens` wins."""
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=1.0, ge=0, le=2)
    """0 or null takes the most likely token."""
    stream: bool | None = False
    """Not offered."""

    @property
    def limit(self) -> int:
        """Tokens that may be written."""
        return self.max_completion_tokens or self.max_tokens or 1024


class Assistant(BaseModel):
    """What the model says."""

    role: Literal["assistant"] = "assistant"
    content: str


class Choice(BaseModel):
    """One answer; there is only one."""

    index: int = 0
    message: Assistant
    finish_reason: Literal["stop", "length"]


class Usage(BaseModel):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatResponse(BaseModel):
    """An answer."""

    id: str = "textgym"
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: tuple[Choice, ...]
    usage: Usage
