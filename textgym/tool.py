"""The contract of a tool: something that the policy may call while it works on a prompt.

A `Tool` is a frozen model, as a `Reward` is: its fields are its configuration. What it answers is
text for the model to read. A call that it cannot serve raises `ToolError`, whose message is the
answer; any other exception is a broken tool, and fails the episode instead of teaching from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PositiveInt

from textgym.errors import TextGymError
from textgym.prompt import Prompt


class ToolError(TextGymError):
    """A call that a tool cannot serve; the model reads the message."""


class ToolUnavailableError(TextGymError):
    """A tool that cannot work on this machine now; the episode fails and no model is to blame."""


class ToolArguments(BaseModel):
    """Base of the arguments of a tool; an argument that is not declared is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ToolCall(NamedTuple):
    """A call by name, as the policy writes it."""

    name: str
    arguments: dict[str, JsonValue]


class ToolSession(Protocol):
    """A tool within one episode; calls come one at a time."""

    def call(self, arguments: Any) -> str:
        """Return the answer to a call whose arguments are valid."""
        ...

    def close(self) -> None:
        """Release what the session holds; it is not called again."""
        ...


class Tool(BaseModel):
    """Base of every tool. Override `call`, or `open` where a tool keeps state in an episode."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: ClassVar[str]
    """How configurations and calls name this tool: letters, digits and underscores."""
    description: ClassVar[str]
    """What it does, for the model."""
    arguments: ClassVar[type[BaseModel]]
    """The arguments of a call. Where one alone is required, a plain call may give it as bare
    text."""
    runs: ClassVar[Literal["inline", "thread", "timed"]] = "timed"
    """`timed`: a call that takes longer than `seconds` is left behind in a thread, and the tool is
    gone for the rest of the episode. `thread`: the tool keeps to `seconds` by itself. `inline`:
    every call ends at once, whatever its arguments are."""

    max_calls: PositiveInt = 8
    """Calls in one episode; further ones are refused."""
    seconds: float = Field(default=5.0, gt=0, le=600)
    """Time of one call."""
    output_characters: PositiveInt = 2000
    """Longest answer; what is longer is cut."""

    def call(self, arguments: Any, prompt: Prompt) -> str:
        """Return the answer to a call.

        Args:
            arguments: an instance of the class's `arguments`.
            prompt: the task of the episode.

        Raises:
            ToolError: the call cannot be served; the model reads why.
            ToolUnavailableError: no call can be.
        """
        raise NotImplementedError(f"{type(self).__name__} defines neither call nor open")

    def open(self, prompt: Prompt, earlier: Sequence[Any] = ()) -> ToolSession:
        """Begin an episode.

        Args:
            prompt: its task.
            earlier: arguments of the calls that it has had, where one is taken up again.
        """
        del earlier
        return _Stateless(self, prompt)

    @classmethod
    def function_schema(cls) -> dict[str, Any]:
        """Return the tool as chat templates show it to a model."""
        parameters = {"type": "object", **_untitled(cls.arguments.model_json_schema())}
        parameters.pop("additionalProperties", None)
        function = {"name": cls.name, "description": cls.description, "parameters": parameters}
        return {"type": "function", "function": function}

    @classmethod
    def bare_argument(cls) -> str | None:
        """Return the one argument that must be given; None where there is none, or several."""
        required = [n for n, field in cls.arguments.model_fields.items() if field.is_required()]
        return required[0] if len(required) == 1 else None


class _Stateless:
    """The session of a tool that keeps nothing."""

    def __init__(self, tool: Tool, prompt: Prompt) -> None:
        self._tool = tool
        self._prompt = prompt

    def call(self, arguments: Any) -> str:
        return self._tool.call(arguments, self._prompt)

    def close(self) -> None:
        pass


def _untitled(schema: Any) -> Any:
    """Return a JSON schema without the titles that pydantic derives from names."""
    if isinstance(schema, dict):
        kept = {k: v for k, v in schema.items() if k != "title" or not isinstance(v, str)}
        kept.pop("description", None) if "properties" in kept else None
        if isinstance(kept.get("description"), str):
            kept["description"] = " ".join(kept["description"].split())
        return {key: _untitled(value) for key, value in kept.items()}
    return [_untitled(each) for each in schema] if isinstance(schema, list) else schema
