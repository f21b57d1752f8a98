"""What the policy is asked: `Prompt`, and the `Message`s that it is made of."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator


class Message(BaseModel):
    """One message of a chat."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "user", "assistant", "tool"]
    content: str


class Prompt(BaseModel):
    """One task: what the policy reads, and what its reward needs to judge the completion."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    id: str = Field(min_length=1)
    """Unique within its source; in logs, errors and the train/evaluation split."""
    messages: tuple[Message, ...] = Field(min_length=1)
    """The chat so far. A plain string is taken as one user message."""
    target: JsonValue = None
    """The gold answer in the form that the reward documents (text, tests, accepted answers)."""
    reward: str | None = None
    """Name of the reward that scores this prompt, where the rubric has a route of this name or no
    rewards of its own; None leaves it to the rubric."""
    passages: tuple[str, ...] = ()
    """Retrieved passages of a question over a knowledge base."""
    answerable: bool | None = None
    """Whether the passages hold the answer; None where the question does not arise."""
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    """Anything else that belongs to the task; never read by the trainer."""

    @field_validator("messages", mode="before")
    @classmethod
    def _message_from_text(cls, value: Any) -> Any:
        return ({"role": "user", "content": value},) if isinstance(value, str) else value

    @property
    def text(self) -> str:
        """The content of the last user message (of the last message, if there is none)."""
        for message in reversed(self.messages):
            if message.role == "user":
                return message.content
        return self.messages[-1].content
