"""Who answers a rewritten query: a chat endpoint, or a Python function.

What cannot be answered is a failed score and never an empty answer, which would be judged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, TypeAlias, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator

from textgym import Message, Score
from textgym.background_loop import background_loop
from textgym.chat_endpoint import CHAT_PATH, ChatEndpoint, read_reply
from textgym.function_reward import absolute_reference, find_function
from textgym.http_calls import CallError, JsonCaller
from textgym.score import FailureKind

Answer: TypeAlias = str | Score
"""The generator's text, or the failed score of the sample that needed it."""


class EndpointDownstream(ChatEndpoint):
    """A model behind an OpenAI-compatible endpoint, asked for all queries of a batch at once."""

    kind: Literal["endpoint"] = "endpoint"
    system: str | None = None
    """System message of the generator, before the query."""

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    def answer(self, queries: Sequence[str]) -> list[Answer]:
        """Return one answer per query, in order; a refusal in place of a text is the answer."""
        return background_loop().run(self._answer_all(queries))

    async def _answer_all(self, queries: Sequence[str]) -> list[Answer]:
        caller = self.caller("QueryRewrite-v0")
        return list(await asyncio.gather(*(self._answer(caller, query) for query in queries)))

    async def _answer(self, caller: JsonCaller, query: str) -> Answer:
        messages = [Message(role="user", content=query)]
        if self.system is not None:
            messages.insert(0, Message(role="system", content=self.system))
        try:
            reply = await caller.post(CHAT_PATH, self.body(messages), read_reply)
        except CallError as error:
            return Score.failed(error.kind, f"downstream: {error}")
        return reply.text or reply.refusal


class FunctionDownstream(BaseModel):
    """A Python function that takes a list of queries and returns a list of texts."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Literal["function"] = "function"
    function: str
    """`module:function` or `path/to/file.py:function`. It runs in the environment's process."""

    @field_validator("function")
    @classmethod
    def _resolves(cls, function: str) -> str:
        function = absolute_reference(function)
        find_function(function)
        return function

    def answer(self, queries: Sequence[str]) -> list[Answer]:
        """Return one answer per query, in order; where the function fails, it fails all of them."""
        function = cast(Callable[[list[str]], object], find_function(self.function))

        def fail(kind: FailureKind, what: str) -> list[Answer]:
            return [Score.failed(kind, f"downstream: {self.function} {what}")] * len(queries)

        try:
            texts = function(list(queries))
        except Exception as error:  # the user's function may raise anything
            return fail("raised", f"raised {type(error).__name__}: {error}")
        if not isinstance(texts, list | tuple) or not all(isinstance(t, str) for t in texts):
            return fail("wrong_type", f"returned {type(texts).__name__}; expected a list of texts")
        if len(texts) != len(queries):
            return fail("wrong_length", f"gave {len(texts)} texts for {len(queries)} queries")
        return list(texts)


Downstream = Annotated[EndpointDownstream | FunctionDownstream, Field(discriminator="kind")]
