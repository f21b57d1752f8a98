"""`textgym report`: the page of one run, of several side by side, or of runs that still train."""

from __future__ import annotations

import argparse
from pathlib import Path

from textgym.cli.command import Command
from textgym.cli.output import console
from textgym.errors import ConfigError
from textgym_agents.reports.rollout_table import MOST_ROLLOUTS


def _configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    add("--out", type=Path, metavar="FILE", help="the page (default: report.html in the run)")
    add("--rollouts", type=int, default=MOST_ROLLOUTS, metavar="N",
        help="rollouts on the page, evenly spread (default: %(default)s)")  # fmt: skip
    add("--serve", action="store_true", help="show it on this machine while the runs train")
    add("--port", type=int, help="port of --serve (default: 8384, or a free one)")


def _run(args: argparse.Namespace) -> int:
    """Write the page, or serve it until Ctrl-C."""
    _check(args)
    if args.serve:
        return _serve(args)
    from textgym_agents.reports.writing import write_report

    try:
        path = write_report(args.runs, args.out, most_rollouts=args.rollouts)
    except OSError as error:
        place = args.out or args.runs[0]
        raise ConfigError(
            f"the report cannot be written to {place}: {error.strerror}; choose another --out"
        ) from None
    console().print(f"report: {path}", soft_wrap=True)
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.rollouts < 0:
        raise ConfigError(f"--rollouts {args.rollouts}: expected 0 or more")
    if args.serve and args.out is not None:
        raise ConfigError("--out names a file to write; --serve writes none, leave one of them out")
    if args.port is not None and not args.serve:
        raise ConfigError("--port goes with --serve")
    if args.port is not None and not 0 <= args.port <= 65535:
        raise ConfigError(f"--port {args.port}: expected 0 to 65535")
    if len(args.runs) > 1 and args.out is None and not args.serve:
        raise ConfigError("--out is missing: say where the page of several runs is to be")


def _serve(args: argparse.Namespace) -> int:
    from textgym_agents.reports.live import HOST, LiveRuns, make_server
    from textgym_agents.reports.reading import read_run

    for path in args.runs:
        read_run(path)
    runs = LiveRuns(args.runs, most_rollouts=args.rollouts)
    with make_server(runs, args.port) as server:
        port = server.server_address[1]
        console().print(f"http://{HOST}:{port}/  (Ctrl-C ends it)", soft_wrap=True)
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            print()
    return 0


report = Command("write the page of a run, or of several side by side", _configure, _run)
