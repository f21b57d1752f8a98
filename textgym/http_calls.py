"""JSON over HTTP to services that are slow, overloaded, restarting or wrong.

One attempt has one deadline from connecting to the last byte, so a server that sends a byte a
second cannot hold it. Attempts are repeated after time-outs, lost connections, unreadable bodies
and the statuses that invite it, with exponential back-off, full jitter and `Retry-After`. Nothing
here ever makes up an answer: what cannot be had is a `CallError`, which becomes a failed score.

Redirects are not followed: they would carry the token somewhere else.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from time import time
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from textgym.background_loop import background_loop
from textgym.errors import MissingExtraError, TextGymError
from textgym.score import FailureKind

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_SHOWN = 200


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("expected a URL such as http://127.0.0.1:8000")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "a URL with a password would be logged; name it in an environment variable"
        )
    if parts.query or parts.fragment:
        raise ValueError("a base URL has neither a query nor a fragment")
    return url.rstrip("/")


BaseUrl = Annotated[str, AfterValidator(_check_url)]
"""Where a service is, without a slash at its end."""


class Retry(BaseModel):
    """How long a request may take and how often it is tried."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    timeout: float = Field(default=60.0, gt=0, le=86_400)
    """Seconds of one attempt, from connecting to the last byte of the answer."""
    max_retries: int = Field(default=6, ge=0, le=100)
    """Attempts after the first."""
    first_delay: float = Field(default=0.5, ge=0, le=3600)
    """Longest wait before the first retry, in seconds; it doubles with each retry. The wait itself
    is drawn evenly from zero to that."""
    max_delay: float = Field(default=30.0, ge=0, le=3600)
    """Longest wait before any retry."""
    max_retry_after: float = Field(default=120.0, ge=0, le=86_400)
    """Longest `Retry-After` that is waited for; a service that asks for more is given up."""
    give_up_after: float = Field(default=60.0, gt=0)
    """Seconds for which every attempt at a service may fail. After that nothing is retried until an
    attempt succeeds: a dead service costs a batch its retries once and not for each sample."""
    max_response_bytes: int = Field(default=16 << 20, ge=1024)
    """Size of an answer that is still read."""


class CallError(TextGymError):
    """A request that came to nothing: the kind of failure, and the HTTP status if any."""

    def __init__(self, kind: FailureKind, reason: str, *, status: int | None = None) -> None:
        super().__init__(reason)
        self.kind = kind
        self.status = status


class UnusableAnswerError(Exception):
    """Raised by the reader of an answer that is not what the service promises; it is retried."""


