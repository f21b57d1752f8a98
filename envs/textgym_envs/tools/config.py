"""The configuration of the environments with tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PositiveInt, ValidationError

from textgym.errors import ConfigError
from textgym.make import make_tool
from textgym.tool import Tool
from textgym.validation import explain
from textgym_envs.config import TextGenConfig


class ToolsConfig(TextGenConfig):
    """Arguments of `gym.make("TextGenTools-v0", ...)`: those of TextGen-v0 and these."""

    env_id: ClassVar[str] = "TextGenTools-v0"

    action_mode: Literal["text"] = "text"
    """One completion per step, which is a turn."""
    tools: str | list[str | dict[str, JsonValue]] = "calculator"
    """Tools by name, or `{"tool": name, "config": {...}}`; an empty list leaves none."""
    describe_tools: bool = True
    """Show the tools to the policy, as the template does it."""
    max_turns: PositiveInt = 8
    """Completions of one episode; a call in the last one is not answered, and scored as a
    completion that was cut off."""
    max_call_characters: PositiveInt = 8000
    """Longest call; a longer one is answered with an error."""


class ToolEntry(BaseModel):
    """One tool of a configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    tool: str = Field(min_length=1)
    """Name of an installed tool."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Fields of the tool."""


def make_tools(spec: str | Sequence[str | Mapping[str, Any]]) -> dict[str, Tool]:
    """Return the tools of a configuration by name.

    Raises:
        UnknownToolError: no installed plugin offers a name.
        ConfigError: an entry that cannot be used, or a tool that is there twice.
    """
    tools: dict[str, Tool] = {}
    for i, entry in enumerate([spec] if isinstance(spec, str) else spec):
        given = {"tool": entry} if isinstance(entry, str) else entry
        try:
            read = ToolEntry.model_validate(given)
        except ValidationError as error:
            reasons = [reason for _, reason in explain(error, ToolEntry, given)]
            raise ConfigError(f"tools[{i}]: {'; '.join(reasons)}") from None
        if read.tool in tools:
            raise ConfigError(f"tools[{i}]: '{read.tool}' is there twice; calls are by name")
        tools[read.tool] = make_tool(read.tool, **read.config)
    return tools
