"""Fixtures of the tests of rewards that ask a language model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

Reply = Callable[[dict[str, str]], dict[str, object] | str | int]
_BLOCK = re.compile(r"<([\w-]+)-(?P<code>\w{8})>\n(.*?)\n</\1-(?P=code)>", re.DOTALL)


class Judge:
    """A model behind an endpoint that is the function `reply`.

    It is given what the judge is shown, by name (`conversation`, `reference`, `answer`), and
    returns a verdict without its code, or the whole text of the answer, or an HTTP status.
    """

    def __init__(self, endpoint: Any) -> None:
        self.url: str = endpoint.url
        self.reply: Reply = lambda shown: 500
        self.asked: list[dict[str, str]] = []
        endpoint.reply = self._answer

    def _answer(self, body: dict[str, Any]) -> str | int:
        blocks = list(_BLOCK.finditer(body["messages"][-1]["content"]))
        shown = {block[1]: block[3] for block in blocks}
        self.asked.append(shown)
        reply = self.reply(shown)
        if isinstance(reply, dict):
            return json.dumps({"code": blocks[0]["code"], "reason": "because", **reply})
        return reply


@pytest.fixture
def chat_server(endpoint: Any) -> Judge:
    """A local endpoint that judges; set its `reply`."""
    return Judge(endpoint)
