"""`textgym evaluate MODEL --suite NAME`: benchmark suites from the command line."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from pydantic import JsonValue, TypeAdapter, ValidationError
from rich.console import Console

from textgym.chat_endpoint import ChatEndpoint
from textgym.config import merge, parse_override
from textgym.errors import ConfigError
from textgym.item_files import metrics_record
from textgym.items import Metric
from textgym_agents.cli.arguments import engine_of
from textgym_agents.evaluation.answerers import Answerer
from textgym_agents.evaluation.reward_judge import RewardJudge, reward_of
from textgym_agents.evaluation.scripts import script_of
from textgym_agents.evaluation.suite import evaluate_suite
from textgym_agents.evaluation.suites import Suite, find_suites
from textgym_agents.evaluation.table import metrics_table
from textgym_agents.run.directory import RunDirectory
from textgym_agents.run.progress import ConsoleProgress

EVALUATIONS = Path("evaluations")
OF_SUITES = (
    "data", "samples", "temperature", "limit", "endpoint", "endpoint_model", "endpoint_key_env",
    "judge", "judge_model", "judge_key_env", "out", "max_new_tokens", "max_length",
)  # fmt: skip
"""Arguments that mean nothing without a suite."""


def add_suite_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of suites to the parser of `textgym evaluate`."""
    add = parser.add_argument_group("benchmark suites").add_argument
    add("--suite", action="append", dest="suites", metavar="NAME[,NAME]",
        help="suites, or groups such as all-tiny; `textgym plugins` lists them")  # fmt: skip
    add("--data", help="folder, file or hub id of the suites' rows")
    add("--samples", type=int, help="answers per prompt (default 1)")
    add("--temperature", type=float, help="0, the default, for the most likely tokens")
    add("--limit", type=int, help="answer this many prompts of each suite")
    add("--max-new-tokens", type=int, help="longest answer (default: the suite's own limit)")
    add("--max-length", type=int, help="prompt and answer together (default 4096 tokens)")
    add("--endpoint", metavar="URL", help="ask an OpenAI-compatible endpoint, up to its /v1")
    add("--endpoint-model", metavar="NAME", help="the model's name there (default: MODEL)")
    add("--endpoint-key-env", metavar="NAME", help="the environment variable that holds its key")
    add("--judge", metavar="URL", help="the endpoint of the judge, for suites that need one")
    add("--judge-model", metavar="NAME", help="the judge's name there")
    add("--judge-key-env", metavar="NAME", help="the environment variable that holds its key")
    add("--out", type=Path, help="folder of the answers (default: beside the run's checkpoints, or "
        "evaluations/MODEL)")  # fmt: skip


def run_suites(args: argparse.Namespace) -> None:
    """Answer the suites, and print their metrics."""
    for name in ("prompts", "episodes"):
        if getattr(args, name) is not None:
            raise ConfigError(f"--{name} is not for suites, which have prompts of their own")
    out = args.out or _default_folder(args)
    suites = [_changed(args, s) for s in find_suites(args.suites, args.data, downloads=out)]
    answerer = _answerer(args)
    console = Console(stderr=args.json)
    metrics: dict[str, dict[str, Metric]] = {}
    try:
        with ConsoleProgress(console) as progress:
            for suite in suites:
                metrics[suite.benchmark.name] = _evaluate(args, suite, answerer, out, progress)
    except KeyboardInterrupt:
        print(f"what was answered is in {out}; the same command goes on", file=sys.stderr)
        raise
    finally:
        if hasattr(answerer, "close"):
            answerer.close()
    if args.json:
        print(json.dumps({name: metrics_record(each) for name, each in metrics.items()}))
    else:
        console.print(metrics_table(args.policy, metrics))
        console.print(f"answers: {out}", highlight=False, soft_wrap=True)


