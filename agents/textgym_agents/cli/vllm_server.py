"""`textgym vllm-server`: a vLLM server that a trainer keeps up to date."""

from __future__ import annotations

import argparse
import os
import shlex

from textgym.cli.command import Command


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="tiny, small, a folder, a hub id, or a run directory")
    parser.add_argument("--host", default="127.0.0.1", help="keep it private: nobody is asked who")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--dtype", default="auto", help="auto, float32 or bfloat16")
    parser.add_argument(
        "--max-length", type=int, default=2048, help="prompt and completion, tokens"
    )
    parser.add_argument("--adapter-rank", type=int, help="make room for adapters of this rank")
    parser.add_argument("--kv-cache-gib", type=float, help="room for keys and values")
    parser.add_argument(
        "--extra", default="", help="more arguments of vLLM's server, in one string"
    )


def run_server(args: argparse.Namespace) -> int:
    """Become the server."""
    from textgym_agents.lm.engines.serve import ServerOptions, server_command

    options = ServerOptions(
        model=args.model,
        host=args.host,
        port=args.port,
        dtype=args.dtype,
        max_length=args.max_length,
        adapter_rank=args.adapter_rank,
        kv_cache_gib=args.kv_cache_gib,
        extra=tuple(shlex.split(args.extra)),
    )
    command, environment = server_command(options)
    os.execve(command[0], command, environment)


vllm_server = Command("start a vLLM server whose weights a trainer sends", _configure, run_server)
