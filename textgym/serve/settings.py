"""The limits of a service and who may use it."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from textgym.errors import ConfigError
from textgym.http_calls import is_loopback

MIN_TOKEN_LENGTH = 16


class Limits(BaseModel):
    """How much a service takes on."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_body_bytes: int = Field(default=32 << 20, ge=1024)
    """Size of a request; a larger one is refused with 413 and not kept."""
    max_items: int = Field(default=1024, ge=1)
    """Samples or sequences of a request; more are refused with 413."""
    body_time_limit: float = Field(default=30.0, gt=0)
    """Seconds in which a request must have arrived; a slower one is refused with 408."""
    time_limit: float = Field(default=300.0, gt=0)
    """Seconds of work before a request is answered with 504. The work itself is finished, and a
    request with the same id gets its outcome."""
    num_threads: int = Field(default=4, ge=1, le=256)
    """Requests that are worked on at once."""
    max_pending: int = Field(default=64, ge=1)
    """Requests that are worked on or wait; further ones are refused with 503."""
    window: float = Field(default=600.0, ge=0)
    """Seconds for which the answer to a request with an id is kept."""
    max_kept_bytes: int = Field(default=64 << 20, ge=0)
    """Size of the answers that are kept; the oldest go first."""


def read_token(*, file: Path | None, env: str | None) -> str | None:
    """Return the bearer token from a file or an environment variable, or None where neither is.

    Raises:
        ConfigError: the token cannot be read or is no token.
    """
    if file is not None and env is not None:
        raise ConfigError("--token-file and --token-env both name a token; give one of them")
    if file is not None:
        try:
            token, where = file.read_text(encoding="utf-8").strip(), f"the file {file}"
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--token-file {file}: cannot be read: {error}") from None
    elif env is not None:
        token, where = os.environ.get(env, "").strip(), f"the environment variable {env}"
    else:
        return None
    if len(token) < MIN_TOKEN_LENGTH or not token.isascii() or not token.isprintable():
        raise ConfigError(
            f"{where} holds no token: at least {MIN_TOKEN_LENGTH} printable ASCII characters, for "
            'example from: python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return token


def check_exposure(host: str, token: str | None) -> None:
    """See that a service that other machines can reach asks for a token.

    Raises:
        ConfigError: it does not.
    """
    if token is None and not is_loopback(host):
        raise ConfigError(
            f"--host {host} can be reached from other machines; give the service a token with "
            "--token-file or --token-env, or leave it on 127.0.0.1"
        )
