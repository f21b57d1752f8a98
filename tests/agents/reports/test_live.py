"""`textgym report --serve`: only for this machine, and as new as the run."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from textgym.errors import ConfigError
from textgym_agents.reports.live import LiveRuns, make_server

MakeRun = Callable[..., Path]
MakeRecord = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, make_run: MakeRun, make_record: MakeRecord) -> Path:
    return make_run(tmp_path / "run", iteration_0000001=[make_record(i) for i in range(3)])


@pytest.fixture
def port(run: Path) -> Iterator[int]:
    """The port of a server that shows the run."""
    with make_server(LiveRuns([run]), 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()


def ask(port: int, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    if answer.headers.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    return answer.status, dict(answer.headers), body


def test_the_runs_and_the_report_are_answered(port: int) -> None:
    status, headers, body = ask(port, "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b'id="payload"></script>' in body
    status, headers, body = ask(port, "/runs")
    found = json.loads(body)
    assert (status, found["found"], found["runs"][0]["done"]) == (200, 3, 4)
    assert ask(port, "/runs", **{"If-None-Match": headers["ETag"]})[0] == 304
    head, *tokens = ask(port, "/report")[2].split(b"\n")
    assert (json.loads(head)["rollouts"]["count"], len(tokens)) == (3, 3)
    assert ask(port, "/../config.yaml")[0] == 404


@pytest.mark.parametrize("host", ["evil.example:80", "evil.example", "127.0.0.1.evil.example:1"])
def test_other_names_of_this_machine_are_refused(port: int, host: str) -> None:
    for path in ("/", "/runs", "/report"):
        status, _, body = ask(port, path, Host=host)
        assert (status, body) == (403, b"this page is for this machine alone")


def test_a_run_that_went_away_is_an_answer(port: int, run: Path) -> None:
    run.rename(run.with_name("moved"))
    status, _, body = ask(port, "/runs")
    assert status == 503
    assert b"no such folder" in body


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="leave it out for a free one"):
            make_server(LiveRuns([]), taken.getsockname()[1])


def test_the_default_port_gives_way_to_a_free_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with make_server(LiveRuns([]), 0) as first:
        monkeypatch.setattr("textgym_agents.reports.live.PORT", first.server_address[1])
        with make_server(LiveRuns([]), None) as second:
            assert second.server_address[1] != first.server_address[1]


def test_the_page_follows_the_run(
    browser: Any, port: int, run: Path, make_record: MakeRecord
) -> None:
    page = browser.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"http://127.0.0.1:{port}/")
    page.wait_for_selector("#live:text-is('live')")
    page.wait_for_selector("#count:text-is('3 rollouts')")
    row = {"phase": "evaluation", "iteration": 5, "evaluation/greedy": 0.875}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    (run / "rollouts" / "iteration-0000002.jsonl").write_text(json.dumps(make_record(9)) + "\n")
    page.wait_for_selector("#headlines :text-is('87.5 %')")
    page.click("#fresh:text-is('1 new rollout: show')")
    page.wait_for_selector("#count:text-is('4 rollouts')")
    run.rename(run.with_name("moved"))
    page.wait_for_selector("#live.lost:has-text('no such folder')")
    assert complaints == []
    page.close()


def test_ctrl_c_ends_the_server(run: Path) -> None:
    command = [sys.executable, "-m", "textgym", "report"]
    process = subprocess.Popen(
        [*command, "--serve", str(run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    match = re.match(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())
    assert match is not None
    assert ask(int(match[1]), "/")[0] == 200
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")
