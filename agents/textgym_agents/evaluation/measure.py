"""Several suites with one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from pydantic import JsonValue

from textgym.items import Metric
from textgym_agents.evaluation.language_model import LanguageModel
from textgym_agents.evaluation.suite import evaluate_suite
from textgym_agents.evaluation.suites import find_suites
from textgym_agents.lm.engines.config import EngineConfig
from textgym_agents.run.progress import Progress


def measure_model(
    model: str,
    names: Sequence[str],
    path: Path,
    *,
    engine: EngineConfig | None = None,
    limit: int | None = None,
    samples: int = 1,
    temperature: float = 0.0,
    max_new_tokens: int | None = None,
    max_length: int | None = None,
    device: str = "auto",
    overrides: Mapping[str, JsonValue] | None = None,
    data: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, dict[str, Metric]]:
    """Return the metrics of suites by name; each is kept in `path/NAME`.

    The model is loaded once, and not at all where every suite is complete.

    Args:
        model: `tiny`, `small`, a folder (of a model, or a run directory), or a hub id.
        names: suites and groups of suites.
        path: folder of all of them.
        engine: what samples; None is that of the run, or transformers.
        limit: answer this many prompts of each suite; None answers all.
        samples: answers per prompt.
        temperature: of the answers.
        max_new_tokens: longest answer; None is each suite's own limit.
        max_length: prompt and answer together; None is 4096.
        device: `auto`, `cpu` or `cuda`.
        overrides: fields of the trainer's configuration by dotted name.
        data: folder, file or hub id of the suites' rows.
        seed: of the choice of prompts and of the samples.
        progress: is told what happens.
    """
    found = find_suites(names, data, downloads=path)
    language_model = LanguageModel(
        model, engine=engine, max_length=max_length, device=device, overrides=overrides
    )
    with closing(language_model):
        return {
            suite.benchmark.name: evaluate_suite(
                language_model,
                suite.benchmark,
                path / suite.benchmark.name,
                samples=samples,
                temperature=temperature,
                limit=limit,
                seed=seed,
                max_new_tokens=max_new_tokens,
                data=suite.data,
                progress=progress,
            )
            for suite in found
        }
