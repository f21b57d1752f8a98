"""What stands before the application: host, token, size and time of a request, and its count.

Pure ASGI: a request that is refused here costs neither parsing nor, for a wrong token, reading.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from time import perf_counter
from typing import Any, TypeAlias

from textgym.http_calls import LOOPBACK
from textgym.serve.metrics import Metrics
from textgym.serve.settings import Limits

Scope: TypeAlias = MutableMapping[str, Any]
Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_DRAINED = 4
"""Times the largest request that is read of a larger one before it is refused."""
_OPEN_PATHS = frozenset({"/healthz"})


class Guard:
    """Wraps an application.

    Args:
        application: what answers the requests that pass.
        limits: size and time of a request.
        token: the bearer token that everything but `/healthz` asks for. Without one, requests must
            name this machine as their host, so that a web page cannot reach the service under a
            name of its own that resolves to this machine.
        metrics: counts the requests.
        paths: what is counted under its own path; all else is `other`.
    """

    def __init__(
        self,
        application: Application,
        *,
        limits: Limits,
        token: str | None,
        metrics: Metrics,
        paths: Iterable[str],
    ) -> None:
        self._application = application
        self._limits = limits
        self._expected = None if token is None else f"Bearer {token}".encode()
        self._metrics = metrics
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass the start and the end of the service through."""
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1003})
            return
        started, statuses = perf_counter(), list[int]()

        async def observed(event: Event) -> None:
            if event["type"] == "http.response.start":
                statuses.append(event["status"])
            await send(event)

        path = scope["path"] if scope["path"] in self._paths else "other"
        try:
            await self._pass(scope, receive, observed)
        finally:
            status = statuses[0] if statuses else 500
            self._metrics.count_request(path, status, perf_counter() - started)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        try:
            async with asyncio.timeout(self._limits.body_time_limit):
                body = await self._read(receive)
        except TimeoutError:
            limit = self._limits.body_time_limit
            await _refuse(send, 408, "slow", f"the request did not arrive within {limit:g} s")
            return
        if body is None:
            limit_bytes = self._limits.max_body_bytes
            what = f"a request may have {limit_bytes} bytes; send fewer items at once"
            await _refuse(send, 413, "too_large", what)
            return
        await self._application(scope, _replay(body, receive), send)

    def _refusal(self, scope: Scope) -> tuple[int, str, str] | None:
        headers = {name: value for name, value in scope["headers"]}
        if scope["path"] not in _OPEN_PATHS:
            if self._expected is None:
                if not _is_local(headers.get(b"host", b"").decode("latin-1")):
                    return 403, "host", "without a token this service is for http://127.0.0.1 only"
            elif not hmac.compare_digest(headers.get(b"authorization", b""), self._expected):
                return 401, "token", "the bearer token is missing or wrong"
        return None

    async def _read(self, receive: Receive) -> bytes | None:
        """Return the whole body, or None where it is too large.

        A larger one is read on, within bounds, and thrown away: a client that is still sending when
        it is refused may lose the connection before it reads why.
        """
        chunks, size, limit = list[bytes](), 0, self._limits.max_body_bytes
        while size <= _DRAINED * limit:
            event = await receive()
            chunk = event.get("body", b"")
            size += len(chunk)
            if size <= limit:
                chunks.append(chunk)
            if event["type"] != "http.request" or not event.get("more_body", False):
                break
        return b"".join(chunks) if size <= limit else None


def _is_local(host: str) -> bool:
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    return name in LOOPBACK


def _replay(body: bytes, receive: Receive) -> Receive:
    events: list[Event] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Event:
        return events.pop() if events else await receive()

    return replay


async def _refuse(send: Send, status: int, code: str, message: str) -> None:
    content = json.dumps({"error": code, "message": message}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"connection", b"close"),  # what was not read of the body is not to be read as a request
    ]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
