"""What a run came to, in a few figures: its title, before and after, its times, its suites."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from textgym.items import Metric
from textgym_agents.evaluation.table import NUMBERS
from textgym_agents.reports.curves import interval
from textgym_agents.reports.reading import Row, Run, number

_ESTIMATORS = {
    "gae": "PPO", "grpo": "GRPO", "dr_grpo": "Dr. GRPO", "dapo": "DAPO", "rloo": "RLOO",
    "reinforce": "REINFORCE", "reinforce_pp": "REINFORCE++",
}  # fmt: skip
_HEADLINES = {
    "lm": (
        ("evaluation/exact_sampled", "exact return"),
        ("evaluation/sampled", "held-out success, sampled"),
        ("evaluation/greedy", "held-out success, greedy"),
        ("evaluation/sampled_reward", "held-out reward, sampled"),
        ("evaluation/greedy_reward", "held-out reward, greedy"),
    ),
    "agent": (("evaluation/reward", "return"), ("evaluation/success", "success")),
    "sft": (
        ("evaluation/loss", "held-out loss, nats per token"),
        ("evaluation/mean_token_accuracy", "held-out token accuracy"),
        ("sft/loss", "loss, nats per token"),
    ),
    "dpo": (
        ("evaluation/rewards/accuracies", "held-out pairs the right way round"),
        ("evaluation/rewards/margins", "held-out margin"),
        ("dpo/loss", "loss"),
    ),
}
_MOST_HEADLINES = 2
_SHARES = re.compile(r"evaluation/(greedy|sampled)(/.+)?|\w+/success|.*accurac(y|ies)|.*share.*")
"""Metrics that are shares: shown in per cent."""
_HIDDEN = re.compile(r"evaluation/(num_episodes|.*_std|.*_parts/.+)")
_VARIANT = re.compile(r"(exact_|share_)?(greedy|sampled)(?![a-z])")
_LABELS = {
    "": "success", "exact": "exact return", "share": "share of the optimum", "length": "tokens",
    "failed": "not scored",
}  # fmt: skip
PHASES = (
    ("cold start", "time/cold_start_seconds"),
    ("generation", "time/generation_seconds"),
    ("environment and rewards", "time/environment_seconds"),
    ("update", "time/update_seconds"),
    ("evaluation", "time/evaluation_seconds"),
)


def title_of(run: Run) -> str:
    """Return who learnt what, such as `PPO on tiny`."""
    config = run.config
    if run.family == "agent":
        return f"{config.get('agent')} on {config.get('env')}"
    model = _section(config, "policy").get("model", "a model")
    if run.family != "lm":
        return f"{run.family.upper()} on {model}"
    kind = _section(_section(config, "ppo"), "estimator").get("kind", "gae")
    return f"{_ESTIMATORS.get(str(kind), kind)} on {model}"


def facts_of(run: Run) -> list[tuple[str, str]]:
    """Return what a run is known by besides: names and values."""
    env, packages = _section(run.config, "env"), _section(run.environment, "packages")
    git = _section(run.environment, "git")
    facts = [
        ("environment", env.get("id") if run.family == "lm" else None),
        ("seed", run.config.get("seed")),
        (
            unit_of(run),
            f"{run.num_done:,}" + (f" of {total:,}" if (total := total_of(run)) else ""),
        ),
        ("textgym", packages.get("textgym")),
        ("commit", str(git["commit"])[:10] if git.get("commit") else None),
        ("hardware", run.environment.get("gpu") or _cores(run)),
    ]
    return [(name, str(value)) for name, value in facts if value is not None]


def _cores(run: Run) -> str | None:
    cores = run.environment.get("cores")
    return None if cores is None else f"{cores} cores"


def unit_of(run: Run) -> str:
    """Return what `iteration` counts."""
    return "iterations" if run.family == "lm" else "steps"


def total_of(run: Run) -> int | None:
    """Return how many iterations or steps the run is to have, None where it is not told."""
    names = {"lm": "iterations", "agent": "total_steps"}
    total = number(run.config.get(names.get(run.family, "steps")))
    return int(total) if total else None


def is_share(name: str) -> bool:
    """Return whether a metric is shown in per cent."""
    return _SHARES.fullmatch(name) is not None


def headlines(run: Run) -> list[dict[str, Any]]:
    """Return the figures that say most, first and last."""
    found = []
    for name, label in _HEADLINES[run.family]:
        rows = [row for row in run.rows if number(row.get(name)) is not None]
        if rows:
            found.append({"label": label, **_change(name, rows)})
    return found[:_MOST_HEADLINES]


def before_and_after(run: Run) -> list[dict[str, Any]]:
    """Return the metrics of the first and of the last evaluation."""
    rows = run.phase("evaluation")
    names = dict.fromkeys(name for row in rows for name in row if name.startswith("evaluation/"))
    known = {name: [row for row in rows if number(row.get(name)) is not None] for name in names}
    found = []
    for name, own in known.items():
        success = name.replace("_reward/", "/")  # of a task, which says it better
        if own and (success == name or not known.get(success)) and not _HIDDEN.fullmatch(name):
            label, variant = label_of(name)
            found.append({"label": label, "variant": variant, **_change(name, own)})
    return found


def _change(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    figures = [_figure(name, row) for row in (rows[0], rows[-1])]
    return {"share": is_share(name), "first": figures[0], "last": figures[1]}


def _figure(name: str, row: Row) -> dict[str, Any]:
    bounds = interval(name, row)
    figure = {"iteration": row["iteration"], "value": number(row[name])}
    return figure if bounds is None else {**figure, "low": bounds[0], "high": bounds[1]}


def label_of(name: str) -> tuple[str, str]:
    """Return what a metric of an evaluation is called, and of which pass it is, if of one."""
    name = name.removeprefix("evaluation/")
    match = _VARIANT.match(name)
    if match is None:
        return name.replace("_", " "), ""
    rest = (match[1] or "").rstrip("_") + name[match.end() :].lstrip("_/")
    return _LABELS.get(rest, rest), match[2]


def phase_times(run: Run) -> list[tuple[str, float]]:
    """Return the seconds of each phase that the run measured, in all."""
    seconds = [(label, _sum(run.rows, name)) for label, name in PHASES]
    times = dict(seconds)
    parts = times["generation"] + times["environment and rewards"]
    other = _sum(run.rows, "time/rollout_seconds") - parts  # 0 where phases run side by side
    seconds.insert(3, ("rest of the rollout", other))
    return [(label, value) for label, value in seconds if value > 0]


def _sum(rows: Sequence[Row], name: str) -> float:
    return float(sum(number(row.get(name)) or 0.0 for row in rows))


def suites_table(run: Run) -> dict[str, Any] | None:
    """Return the metrics of suites by checkpoint; None where none was answered."""
    if not run.suites:
        return None
    names = dict.fromkeys(name for suites in run.suites.values() for name in suites)
    return {"checkpoints": list(run.suites), "rows": list(_suite_rows(run, list(names)))}


def _suite_rows(run: Run, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    for suite in names:
        found = [suites.get(suite, {}) for suites in run.suites.values()]
        for metric in dict.fromkeys(name for metrics in found for name in metrics):
            figures = [_suite_figure(metrics.get(metric)) for metrics in found]
            share = metric.split("/")[0] not in NUMBERS
            yield {"suite": suite, "metric": metric, "figures": figures, "share": share}


def _suite_figure(metric: Metric | None) -> dict[str, Any] | None:
    if metric is None or number(metric.value) is None:
        return None
    bounds = {name: number(getattr(metric, name)) for name in ("value", "low", "high")}
    return {**bounds, "count": metric.count}


def flatten(config: Any, prefix: str = "") -> dict[str, str]:
    """Return a configuration as text by dotted name."""
    if isinstance(config, dict) and config:
        flat: dict[str, str] = {}
        for name, value in config.items():
            flat |= flatten(value, f"{prefix}.{name}" if prefix else str(name))
        return flat
    return {prefix: "null" if config is None else str(config)}


def differences(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the fields in which the configurations of runs differ, with the value of each."""
    flat = [flatten(run.config) for run in runs]
    names = dict.fromkeys(name for each in flat for name in each)
    rows = [(name, [each.get(name, "") for each in flat]) for name in names]
    return [{"field": name, "values": row} for name, row in rows if len(set(row)) > 1]


def _section(config: Any, name: str) -> dict[str, Any]:
    found = config.get(name) if isinstance(config, dict) else None
    return found if isinstance(found, dict) else {}
