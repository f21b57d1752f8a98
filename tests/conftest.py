"""Fixtures that every folder of tests uses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = Path(os.environ.get("TEXTGYM_SHARED_DATA", ROOT.parent / "shared" / "data"))
THIRD_PARTY = ROOT / "tests" / "third_party"
collect_ignore = ["third_party"]  # has a project of its own, which is not installed here


def pytest_configure() -> None:
    """Let Ctrl-C reach the processes of tests also where the tests run in the background.

    A shell without job control starts them with SIGINT ignored, which every child inherits.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """Return the path of a file of real data; skip the test where the data is not at hand."""

    def find(name: str) -> Path:
        path = SHARED_DATA / name
        if not path.exists():
            pytest.skip(f"real data '{name}' is not at {SHARED_DATA} (set TEXTGYM_SHARED_DATA)")
        return path

    return find


class ChatServer(ThreadingHTTPServer):
    """An OpenAI-compatible endpoint whose model is the function `reply` of a request's body.

    It returns the text of an answer, an HTTP status, or the bytes of a whole body.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _ChatHandler)
        self.reply: Callable[[dict[str, Any]], str | int | bytes] = lambda body: 500
        self.bodies: list[dict[str, Any]] = []
        self.requests: list[tuple[str, str | None]] = []
        """Path and authorisation of each."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _ChatHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ChatServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        self.server.requests.append((self.path, self.headers["Authorization"]))
        reply = self.server.reply(body)
        message = {"role": "assistant", "content": reply if isinstance(reply, str) else ""}
        usage = {"prompt_tokens": 5, "completion_tokens": 7}
        answer = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
        content = reply if isinstance(reply, bytes) else json.dumps(answer).encode()
        self.send_response(reply if isinstance(reply, int) else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[HTTPServer], None]]:
    """Return a function that runs a server beside the test, and ends it afterwards."""
    with ExitStack() as stack:

        def start(server: HTTPServer) -> None:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            stack.callback(server.server_close)
            stack.callback(thread.join)
            stack.callback(server.shutdown)

        yield start


@pytest.fixture
def endpoint(serve: Callable[[HTTPServer], None]) -> ChatServer:
    """A local endpoint; set its `reply`."""
    server = ChatServer()
    serve(server)
    return server


@pytest.fixture(scope="session")
def build_wheel(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Return a function that builds the wheel of a project offline and returns its path."""

    def build(project: Path) -> Path:
        wheels = tmp_path_factory.mktemp("wheels")
        source = project
        if project != ROOT:  # a build may leave files behind
            source = shutil.copytree(project, tmp_path_factory.mktemp("source") / project.name)
        pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, source)
        (wheel,) = wheels.glob("*.whl")
        return wheel

    return build


@pytest.fixture(scope="session")
def brevity_wheel(build_wheel: Callable[[Path], Path]) -> Path:
    """The wheel of a third party's plugin, which offers the reward `brevity`."""
    return build_wheel(THIRD_PARTY / "textgym-brevity")


@pytest.fixture(scope="session")
def brevity_site(brevity_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the plugin is installed: with it in PYTHONPATH, a new process finds it."""
    site = tmp_path_factory.mktemp("site")
    pip("install", "--no-deps", "--target", site, brevity_wheel)
    return site


def pip(command: str, *arguments: str | Path, python: Path | str = sys.executable) -> None:
    """Run pip; what it prints is in the message where it fails."""
    options = ["--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [python, "-m", "pip", command, *options, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"pip {command} {' '.join(map(str, arguments))}:\n{done.stdout}"