class _RetryableError(Exception):
    def __init__(self, error: CallError, retry_after: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after = retry_after


class CallerSpec(NamedTuple):
    """All that tells one caller from another; equal specifications share connections and limits."""

    url: str
    token_env: str | None
    retry: Retry
    concurrency: int
    requests_per_minute: float | None
    purpose: str


@dataclass
class CallCounts:
    """What a caller has done so far."""

    num_attempts: int = 0
    num_retries: int = 0
    num_failed: int = 0
    """Requests that came to nothing after their last attempt."""


@dataclass
class JsonCaller:
    """Posts JSON to one service. Used on the background loop only; see `json_caller`."""

    spec: CallerSpec
    counts: CallCounts = field(default_factory=CallCounts)

    def __post_init__(self) -> None:
        self._client: httpx.AsyncClient | None = None
        self._slots = asyncio.Semaphore(self.spec.concurrency)
        self._next_start = 0.0
        self._failing_since: float | None = None
        self._random = random.SystemRandom()

    async def post(
        self,
        path: str,
        body: bytes,
        read: Callable[[object], T],
        *,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """Return what `read` makes of the decoded JSON of the answer.

        Args:
            path: appended to the URL of the service.
            body: the JSON to send.
            read: takes the decoded answer; raises `UnusableAnswerError` to have it asked again.
            headers: further headers, the same in every attempt.

        Raises:
            CallError: the request came to nothing.
        """
        sent = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            **(headers or {}),
        }
        sent |= self._authorization()
        attempt = 0
        while True:
            try:
                result = await self._attempt(path, body, sent, read)
            except _RetryableError as failed:
                await self._before_retry(failed, attempt)
                attempt += 1
            except CallError:
                self.counts.num_failed += 1  # refused by a service that works: no sign of its death
                raise
            else:
                self._failing_since = None
                return result

    def _authorization(self) -> dict[str, str]:
        name = self.spec.token_env
        if name is None:
            return {}
        token = os.environ.get(name, "").strip()
        if not token:
            raise CallError(
                "unavailable", f"the environment variable {name} holds no token; set it"
            )
        if not token.isascii() or not token.isprintable() or " " in token:
            # said here, because an HTTP library would quote the token in its error
            raise CallError(
                "unavailable", f"the token in {name} has characters no header can carry"
            )
        return {"Authorization": f"Bearer {token}"}

    async def _before_retry(self, failed: _RetryableError, attempt: int) -> None:
        """Wait for the next attempt, or raise where there is to be none."""
        retry, now = self.spec.retry, asyncio.get_running_loop().time()
        if self._failing_since is None:
            self._failing_since = now
        is_dead = now - self._failing_since > retry.give_up_after
        too_long = failed.retry_after is not None and failed.retry_after > retry.max_retry_after
        if attempt >= retry.max_retries or is_dead or too_long:
            self.counts.num_failed += 1
            raise self._final(failed, attempt + 1, too_long=too_long)
        self.counts.num_retries += 1
        delay = self._random.uniform(0.0, min(retry.max_delay, retry.first_delay * 2.0**attempt))
        if failed.retry_after is not None:
            # it asks all of us to wait, not this request alone
            self._next_start = max(self._next_start, now + failed.retry_after)
        await asyncio.sleep(delay)

    def _final(self, failed: _RetryableError, num_attempts: int, *, too_long: bool) -> CallError:
        error, tries = (
            failed.error,
            "1 attempt" if num_attempts == 1 else f"{num_attempts} attempts",
        )
        asked = f"; it asks to wait {failed.retry_after:g} s" if too_long else ""
        return CallError(error.kind, f"{error} ({tries}{asked})", status=error.status)

    async def _attempt(
        self, path: str, body: bytes, headers: Mapping[str, str], read: Callable[[object], T]
    ) -> T:
        client = self._client = self._client or _make_client(self.spec)
        import httpx

        url, timeout = f"{self.spec.url}{path}", self.spec.retry.timeout
        async with self._slots:
            await self._wait_for_turn()
            self.counts.num_attempts += 1
            try:
                async with asyncio.timeout(timeout):
                    async with client.stream(
                        "POST", url, content=body, headers=dict(headers)
                    ) as response:
                        content = await self._read_body(response)
            except (TimeoutError, httpx.TimeoutException):
                reason = f"{self.spec.url} gave no answer within {timeout:g} s"
                raise _RetryableError(CallError("timeout", reason)) from None
            except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
                what = " ".join(str(error).split())[:_SHOWN] or "the connection was lost"
                reason = f"{self.spec.url}: {type(error).__name__}: {what}"
                raise _RetryableError(CallError("unavailable", reason)) from None
        self._check_status(response, content, headers.get("Authorization", ""))
        try:
            return read(_decode(content))
        except UnusableAnswerError as error:
            reason = f"{self.spec.url} sent no usable answer: {error}"
            raise _RetryableError(CallError("unavailable", reason)) from None

    async def _wait_for_turn(self) -> None:
        """Wait until the rate limit lets one more attempt start; attempts are spread evenly."""
        per_minute = self.spec.requests_per_minute
        loop = asyncio.get_running_loop()
        start = max(loop.time(), self._next_start)
        if per_minute is not None:
            self._next_start = start + 60.0 / per_minute
        await asyncio.sleep(max(0.0, start - loop.time()))

    async def _read_body(self, response: httpx.Response) -> bytes:
        limit, chunks, size = self.spec.retry.max_response_bytes, list[bytes](), 0
        async for chunk in response.aiter_bytes():
            chunks.append(chunk)
            size += len(chunk)
            if size > limit:
                raise CallError(
                    "unavailable",
                    f"{self.spec.url} sent more than {limit} bytes, which is too long",
                )
        return b"".join(chunks)

    def _check_status(self, response: httpx.Response, content: bytes, secret: str) -> None:
        status = response.status_code
        if 200 <= status < 300:
            return
        text = " ".join(content[: 4 * _SHOWN].decode("utf-8", "replace").split())
        if secret:  # some servers quote the key that they refuse
            text = text.replace(secret.removeprefix("Bearer "), "***")
        reason = f"{self.spec.url} answered {status}: {text[:_SHOWN]}"
        kind: FailureKind = "timeout" if status in (408, 504) else "unavailable"
        error = CallError(kind, reason, status=status)
        if status not in RETRIED:
            raise error
        raise _RetryableError(error, _retry_after(response.headers.get("Retry-After")))


def json_caller(spec: CallerSpec) -> JsonCaller:
    """Return the caller of a specification; to be called on the background loop."""
    return background_loop().keep(spec, lambda: JsonCaller(spec))


def is_loopback(host: str) -> bool:
    """Return whether a host name or address can only be this machine."""
    return host in LOOPBACK or (host.startswith("127.") and host.replace(".", "").isdigit())


def _make_client(spec: CallerSpec) -> httpx.AsyncClient:
    try:
        import httpx
    except ModuleNotFoundError:
        missing = MissingExtraError("httpx", "judge", spec.purpose)
        raise CallError("unavailable", str(missing)) from None
    # A proxy from the environment cannot reach a service on this machine.
    reaches_out = not is_loopback(urlsplit(spec.url).hostname or "")
    return httpx.AsyncClient(
        timeout=spec.retry.timeout,
        trust_env=reaches_out,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=spec.concurrency),
    )


def _decode(content: bytes) -> object:
    try:
        decoded: object = json.loads(content)
    except (ValueError, RecursionError):
        shown = content[:80].decode("utf-8", "replace")
        raise UnusableAnswerError(f"no JSON, {len(content)} bytes: {shown!r}") from None
    return decoded


def _retry_after(text: str | None) -> float | None:
    """Return the seconds that a `Retry-After` header asks for, or None."""
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