def _evaluate(
    args: argparse.Namespace, suite: Suite, answerer: Answerer, out: Path, progress: ConsoleProgress
) -> dict[str, Metric]:
    return evaluate_suite(
        answerer,
        suite.benchmark,
        out / suite.benchmark.name,
        samples=_positive(args, "samples") or 1,
        temperature=args.temperature or 0.0,
        limit=_positive(args, "limit"),
        seed=args.seed or 0,
        max_new_tokens=_positive(args, "max_new_tokens"),
        data=suite.data,
        progress=progress,
    )


def _changed(args: argparse.Namespace, suite: Suite) -> Suite:
    """Return a suite with the reward of `--reward`, a name or YAML, or the judge of `--judge`."""
    benchmark = suite.benchmark
    if args.reward is not None:
        reward: JsonValue = parse_override(f"reward={args.reward}")["reward"]
        benchmark = benchmark.model_copy(update={"reward": reward})
    if benchmark.needs_judge:
        if args.judge is None or args.judge_model is None:
            raise ConfigError(
                f"the suite '{benchmark.name}' needs a judge: name its endpoint with --judge URL "
                "and its model with --judge-model NAME, or another reward with --reward"
            )
        endpoint = {"url": args.judge, "model": args.judge_model, "api_key_env": args.judge_key_env}
        benchmark = benchmark.judged_by(endpoint)
    return Suite(benchmark, suite.data)


def _answerer(args: argparse.Namespace) -> Answerer:
    """Return who answers: an endpoint, a script, a reward, or a language model."""
    if args.endpoint:
        return _endpoint(args)
    script = script_of(args.policy)
    if script is not None:
        return script
    reward = reward_of(args.policy, args.device or "auto")
    return _language_model(args) if reward is None else RewardJudge(reward)


def _positive(args: argparse.Namespace, name: str) -> int | None:
    value: int | None = getattr(args, name)
    if value is not None and value < 1:
        raise ConfigError(f"--{name.replace('_', '-')} {value}: expected a whole number above 0")
    return value


def _endpoint(args: argparse.Namespace) -> Answerer:
    from textgym_agents.evaluation.endpoint import EndpointAnswerer

    model = args.endpoint_model or args.policy
    try:
        endpoint = ChatEndpoint(
            url=args.endpoint, model=model, api_key_env=args.endpoint_key_env, **_overrides(args)
        )
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        raise ConfigError(f"--endpoint {args.endpoint}: {field}: {problem['msg']}") from None
    return EndpointAnswerer(endpoint)


def _overrides(args: argparse.Namespace) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for override in args.overrides:
        values = merge(values, parse_override(override))
    return values


def _language_model(args: argparse.Namespace) -> Answerer:
    from transformers.utils import logging as transformers_logging

    from textgym_agents.evaluation.language_model import LanguageModel
    from textgym_agents.lm.engines.config import EngineConfig

    transformers_logging.disable_progress_bar()
    given = engine_of(args)
    overrides: dict[str, JsonValue] = {}
    for override in args.overrides:
        name, _, _ = override.partition("=")
        value: JsonValue = parse_override(override)
        for part in name.strip().split("."):
            assert isinstance(value, dict)
            value = value[part]
        overrides[name.strip()] = value
    if args.threads is not None:
        overrides["threads"] = args.threads
    return LanguageModel(
        args.policy,
        engine=None if given is None else TypeAdapter(EngineConfig).validate_python(given),
        max_length=_positive(args, "max_length"),
        device=args.device or "auto",
        overrides=overrides,
    )


def _default_folder(args: argparse.Namespace) -> Path:
    """Return a folder of the policy's own: in a run, of its newest checkpoint."""
    path = Path(args.policy)
    if not args.endpoint and (path / "config.yaml").exists():
        from textgym_agents.lm.checkpoint import find_checkpoint

        return path / "evaluation" / find_checkpoint(RunDirectory.open(path)).name
    name = path.resolve().name if path.exists() else args.policy
    return EVALUATIONS / re.sub(r"[^A-Za-z0-9._-]+", "-", name)
