"""The card of an exported policy: what it learnt from, how, and what it scored.

Metadata are those of the hub (`huggingface_hub.ModelCardData`): base model, tags, and the results
as a model index. Folders and files are told by their names, not where they lay.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from textgym.config import read_yaml
from textgym.errors import ConfigError
from textgym.item_files import read_metrics, suite_folders
from textgym.items import Metric
from textgym_agents.lm.shapes import BUILT_IN
from textgym_agents.run.directory import STATE_FILE, RunDirectory, rows_of

FROM_RUN = "held-out prompts of the run"
EVALUATED = (
    ("evaluation/greedy", "accuracy", "greedy"),
    ("evaluation/sampled", "accuracy", "sampled"),
    ("evaluation/greedy_reward", "reward", "greedy"),
    ("evaluation/sampled_reward", "reward", "sampled"),
    ("evaluation/loss", "loss", "nats per token"),
)
"""Metric of the run, its kind for the model index, and how it was measured."""
ALGORITHMS = {"sft": "supervised fine-tuning", "dpo": "direct preference optimisation"}
LEFT_OUT = (
    "env", "data", "evaluation", "engine", "reference", "report_to", "kind", "device", "threads",
)  # fmt: skip
"""Sections that are no part of the recipe, or are told elsewhere on the card."""


class Score(NamedTuple):
    """A figure on a set of prompts."""

    dataset: str
    name: str
    kind: str
    value: float
    before: float | None = None
    """What the run began with."""
    metric: Metric | None = None
    """With its interval, where there is one."""


def make_card(run: RunDirectory, checkpoint: Path, *, name: str, is_adapter: bool) -> str:
    """Return README.md for the policy of a checkpoint.

    Args:
        run: the run.
        checkpoint: what is exported of it.
        name: of the model.
        is_adapter: whether the folder holds an adapter and not the whole model.
    """
    from huggingface_hub import EvalResult, ModelCardData

    config = read_yaml(run.path / "config.yaml")
    scores = [*run_scores(run, checkpoint), *suite_scores(run, checkpoint)]
    base = hub_base(config)
    data = ModelCardData(
        base_model=base,
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["textgym", run.kind if run.kind in ALGORITHMS else _estimator(config)],
        model_name=name,
        eval_results=[
            EvalResult(
                task_type="text-generation",
                dataset_type=score.dataset.replace(" ", "-"),
                dataset_name=score.dataset,
                metric_type=score.kind,
                metric_name=score.name,
                metric_value=score.value,
            )
            for score in scores
        ]
        or None,
    )
    parts = [
        f"---\n{data.to_yaml()}\n---\n\n# {name}\n",
        _introduction(run, config, checkpoint, base),
        f"## Data\n\n{_data(run.kind, config)}",
        f"## Recipe\n\n{_recipe(run, config, _iteration(checkpoint))}",
        f"## Scores\n\n{_scores(scores)}",
    ]
    return "\n".join(parts)


def hub_base(config: Mapping[str, Any]) -> str | None:
    """Return the hub id that a run, or the runs before it, began with; None if it is local."""
    model = str(config.get("policy", {}).get("model", "tiny"))
    if model in BUILT_IN:
        return None
    before = Path(model) / "config.yaml"
    if before.exists():
        return hub_base(read_yaml(before)) if "policy" in read_yaml(before) else None
    return None if Path(model).exists() else model


def run_scores(run: RunDirectory, checkpoint: Path) -> Iterator[Score]:
    """Yield what the run measured last before the checkpoint, on prompts it had not learnt from."""
    iteration = _iteration(checkpoint)
    rows = [r for r in rows_of(run.read_metrics(), "evaluation") if r["iteration"] <= iteration]
    if not rows:
        return
    for key, kind, how in EVALUATED:
        value = rows[-1].get(key)
        if value is not None:
            before = rows[0].get(key) if len(rows) > 1 else None
            yield Score(FROM_RUN, f"{kind}, {how}", kind, float(value), before)


def _iteration(checkpoint: Path) -> int:
    return int(json.loads((checkpoint / STATE_FILE).read_text())["iteration"])


def suite_scores(run: RunDirectory, checkpoint: Path) -> Iterator[Score]:
    """Yield what `textgym evaluate RUN --suite` found for the checkpoint."""
    try:
        folders = suite_folders(run.path / "evaluation" / checkpoint.name)
    except ConfigError:  # none was evaluated
        return
    for suite, folder in folders.items():
        for name, metric in (read_metrics(folder) or {}).items():
            if metric.count:
                kind = "accuracy" if name.partition("/")[0] == "success" else name
                yield Score(suite, name, kind, metric.value, metric=metric)


def _estimator(config: Mapping[str, Any]) -> str:
    kind = config.get("ppo", {}).get("estimator", {}).get("kind", "gae")
    return "ppo" if kind == "gae" else str(kind)


def _introduction(
    run: RunDirectory, config: Mapping[str, Any], checkpoint: Path, base: str | None
) -> str:
    algorithm = ALGORITHMS.get(run.kind, _estimator(config).upper())
    began = f"[{base}](https://huggingface.co/{base})" if base else f"`{_model_name(config)}`"
    return f"{began}, trained with textgym by {algorithm}; checkpoint `{checkpoint.name}`.\n"


def _model_name(config: Mapping[str, Any]) -> str:
    model = str(config.get("policy", {}).get("model", "tiny"))
    return Path(model).name if Path(model).exists() else model


def _data(kind: str, config: Mapping[str, Any]) -> str:
    env, data = config.get("env", {}), config.get("data") or {}
    lines = [f"- environment: `{env.get('id')}`"]
    if data.get("file"):
        lines.append(f"- rows: `{Path(data['file']).name}`")
    else:
        lines.append(f"- prompts: {_shown(env.get('prompts') or 'the default of the environment')}")
    if kind == "train":
        lines.append(f"- reward: {_shown(env.get('reward') or 'the one that each prompt names')}")
        start = config.get("cold_start") or {}
        if start:
            source = start.get("demonstrations")
            shown = f"`{Path(source).name}`" if source else "targets of the prompts"
            lines.append(
                f"- cold start: {start['steps']} steps on {shown}, of which "
                f"{start['wrong_share']:.0%} were made wrong"
            )
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    """Return a value as code; the names of files without their folders."""
    if isinstance(value, str) and Path(value).exists():
        value = Path(value).name
    return f"`{value if isinstance(value, str) else json.dumps(value, default=str)}`"


def _recipe(run: RunDirectory, config: Mapping[str, Any], iteration: int) -> str:
    packages = {}
    if (path := run.path / "environment.json").exists():
        packages = json.loads(path.read_text())["packages"]
    versions = ", ".join(f"{n} {v}" for n, v in packages.items() if v is not None)
    values = {k: v for k, v in config.items() if k not in LEFT_OUT}
    rows = [f"| `{name}` | {value} |" for name, value in _flat(values)]
    table = "\n".join(["| setting | value |", "|---|---|", *rows])
    unit = "steps" if run.kind in ALGORITHMS else "iterations"
    done = f"{iteration} {unit}, seed {config.get('seed')}; {versions}."
    return f"{done}\n\n{table}\n"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None and value != []:
            is_path = isinstance(value, str) and Path(value).is_absolute()
            yield f"{prefix}{name}", Path(value).name if is_path else str(value)


def _scores(scores: list[Score]) -> str:
    if not scores:
        return "Not measured.\n"
    lines = ["| prompts | metric | before | value | 95 % |", "|---|---|---|---|---|"]
    for s in scores:
        before = "" if s.before is None else f"{s.before:.4g}"
        interval = "" if s.metric is None else f"{s.metric.low:.4g} to {s.metric.high:.4g}"
        lines.append(f"| {s.dataset} | {s.name} | {before} | {s.value:.4g} | {interval} |")
    return "\n".join(lines) + "\n"
