"""Read calls of tools out of completions, in the form of Qwen or in a plain one.

Qwen's: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, any number of them, after the
thoughts. The plain form, for templates without turns: the completion ends with one call, `name:` at
the beginning of a line and then the argument, which may have several lines. What is no call is an
answer; a call that is malformed is one too, of which the model is told what is wrong with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from pydantic import JsonValue

from textgym.errors import did_you_mean

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_THOUGHT_END = "</think>"
_EXPECTED = 'expected {"name": ..., "arguments": {...}}'


class Call(NamedTuple):
    """One call as it was written."""

    name: str
    arguments: Mapping[str, JsonValue] | str
    """A text is the one argument that the tool needs, without its name."""
    problem: str = ""
    """Why it cannot be served; empty where it can be tried."""


def read_tagged(completion: str, *, most_characters: int) -> list[Call]:
    """Return the calls between tags; a tag that is never closed makes a malformed one."""
    *_, text = completion.rpartition(_THOUGHT_END)
    calls = []
    for part in text.split(_OPEN)[1:]:
        body, closed, _ = part.partition(_CLOSE)
        if not closed:
            calls.append(Call("", "", f"{_OPEN} is not closed by {_CLOSE}"))
        elif len(body) > most_characters:
            calls.append(Call("", "", _too_long(body, most_characters)))
        else:
            calls.append(_read_json(body.strip()))
    return calls


def read_plain(completion: str, names: Collection[str], *, most_characters: int) -> list[Call]:
    """Return the call that a completion ends with, if it does; only known names make one."""
    if not names:
        return []
    pattern = rf"^({'|'.join(map(re.escape, names))}):[ \t]*"
    found = re.search(pattern, completion, re.MULTILINE)
    if found is None:
        return []
    name, body = found.group(1), completion[found.end() :].strip()
    if len(body) > most_characters:
        return [Call(name, "", _too_long(body, most_characters))]
    if not body:
        return [Call(name, "", "the argument is missing")]
    value = _json(body) if body.startswith("{") else None
    return [Call(name, value if isinstance(value, dict) else body)]


def write_plain(name: str, arguments: Mapping[str, JsonValue], bare: str | None) -> str:
    """Return a call in the plain form; `bare` is the argument that needs no name."""
    if bare is not None and list(arguments) == [bare] and isinstance(arguments[bare], str):
        return f"{name}: {arguments[bare]}"
    return f"{name}: {json.dumps(dict(arguments), ensure_ascii=False)}"


def write_tagged(name: str, arguments: Mapping[str, JsonValue]) -> str:
    """Return a call in the form of Qwen."""
    call = json.dumps({"name": name, "arguments": dict(arguments)}, ensure_ascii=False)
    return f"{_OPEN}\n{call}\n{_CLOSE}"


def unknown_tool(name: str, names: Collection[str]) -> str:
    """Return what is wrong with a call of a tool that is not there."""
    return f"there is no tool '{name[:40]}'.{did_you_mean(name[:40], names)} Tools: " + (
        ", ".join(names) or "none"
    )


def _read_json(body: str) -> Call:
    value = _json(body)
    if isinstance(value, ValueError):
        return Call("", "", f"the call is not JSON: {value}; {_EXPECTED}")
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return Call("", "", f"the call has no name; {_EXPECTED}")
    arguments = value.get("arguments", {})
    if isinstance(arguments, str):  # some models write the object as text
        arguments = _json(arguments)
    if not isinstance(arguments, dict):
        return Call(value["name"], "", f"'arguments' is no object; {_EXPECTED}")
    return Call(value["name"], arguments)


def _json(text: str) -> Any:
    """Return the value of a JSON text, or the error of one that is none."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        return ValueError(f"{error.msg} at character {error.pos}")
    except (ValueError, RecursionError):  # a number of thousands of digits, deep nesting
        return ValueError("it is nested too deeply, or holds a number that is too long")


def _too_long(body: str, most: int) -> str:
    return f"the call has {len(body)} characters; at most {most} are allowed"
