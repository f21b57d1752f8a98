"""An OpenAI-compatible chat endpoint as an answerer; prompts go as messages."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from textgym.background_loop import background_loop
from textgym.benchmark import Benchmark
from textgym.chat_endpoint import CHAT_PATH, ChatEndpoint, ChatReply, read_reply
from textgym.http_calls import CallError
from textgym.prompt import Message
from textgym_agents.evaluation.answerers import Answer, Question

_PURPOSE = "answering at an endpoint"
_BATCHES_IN_FLIGHT = 4
FEWEST_TOKENS = 16
"""Some endpoints refuse a lower limit."""
REFUSED = (400, 413, 422)
"""What an endpoint says of a request that it will never take, such as one that is too long."""


class EndpointAnswerer:
    """A chat model at an endpoint.

    Args:
        endpoint: where it is and how it is called; its temperature and limit of tokens are set by
            the suite.
        system: system message of prompts that have none.
    """

    def __init__(self, endpoint: ChatEndpoint, *, system: str | None = None) -> None:
        self.endpoint = endpoint
        self.system = system

    @property
    def batch_size(self) -> int:
        """A few rounds of what the endpoint takes at once."""
        return self.endpoint.concurrency * _BATCHES_IN_FLIGHT

    def describe(self) -> dict[str, JsonValue]:
        """Return which model it is and where; the key is read from the environment."""
        return {
            "kind": "endpoint",
            "url": self.endpoint.url,
            "model": self.endpoint.model,
            "system": self.system,
            "extra_body": self.endpoint.extra_body,
        }

    def rendering(self, benchmark: Benchmark) -> Mapping[str, JsonValue]:
        """Return the plain template: the endpoint has one of its own for messages."""
        del benchmark
        return {"template": "plain"}

    def answer(
        self, questions: Sequence[Question], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[Answer]:
        """Return what the endpoint says; its samples have no seed."""
        del seed
        update = {"temperature": temperature, "max_tokens": max(max_new_tokens, FEWEST_TOKENS)}
        endpoint = self.endpoint.model_copy(update=update)
        answers = background_loop().run(self._answer_all(endpoint, questions))
        if all(answer.failure for answer in answers):  # it is not the prompts that are at fault
            answers = [answer._replace(finish_reason="abort") for answer in answers]
        return answers

    async def _answer_all(
        self, endpoint: ChatEndpoint, questions: Sequence[Question]
    ) -> list[Answer]:
        return await asyncio.gather(*(self._answer(endpoint, q) for q in questions))

    async def _answer(self, endpoint: ChatEndpoint, question: Question) -> Answer:
        messages = question.prompt.messages
        if self.system is not None and messages[0].role != "system":
            messages = (Message(role="system", content=self.system), *messages)
        try:
            caller = endpoint.caller(_PURPOSE)
            reply = await caller.post(CHAT_PATH, endpoint.body(messages), read_reply)
        except CallError as error:
            is_refused = error.status in REFUSED
            return Answer("", "stop" if is_refused else "abort", failure=str(error))
        return _answer_of(reply)


def _answer_of(reply: ChatReply) -> Answer:
    """Return a reply as an answer; the text of a refusal stands in for one without text."""
    is_cut = reply.finish_reason == "length"
    text = reply.text or reply.refusal
    return Answer(text, "length" if is_cut else "stop", reply.completion_tokens)
