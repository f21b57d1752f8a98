"""Run a service until it is told to stop."""

from __future__ import annotations

import socket

import uvicorn
from fastapi import FastAPI

from textgym.errors import ConfigError

_GRACE = 30
"""Seconds in which running requests may end after SIGTERM or SIGINT."""
_BACKLOG = 128


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on the address; port 0 takes a free one.

    Whoever connects from now on is answered as soon as the service runs.

    Raises:
        ConfigError: the address cannot be used.
    """
    if not 0 <= port < 1 << 16:  # getaddrinfo takes the remainder
        raise ConfigError(f"--port {port} is no port; choose one from 1 to 65535, or 0 for any")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)
    except (OSError, UnicodeError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"--host {host} --port {port} cannot be listened on: {reason}; choose another"
        ) from None
    return bound


def run_app(app: FastAPI, bound: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; requests that run then are still answered."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        ws="none",
        timeout_graceful_shutdown=_GRACE,
    )
    uvicorn.Server(config).run(sockets=[bound])
