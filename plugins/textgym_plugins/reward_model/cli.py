"""`textgym reward-model`: train a reward model on preference pairs, evaluate it, make pairs."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from textgym import Score, make_prompt_source, plugin_manager
from textgym.cli.command import Command
from textgym.cli.output import console, print_json, table
from textgym.config import merge, parse_override
from textgym.errors import ConfigError
from textgym.prompt_files import summarise
from textgym.validation import explain
from textgym_plugins.models.missing import missing_package
from textgym_plugins.reward_model.corruption import with_damaged
from textgym_plugins.reward_model.evaluation import Evaluation, Head, Share, evaluate_pairs
from textgym_plugins.reward_model.pairs import (
    PairFile,
    check_heads,
    pairs_from_demonstrations,
    pairs_from_verdicts,
    read_pairs,
    split_pairs,
    write_pairs,
)
from textgym_plugins.reward_model.reward import RewardModel, load_judge
from textgym_plugins.reward_model.spec import FILE

if TYPE_CHECKING:
    from textgym_plugins.reward_model.trl_adapter import Progress as StepProgress

_CHUNK = 64


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the three sub-commands and their arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _configure_train(actions.add_parser("train", help="train on preference pairs"))
    evaluate = actions.add_parser("evaluate", help="accuracy, calibration and length bias on pairs")
    evaluate.add_argument("model", help="a folder or a hub id")
    evaluate.add_argument("pairs", type=Path, metavar="PAIRS.jsonl", help="preference pairs")
    evaluate.add_argument("--max-tokens", type=int, help="longest conversation")
    evaluate.add_argument("--device", default="auto", help="auto, cpu or cuda")
    evaluate.add_argument("--json", action="store_true", help="print JSON")
    _configure_pairs(actions.add_parser("pairs", help="make pairs of completions that differ"))


def _configure_train(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("pairs", type=Path, metavar="PAIRS.jsonl", help="prompt, chosen, rejected[, margin, head]")
    add("--model", help="tiny (default), a folder or a hub id")
    add("--run", type=Path, required=True, metavar="DIR", help="the folder of the new model")
    add("--heads", help="signals, e.g. helpfulness,brevity or helpfulness=0.9,brevity=0.1")
    add("--gated", action="store_true", help="weights of the heads depend on the prompt")
    add("--held-out", type=float, default=0.1, metavar="SHARE",
        help="share of the prompts to evaluate on (default: 0.1)")  # fmt: skip
    add("--epochs", type=float, help="passes over the pairs (default: 1)")
    add("--batch-size", type=int, help="pairs per step (default: 16)")
    add("--learning-rate", type=float, help="default: 1e-3 for tiny, else 1e-5")
    add("--max-tokens", type=int, help="longest conversation (default: 2048)")
    add("--seed", type=int, help="seed of heads and order (default: 0)")
    add("--device", help="auto (default), cpu or cuda")
    add("--json", action="store_true", help="print JSON")


def _configure_pairs(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("completions", metavar="SOURCE",
        help="a completion file with verdicts, or a prompt source with demonstrations")  # fmt: skip
    add("pairs", type=Path, metavar="PAIRS.jsonl", help="the file to write")
    add("--set", dest="overrides", action="append", default=[], metavar="FIELD=VALUE",
        help="set a field of the prompt source; can be repeated")  # fmt: skip
    add("--most", type=int, default=16, help="pairs per prompt (default: 16)")
    add("--damaged", type=int, default=0, metavar="N",
        help="more pairs per chosen completion, with damaged copies of it as rejected")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Run the sub-command that was called."""
    return {"train": run_train, "evaluate": run_evaluate, "pairs": run_pairs}[arguments.action](
        arguments
    )


