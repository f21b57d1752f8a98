"""Questions and answers over a channel, where each side may ask while it is being asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textgym_plugins.code.guest.wire import Channel, WireError, frame

_ASK = "?"


class Peer:
    """One end of a conversation.

    Args:
        channel: what carries the messages.
        serve: answers a question of the other end with a reply, a list.
    """

    def __init__(self, channel: Channel, serve: Callable[[list[Any]], list[Any]]) -> None:
        self.channel = channel
        self._serve = serve

    def ask(self, *question: object) -> list[Any]:
        """Return the reply; meanwhile answer what the other end asks."""
        self.channel.send_frames(asked(*question))
        return self.reply()

    def reply(self) -> list[Any]:
        """Return the next reply; meanwhile answer what the other end asks."""
        while True:
            message = self.channel.receive()
            if type(message) is not list or len(message) < 2:
                raise WireError("a message is no list")
            if message[0] != _ASK:
                return message
            self.channel.send(self._serve(message[1:]))

    def serve_for_ever(self) -> None:
        """Answer questions until the other end is gone."""
        self.reply()
        raise WireError("an answer to no question")


def asked(*question: object) -> bytes:
    """Return a question as it is sent; the replies come in the order of the questions."""
    return frame((_ASK, *question))
