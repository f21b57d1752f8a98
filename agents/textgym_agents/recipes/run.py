"""Run a recipe: stage after stage, each in a process of its own, measured, guarded, resumable.

A folder holds the recipe as it was begun, a folder per stage (`STAGE/` is what its command made),
`measured/STAGE/` with every answer, and `progress.json`, which names the stages that are done.
Whatever was done when the process died is not done again; a stage that had a checkpoint goes on
with it.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from textgym.config import dump_config, dump_yaml, load_config
from textgym.errors import ConfigError, TextGymError
from textgym.item_files import read_metrics
from textgym_agents.recipes.config import (
    COMMANDS_WITH_ENGINE,
    COMMANDS_WITH_RUN,
    MODEL,
    OUT,
    POLICY,
    URL,
    Measure,
    Recipe,
    Stage,
    filled,
)
from textgym_agents.recipes.services import serve
from textgym_agents.run.directory import RunDirectory, rows_of, write_atomically

RECIPE_FILE = "recipe.yaml"
PROGRESS_FILE = "progress.json"
MEASURED = "measured"

Figures = dict[str, float]
"""Of one model, by `SUITE/METRIC`."""


class RecipeError(TextGymError):
    """A stage failed, or a guard does not hold."""


class Settings(NamedTuple):
    """What is the same for all stages."""

    seed: int = 0
    engine: Sequence[str] = ()
    """Arguments that choose the engine, such as `--engine vllm`."""


class RecipeRun:
    """One recipe in its folder.

    Args:
        recipe: what to do; a folder that holds another recipe is an error.
        path: the folder.
        settings: the seed and the engine.
        tell: is told what begins.

    Raises:
        ConfigError: the folder holds another recipe, or something else.
    """

    def __init__(
        self,
        recipe: Recipe,
        path: Path,
        settings: Settings | None = None,
        *,
        tell: Callable[[str], None] = print,
    ) -> None:
        self.recipe = recipe
        self.path = path.resolve()
        self.settings = settings or Settings()
        self.tell = tell
        self._take_folder()
        self.progress = self._read_progress()

    def _take_folder(self) -> None:
        stored = self.path / RECIPE_FILE
        if stored.exists():
            if load_config(Recipe, path=stored) != self.recipe:
                raise ConfigError(
                    f"{self.path} holds another recipe, or this one with other settings; choose "
                    "another --out, or repeat the command that began it"
                )
            return
        if self.path.exists() and any(self.path.iterdir()):
            raise ConfigError(f"{self.path} is not empty and holds no recipe; choose another --out")
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(stored, dump_config(self.recipe))

    def _read_progress(self) -> dict[str, Any]:
        path = self.path / PROGRESS_FILE
        if not path.exists():
            return {"settings": self._settings_record(), "seconds": {}, "measured": {}}
        progress: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if progress["settings"] != self._settings_record():
            raise ConfigError(
                f"{self.path} was begun with {progress['settings']}, not with "
                f"{self._settings_record()}; repeat those, or choose another --out"
            )
        return progress

    def _settings_record(self) -> dict[str, Any]:
        return {"seed": self.settings.seed, "engine": list(self.settings.engine)}

    def _note(self, kind: str, name: str, value: object) -> None:
        self.progress[kind][name] = value
        write_atomically(self.path / PROGRESS_FILE, json.dumps(self.progress, indent=2))

    def run(self) -> dict[str, Figures]:
        """Do what is left, and return the figures of each measured model.

        Raises:
            RecipeError: a stage failed, or costs more than a guard allows.
        """
        if self.recipe.measure_model:
            self._measure(MODEL, self.recipe.model)
        for stage in self.recipe.stages:
            if stage.name not in self.progress["seconds"]:
                self._run_stage(stage)
            if stage.is_policy:
                self._measure(stage.name, str(self.path / stage.name))
            self._check_guards(stage.name)
        return dict(self.progress["measured"])

    # Stages --------------------------------------------------------------------------------------

    def _run_stage(self, stage: Stage) -> None:
        self.tell(f"stage {stage.name}: textgym {stage.command}")
        started = time.monotonic()
        with ExitStack() as stack:
            values = self._values() | {OUT: str(self.path / stage.name)}
            for service in stage.services:
                args = filled(service.args, values)
                log = self.path / f"{stage.name}-{service.name}.log"
                values[f"{URL}{service.name}"] = stack.enter_context(serve(args, log))
            self._call(self._arguments(stage, values), f"the stage '{stage.name}'")
        self._note("seconds", stage.name, round(time.monotonic() - started, 1))

    def _values(self) -> dict[str, str]:
        """Return what the placeholders stand for."""
        values = {MODEL: self.recipe.model, f"{POLICY}{MODEL}": self.recipe.model}
        for stage in self.recipe.stages:
            folder = self.path / stage.name
            values[stage.name] = str(folder)
            if stage.command not in COMMANDS_WITH_RUN or stage.name not in self.progress["seconds"]:
                continue
            if checkpoint := RunDirectory(folder).latest_checkpoint():
                values[f"{POLICY}{stage.name}"] = str(checkpoint / "policy")
        return values | {k: filled(v, values) for k, v in self.recipe.values.items()}

    def _arguments(self, stage: Stage, values: Mapping[str, str]) -> list[str]:
        """Return the command line of a stage that is begun, or taken up."""
        folder = self.path / stage.name
        engine = self.settings.engine if stage.command in COMMANDS_WITH_ENGINE else ()
        if stage.command in COMMANDS_WITH_RUN and (folder / "config.yaml").exists():
            if RunDirectory.open(folder).checkpoints():
                return [stage.command, "--resume", str(folder), *engine]
        _remove(folder)
        args = filled(stage.args, values)
        config = filled(stage.config, values)
        if config:
            file = self.path / f"{stage.name}.yaml"
            write_atomically(file, dump_yaml(config))
            args = [str(file), *args]
        if stage.command in COMMANDS_WITH_RUN:
            args += ["--run", str(folder), "--seed", str(self.settings.seed)]
        return [stage.command, *args, *engine]

    def _call(self, args: Sequence[str], what: str) -> None:
        """Run `textgym ARGS` on the same terminal."""
        process = subprocess.Popen([sys.executable, "-m", "textgym", *args])
        try:
            status = process.wait()
        except KeyboardInterrupt:  # the terminal has told it as well; let it save
            process.wait()
            raise
        if status:
            raise RecipeError(
                f"{what} ended with status {status}; its message stands above. The same command "
                "goes on from there"
            )

    # Measures ------------------------------------------------------------------------------------

    def _measure(self, name: str, model: str) -> None:
        if name in self.progress["measured"]:
            return
        figures = run_figures(self.path / name)
        if self.recipe.measure is not None:
            figures |= self._measure_suites(self.recipe.measure, name, model)
        self._note("measured", name, figures)

    def _measure_suites(self, measure: Measure, name: str, model: str) -> Figures:
        self.tell(f"measuring {name}")
        folder = self.path / MEASURED / name
        args = ["evaluate", model, "--suite", ",".join(measure.suites), "--out", str(folder)]
        args += ["--samples", str(measure.samples), "--temperature", str(measure.temperature)]
        args += ["--seed", str(self.settings.seed)]
        for field in ("limit", "max_new_tokens", "max_length"):
            if (value := getattr(measure, field)) is not None:
                args += [f"--{field.replace('_', '-')}", str(value)]
        self._call([*args, *self.settings.engine], f"measuring '{name}'")
        return read_figures(folder, measure.suites)

    def _check_guards(self, name: str) -> None:
        """Hold what a stage was measured at against the guards on it."""
        measured = self.progress["measured"]
        for guard in self.recipe.guards:
            if guard.stage != name:
                continue
            for metric in guard.metrics:
                now, before = (_figure(measured, each, metric) for each in (name, guard.against))
                if before - now > guard.margin:
                    raise RecipeError(
                        f"the guard on '{name}' does not hold: {metric} is {now:.3f}, and was "
                        f"{before:.3f} after '{guard.against}', which is more than "
                        f"{guard.margin:g} lower. Weaken the stage (learning rate, iterations), "
                        "strengthen its KL penalty, or mix in prompts of what is lost"
                    )


def _remove(path: Path) -> None:
    """Delete what a stage left that did not come to its end."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _figure(measured: Mapping[str, Figures], name: str, metric: str) -> float:
    figures = measured[name]
    if metric not in figures:
        raise ConfigError(
            f"a guard names the metric '{metric}', which was not measured; there are: "
            f"{', '.join(figures)}"
        )
    return figures[metric]


def run_figures(folder: Path) -> Figures:
    """Return the numbers of a run's last evaluation, by `run/METRIC`; none where it has none."""
    rows = rows_of(RunDirectory(folder).read_metrics(), "evaluation")
    numbers = rows[-1].items() if rows else ()
    return {
        f"run/{key}": value
        for key, value in numbers
        if isinstance(value, float) and math.isfinite(value)
    }


def read_figures(folder: Path, suites: Sequence[str]) -> Figures:
    """Return what `textgym evaluate --out` measured, by `SUITE/METRIC`."""
    return {
        f"{suite}/{name}": metric.value
        for suite in suites
        for name, metric in (read_metrics(folder / suite) or {}).items()
        if math.isfinite(metric.value)
    }