def run_train(arguments: argparse.Namespace) -> int:
    """Train, save and evaluate on the prompts that were held out."""
    if (arguments.run / FILE).exists():
        raise ConfigError(f"{arguments.run} holds a reward model already; choose another --run")
    if not 0 <= arguments.held_out < 1:
        raise ConfigError(f"--held-out is {arguments.held_out}; it must be from 0 to below 1")
    file = _read(arguments.pairs)
    pairs, held_out = split_pairs(file.pairs, arguments.held_out)
    try:
        from transformers.utils import logging as transformers_logging

        from textgym_plugins.reward_model import training
    except ModuleNotFoundError as error:
        raise missing_package(error, "a reward model") from error
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    config = _config(training.RewardTrainConfig, arguments)
    arguments.run.mkdir(parents=True, exist_ok=True)
    with _bar() as progress:
        trained = training.train(pairs, config, folder=arguments.run, progress=progress)
    training.save_reward_model(trained.model, arguments.run)
    lines = "".join(json.dumps(row) + "\n" for row in trained.log)
    (arguments.run / "metrics.jsonl").write_text(lines, encoding="utf-8")
    (arguments.run / "train.json").write_text(config.model_dump_json(indent=2) + "\n")
    counts = {
        "train_pairs": len(pairs) - trained.num_dropped,
        "held_out_pairs": len(held_out),
        "malformed": len(file.problems),
        "truncated": trained.num_truncated,
        "dropped": trained.num_dropped,
        "steps": trained.steps,
    }
    if trained.is_interrupted:
        print(f"stopped after {trained.steps} steps; {arguments.run} is usable", file=sys.stderr)
        raise KeyboardInterrupt
    evaluation = None
    if held_out:
        reward = RewardModel(model=str(arguments.run), device=config.device)
        evaluation = _evaluate(reward, PairFile(tuple(held_out)))
    if arguments.json:
        print_json({**counts, "held_out": _as_json(evaluation) if evaluation else None})
    else:
        console().print(table(str(arguments.run), ("", "count"), counts.items()))
        if evaluation:
            _print(evaluation, "held-out pairs")
    return 0


def run_evaluate(arguments: argparse.Namespace) -> int:
    """Print the report of a model on a file of pairs."""
    given = {"model": arguments.model, "device": arguments.device}
    if arguments.max_tokens is not None:
        given["max_tokens"] = arguments.max_tokens
    reward = _validated(RewardModel, given)
    file = _read(arguments.pairs)
    evaluation = _evaluate(reward, file)
    if arguments.json:
        print_json({**_as_json(evaluation), "malformed": len(file.problems)})
    else:
        _print(evaluation, f"{arguments.model} on {arguments.pairs}")
    return 0


def run_pairs(arguments: argparse.Namespace) -> int:
    """Write pairs of a file of completions, or of the demonstrations of a prompt source."""
    if arguments.most < 1:
        raise ConfigError(f"--most is {arguments.most}; it must be at least 1")
    if arguments.damaged < 0:
        raise ConfigError(f"--damaged is {arguments.damaged}; it must not be negative")
    file = _pairs_of(arguments.completions, arguments.overrides, arguments.most)
    _report_problems(file)
    pairs = with_damaged(file.pairs, arguments.damaged)
    try:
        write_pairs(arguments.pairs, pairs)
    except OSError as error:
        raise ConfigError(f"{arguments.pairs}: {error.strerror}") from None
    prompts = len({pair.prompt.text for pair in pairs})
    print(f"{arguments.pairs}: {len(pairs)} pairs of {prompts} prompts")
    return 0


def _pairs_of(name: str, overrides: Sequence[str], most: int) -> PairFile:
    """Return the pairs of a file, or of the prompt source that has this name and no such file."""
    if Path(name).exists() or name not in plugin_manager().prompt_sources:
        if overrides:
            raise ConfigError(f"--set is for prompt sources, and '{name}' is none; remove it")
        return pairs_from_verdicts(name, most=most)
    config: dict[str, Any] = {}
    for override in overrides:
        config = merge(config, parse_override(override))
    return pairs_from_demonstrations(make_prompt_source(name, **config), most=most)


