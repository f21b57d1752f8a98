"""Serve calls: who is called, with valid arguments, how often, how long, and what comes back.

What the policy gets wrong is an answer that says so. What a tool gets wrong, by raising anything
but `ToolError` or by returning no text, ends the episode as failed: nothing is learnt from it.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from textgym.prompt import Prompt
from textgym.score import FailureKind
from textgym.tool import Tool, ToolCall, ToolError, ToolSession, ToolUnavailableError
from textgym.validation import explain
from textgym_envs.tools.calls import (
    Call,
    read_plain,
    read_tagged,
    unknown_tool,
    write_plain,
    write_tagged,
)

MOST_CALLS_OF_A_TURN = 8


class Answer(NamedTuple):
    """What a call came to."""

    text: str
    is_error: bool = False


class BrokenToolError(Exception):
    """A tool that failed by no fault of the policy."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Toolbox:
    """The tools of an environment, and the form in which they are called.

    Args:
        tools: by name.
        is_tagged: whether calls have the form of Qwen, or the plain one.
        most_characters: of a call.
    """

    def __init__(self, tools: Mapping[str, Tool], *, is_tagged: bool, most_characters: int) -> None:
        self.tools = dict(tools)
        self.is_tagged = is_tagged
        self._most_characters = most_characters

    @property
    def waits(self) -> bool:
        """Whether calls may take time, so that those of several episodes are served at once."""
        return any(tool.runs != "inline" for tool in self.tools.values())

    def schemas(self) -> list[dict[str, Any]]:
        """Return the tools as templates show them."""
        return [tool.function_schema() for tool in self.tools.values()]

    def read(self, completion: str) -> list[Call]:
        """Return the calls of a completion; none of a completion that is an answer."""
        if not self.tools:
            return []
        if self.is_tagged:
            return read_tagged(completion, most_characters=self._most_characters)
        return read_plain(completion, self.tools, most_characters=self._most_characters)

    def write(self, call: ToolCall) -> str:
        """Return a call as the policy should write it."""
        if self.is_tagged:
            return write_tagged(call.name, call.arguments)
        bare = self.tools[call.name].bare_argument()
        return write_plain(call.name, call.arguments, bare)

    def arguments(self, call: Call) -> BaseModel:
        """Return the valid arguments of a call.

        Raises:
            ToolError: it has none.
        """
        if call.problem:
            raise ToolError(call.problem)
        tool = self.tools.get(call.name)
        if tool is None:
            raise ToolError(unknown_tool(call.name, self.tools))
        given = call.arguments
        if isinstance(given, str):
            bare = tool.bare_argument()
            if bare is None:
                raise ToolError(f"{call.name} takes a JSON object of {_names(tool)}")
            given = {bare: given}
        try:
            return tool.arguments.model_validate(dict(given))
        except ValidationError as error:
            reasons = [reason for _, reason in explain(error, tool.arguments, given)]
            raise ToolError(f"{call.name}: {'; '.join(reasons[:3])}") from None


class Bench:
    """The tools at work in one episode.

    Args:
        toolbox: the tools.
        prompt: the task of the episode.
    """

    def __init__(self, toolbox: Toolbox, prompt: Prompt) -> None:
        self._toolbox = toolbox
        self._prompt = prompt
        self._sessions: dict[str, ToolSession] = {}
        self._served: dict[str, list[BaseModel]] = {}
        self._gone: set[str] = set()
        self.num_calls: Counter[str] = Counter()
        self.num_errors = 0

    def answer(self, calls: Sequence[Call]) -> list[Answer]:
        """Serve the calls of a turn, one after another.

        Raises:
            BrokenToolError: a tool failed.
        """
        answers = [self._answer(call) for call in calls[:MOST_CALLS_OF_A_TURN]]
        if len(calls) > MOST_CALLS_OF_A_TURN:
            text = f"a turn has at most {MOST_CALLS_OF_A_TURN} calls; the others are not served"
            answers.append(Answer(f"Error: {text}", is_error=True))
        self.num_errors += sum(answer.is_error for answer in answers)
        return answers

    def recall(self, calls: Sequence[Call], *, num_errors: int) -> None:
        """Note the calls of a turn that was answered before the episode was taken up again."""
        for call in calls[:MOST_CALLS_OF_A_TURN]:
            try:
                self._count(call)
            except ToolError:
                pass
        self.num_errors += num_errors

    def close(self) -> None:
        """End the sessions; those of tools that hang are left to them."""
        for name, session in self._sessions.items():
            if name not in self._gone:
                session.close()
        self._sessions = {}

    def _count(self, call: Call) -> BaseModel:
        """Return the arguments of a call that is to be served, and count it."""
        arguments = self._toolbox.arguments(call)
        name, most = call.name, self._toolbox.tools[call.name].max_calls
        if name in self._gone:
            raise ToolError(f"{name} did not come back from an earlier call")
        if self.num_calls[name] == most:
            raise ToolError(f"{name} was called {most} times, as often as an episode may")
        self.num_calls[name] += 1
        self._served.setdefault(name, []).append(arguments)
        return arguments

    def _answer(self, call: Call) -> Answer:
        try:
            arguments = self._count(call)
            text = self._call(call.name, arguments)
        except ToolError as error:
            limit = self._limit(call.name)
            return Answer(f"Error: {_cut(str(error), limit)}", is_error=True)
        return Answer(_cut(text, self._limit(call.name)))

    def _limit(self, name: str) -> int:
        tool = self._toolbox.tools.get(name)
        return tool.output_characters if tool is not None else 400

    def _call(self, name: str, arguments: BaseModel) -> str:
        tool = self._toolbox.tools[name]
        try:
            session = self._session(tool)
            if tool.runs == "timed":
                text = _timed(session, arguments, tool.seconds)
            else:
                text = session.call(arguments)
        except ToolError:
            raise
        except _TookTooLongError:
            self._gone.add(name)
            raise ToolError(f"{name} passed its time limit of {tool.seconds:g} s") from None
        except ToolUnavailableError as error:
            raise BrokenToolError("unavailable", f"tool '{name}': {error}") from error
        except Exception as error:  # a third party's tool may raise anything
            what = f"tool '{name}' raised {type(error).__name__}: {error}"
            raise BrokenToolError("raised", what) from error
        if not isinstance(text, str):
            kind = type(text).__name__
            raise BrokenToolError("wrong_type", f"tool '{name}' returned {kind}; expected text")
        return text

    def _session(self, tool: Tool) -> ToolSession:
        if tool.name not in self._sessions:
            earlier = self._served[tool.name][:-1]
            self._sessions[tool.name] = tool.open(self._prompt, earlier)
        return self._sessions[tool.name]


class _TookTooLongError(Exception):
    """A call did not come back in time."""


def _timed(session: ToolSession, arguments: BaseModel, seconds: float) -> str:
    """Call in a thread of its own, and leave it there if it does not come back in time."""
    results: queue.SimpleQueue[str | BaseException] = queue.SimpleQueue()

    def work() -> None:
        try:
            results.put(session.call(arguments))
        except BaseException as error:  # for the thread that waits
            results.put(error)

    threading.Thread(target=work, name="textgym-tool", daemon=True).start()
    try:
        result = results.get(timeout=seconds)
    except queue.Empty:
        raise _TookTooLongError from None
    if isinstance(result, BaseException):
        raise result
    return result


def _names(tool: Tool) -> str:
    return ", ".join(tool.arguments.model_fields) or "nothing"


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    return f"{text[:most]}\n[cut: {len(text)} characters in all]"
