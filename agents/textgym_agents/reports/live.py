"""The report of runs that still train, on a port of this machine.

The page asks every two seconds for the metrics, and for the rollouts when its reader wants to see
new ones. Rollout files never change once they are there, so each is parsed once.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from textgym.errors import ConfigError
from textgym_agents.reports.document import make_document, read_rollout_files, runs_record
from textgym_agents.reports.page import make_page
from textgym_agents.reports.reading import FileCache, read_run
from textgym_agents.reports.rollout_table import MOST_ROLLOUTS
from textgym_agents.reports.writing import title_of

HOST = "127.0.0.1"
PORT = 8384
_NAMES = (HOST, "localhost", "[::1]")


class LiveRuns:
    """Runs that are read again and again.

    Args:
        paths: of run directories.
        most_rollouts: how many rollouts the page holds.
    """

    def __init__(self, paths: Sequence[Path], *, most_rollouts: int = MOST_ROLLOUTS) -> None:
        self.paths, self.most_rollouts = list(paths), most_rollouts
        self._files = FileCache()
        self._lock = threading.Lock()

    def page(self) -> bytes:
        """Return the page, which asks for the rest."""
        return make_page(title_of(self.paths), None).encode("utf-8")

    def runs(self) -> bytes:
        """Return all but the rollouts, compressed, with their number."""
        with self._lock:
            runs = [read_run(path) for path in self.paths]
            files = read_rollout_files(runs, self._files.read)
            found = sum(len(file.records) for own in files for file in own)
            text = json.dumps({**runs_record(runs), "found": found}, allow_nan=False)
        return gzip.compress(text.encode("ascii"), 1, mtime=0)

    def report(self) -> bytes:
        """Return the whole document, compressed."""
        with self._lock:
            return make_document(
                self.paths, most_rollouts=self.most_rollouts, read=self._files.read
            )


def make_server(runs: LiveRuns, port: int | None) -> ThreadingHTTPServer:
    """Return a server on loopback that is bound but does not serve yet.

    Args:
        runs: what it shows.
        port: to bind; None is `PORT`, or a free one where that is taken, and so is 0.

    Raises:
        ConfigError: the port that was asked for cannot be had.
    """
    handler = partial(_Handler, runs)
    try:
        return ThreadingHTTPServer((HOST, PORT if port is None else port), handler)
    except OSError as error:
        if port is None:
            return ThreadingHTTPServer((HOST, 0), handler)
        raise ConfigError(
            f"--port {port} cannot be had ({error.strerror}); leave it out for a free one"
        ) from None


class _Handler(BaseHTTPRequestHandler):
    """Answers the page, `runs` and `report`."""

    protocol_version = "HTTP/1.1"

    def __init__(self, runs: LiveRuns, *args: object) -> None:
        self.runs = runs
        super().__init__(*args)  # type: ignore[arg-type]  # request, address and server

    def do_GET(self) -> None:
        """Answer a request; a page of another host that points its name here gets nothing."""
        if self.headers.get("Host", "").rpartition(":")[0] not in _NAMES:
            self._send(HTTPStatus.FORBIDDEN, b"this page is for this machine alone", "text/plain")
            return
        answers = {"/": self.runs.page, "/runs": self.runs.runs, "/report": self.runs.report}
        answer = answers.get(self.path.partition("?")[0])
        if answer is None:
            self._send(HTTPStatus.NOT_FOUND, b"there is no such page", "text/plain")
            return
        try:
            body = answer()
        except (ConfigError, OSError) as error:  # a run that was moved or removed meanwhile
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, str(error).encode(), "text/plain")
            return
        is_page = self.path.partition("?")[0] == "/"
        self._send_versioned(body, "text/html" if is_page else "application/json", not is_page)

    def _send_versioned(self, body: bytes, kind: str, is_compressed: bool) -> None:
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        if self.headers.get("If-None-Match") == tag:
            self._send(HTTPStatus.NOT_MODIFIED, b"", kind, tag)
        else:
            self._send(HTTPStatus.OK, body, kind, tag, is_compressed=is_compressed)

    def _send(
        self,
        status: HTTPStatus,
        body: bytes,
        kind: str,
        tag: str | None = None,
        *,
        is_compressed: bool = False,
    ) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            **({"ETag": tag} if tag else {}),
            **({"Content-Encoding": "gzip"} if is_compressed else {}),
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of single requests."""