def _evaluate(reward: RewardModel, file: PairFile) -> Evaluation:
    """Score both sides of each pair, showing progress on a terminal."""
    spec = load_judge(reward.model, reward.device, reward.max_tokens).model.spec
    check_heads(file.pairs, spec.heads)
    samples = [sample for pair in file.pairs for sample in pair.samples]
    scores: list[Score] = []
    with _bar("scoring") as progress:
        for start in range(0, len(samples), _CHUNK):
            scores += reward.evaluate(samples[start : start + _CHUNK])
            progress(len(scores), len(samples), {})
    return evaluate_pairs(file.pairs, scores[::2], scores[1::2], scale=spec.std)


def _read(path: Path) -> PairFile:
    file = read_pairs(path)
    _report_problems(file)
    return file


def _report_problems(file: PairFile) -> None:
    if file.problems:
        print(f"warning: skipped {summarise(file.problems)}", file=sys.stderr)


def _config(kind: type[Any], arguments: argparse.Namespace) -> Any:
    names = ("model", "epochs", "batch_size", "learning_rate", "max_tokens", "seed", "device")
    given = {n: getattr(arguments, n) for n in names if getattr(arguments, n) is not None}
    if arguments.heads:
        signals = [signal.partition("=") for signal in arguments.heads.split(",")]
        given["heads"] = tuple(name.strip() for name, _, _ in signals)
        if any(equals for _, equals, _ in signals):
            given["weights"] = tuple(weight for _, _, weight in signals)
    return _validated(kind, {**given, "gated": arguments.gated})


def _validated(kind: type[Any], given: Mapping[str, Any]) -> Any:
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise ConfigError(explain(error, kind, given)[0][1]) from None


@contextmanager
def _bar(name: str = "training") -> Iterator[StepProgress]:
    """Yield what moves a bar on a terminal."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(
        *columns,
        TextColumn("{task.fields[numbers]}"),
        TimeRemainingColumn(),
        console=console(sys.stderr),
        disable=not sys.stderr.isatty(),
    ) as progress:
        task = progress.add_task(name, total=None, numbers="")

        def show(step: int, total: int, metrics: Mapping[str, float]) -> None:
            shown = [f"{k} {metrics[k]:.3f}" for k in ("loss", "accuracy") if k in metrics]
            progress.update(task, completed=step, total=total, numbers="  ".join(shown))

        yield show


def _print(evaluation: Evaluation, title: str) -> None:
    rows = [
        ("pairwise accuracy", _shown(evaluation.accuracy)),
        ("  chosen shorter", _shown(evaluation.accuracy_chosen_shorter)),
        ("  chosen longer", _shown(evaluation.accuracy_chosen_longer)),
        ("calibration error", f"{evaluation.calibration_error:.3f}"),
        ("correlation with length", f"{evaluation.length_correlation:+.3f}"),
        ("completions cut", evaluation.truncated),
        ("pairs not scored", evaluation.unscored),
    ]
    console().print(table(title, ("", "value"), rows))
    if evaluation.heads:
        heads = [
            (name, _brief(head.own_accuracy), _brief(head.accuracy),
             f"{head.length_correlation:+.3f}", f"{head.weight:.3f}")
            for name, head in evaluation.heads.items()
        ]  # fmt: skip
        columns = ("head", "its own pairs", "all others", "with length", "mean weight")
        console().print(table(f"heads of {title}", columns, heads))


def _brief(share: Share) -> str:
    return f"{share.value:.1%} of {share.total}" if share.total else "no pairs"


def _shown(share: Share) -> str:
    interval = f" (95 % interval {share.low:.1%} to {share.high:.1%})" if share.total else ""
    return _brief(share) + interval


def _as_json(value: Any) -> Any:
    """Return a report as JSON has it: nan, which JSON has not, is null."""
    if isinstance(value, Share):
        interval = [_as_json(value.low), _as_json(value.high)]
        return {"value": _as_json(value.value), "total": value.total, "interval": interval}
    if isinstance(value, Evaluation | Head):
        value = value._asdict()
    if isinstance(value, dict):
        return {name: _as_json(each) for name, each in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


reward_model = Command("train or evaluate a reward model", configure, run)
