"""`textgym serve rewards|executor|reference|chat`: a service on HTTP; docs/services.md."""

from __future__ import annotations

import argparse
import json
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textgym.cli.command import Command
from textgym.config import merge, parse_override, read_yaml
from textgym.errors import ConfigError
from textgym.make import make_rubric
from textgym.scoring import Scorer
from textgym.serve.settings import Limits, check_exposure, read_token

if TYPE_CHECKING:
    from textgym.serve.app import AnyService
    from textgym.serve.chat import ChatService
    from textgym.serve.reference import ReferenceService
    from textgym.serve.services import ScoringService

_DEFAULTS = Limits()


def configure(parser: ArgumentParser) -> None:
    """Add the arguments of `textgym serve`."""
    services = parser.add_subparsers(dest="service", required=True, metavar="SERVICE")
    rewards = services.add_parser("rewards", help="score samples", allow_abbrev=False)
    rewards.add_argument("--reward", help="a reward by name, or module:function")
    rewards.add_argument(
        "--rubric", type=Path, metavar="FILE", help="a YAML file with rewards, weights and routes"
    )
    executor = services.add_parser("executor", help="run programs in the sandbox")
    for each in (rewards, executor):
        each.add_argument(
            "--set", dest="overrides", action="append", default=[], metavar="FIELD=VALUE",
            help="set a field of the reward; can be repeated",
        )  # fmt: skip
        each.add_argument(
            "--workers", type=_positive, default=os.cpu_count() or 1, metavar="N",
            help="worker processes of a reward that needs isolation",
        )  # fmt: skip
    reference = services.add_parser("reference", help="log-probabilities under a model")
    reference.add_argument("--model", type=Path, required=True, metavar="FOLDER")
    reference.add_argument("--device", help="as torch names it (default: a GPU if there is one)")
    reference.add_argument("--dtype", choices=["float32", "bfloat16", "float16"])
    reference.add_argument(
        "--max-tokens", type=_positive, default=8192, metavar="N",
        help="padded tokens of one pass through the model",
    )  # fmt: skip
    chat = services.add_parser("chat", help="chat completions of a small model")
    chat.add_argument("--model", type=Path, required=True, metavar="FOLDER")
    chat.add_argument("--device", help="as torch names it (default: a GPU if there is one)")
    for each in (rewards, executor, reference, chat):
        _add_common(each)
    chat.set_defaults(threads=64)  # they wait for one another, and are answered together


def run(arguments: Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    token = read_token(file=arguments.token_file, env=arguments.token_env)
    check_exposure(arguments.host, token)
    from textgym.serve.app import create_app  # FastAPI, for those who serve
    from textgym.serve.run import listen, run_app

    bound = listen(arguments.host, arguments.port)
    service = _MODELS.get(arguments.service, _scoring)(arguments)
    app = create_app(service, limits=_limits(arguments), token=token)
    host, port = bound.getsockname()[:2]
    started = {
        "service": service.name,
        "title": service.title,
        "fingerprint": service.fingerprint,
        "url": f"http://{f'[{host}]' if ':' in host else host}:{port}",
        "token": token is not None,
    }
    print(json.dumps(started), flush=True)
    run_app(app, bound)
    return 0


def _add_common(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    add("--port", type=int, default=8080, help="port (default: 8080); 0 takes a free one")
    add("--token-file", type=Path, metavar="FILE", help="a file that holds the bearer token")
    add("--token-env", metavar="NAME", help="an environment variable that holds it")
    add("--max-body-mib", type=_positive, default=_DEFAULTS.max_body_bytes >> 20, metavar="MIB",
        help="size of a request (default: %(default)s)")  # fmt: skip
    add("--max-items", type=_positive, default=_DEFAULTS.max_items, metavar="N",
        help="samples or sequences of a request (default: %(default)s)")  # fmt: skip
    add("--time-limit", type=_seconds, default=_DEFAULTS.time_limit, metavar="SECONDS",
        help="work on a request before it is answered with 504 (default: %(default)s)")  # fmt: skip
    add("--threads", type=_positive, default=_DEFAULTS.num_threads, metavar="N",
        help="requests worked on at once (default: %(default)s)")  # fmt: skip
    add("--max-pending", type=_positive, default=_DEFAULTS.max_pending, metavar="N",
        help="requests worked on or waiting (default: %(default)s)")  # fmt: skip
    add("--window", type=_seconds, default=_DEFAULTS.window, metavar="SECONDS",
        help="how long answers are kept by X-Request-Id (default: %(default)s)")  # fmt: skip


def _limits(arguments: Namespace) -> Limits:
    return Limits(
        max_body_bytes=arguments.max_body_mib << 20,
        max_items=arguments.max_items,
        time_limit=arguments.time_limit,
        num_threads=arguments.threads,
        max_pending=arguments.max_pending,
        window=arguments.window,
    )


def _scoring(arguments: Namespace) -> ScoringService:
    from textgym.serve.services import ScoringService

    if arguments.service == "executor":
        rubric = make_rubric({"reward": "code", "config": _config(arguments.overrides)})
        return ScoringService(Scorer(rubric, num_workers=arguments.workers), name="executor")
    if (arguments.reward is None) == (arguments.rubric is None):
        raise ConfigError(
            "give --reward NAME or --rubric FILE: a service scores with fixed rewards"
        )
    if arguments.rubric is None:
        spec = {"reward": arguments.reward, "config": _config(arguments.overrides)}
    elif arguments.overrides:
        raise ConfigError("--set is for --reward; with --rubric the file holds the fields")
    else:
        spec = read_yaml(arguments.rubric)
    rubric = make_rubric(spec)
    if not rubric.rewards:
        raise ConfigError(
            f"--rubric {arguments.rubric} has no 'rewards' of its own; prompts come from elsewhere "
            "and may not name what scores them"
        )
    return ScoringService(Scorer(rubric, num_workers=arguments.workers))


def _reference(arguments: Namespace) -> ReferenceService:
    from textgym.serve.reference import ReferenceService

    return ReferenceService(
        arguments.model,
        device=arguments.device,
        dtype=arguments.dtype,
        max_tokens=arguments.max_tokens,
    )


def _chat(arguments: Namespace) -> ChatService:
    from textgym.serve.chat import ChatService

    return ChatService(arguments.model, device=arguments.device)


_MODELS: dict[str, Callable[[Namespace], AnyService]] = {"reference": _reference, "chat": _chat}


def _config(overrides: list[str]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for override in overrides:
        config = merge(config, parse_override(override))
    return config


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no positive number of seconds")
    return value


COMMAND = Command("serve rewards, the executor or a model on HTTP", configure, run)
