"""Trackers that a run reports to besides its own files: Weights & Biases, MLflow, Trackio.

Each is imported when it is asked for, and set up by its own environment variables. A resumed run
goes on in the tracker's run that it began, whose name is kept in `trackers.json`. A tracker that
fails while a run is going is left out with a warning: what it would have got is in metrics.jsonl.
"""

from __future__ import annotations

import importlib
import json
import os
import time
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

from textgym.errors import ConfigError, TextGymError
from textgym_agents.run.directory import RunDirectory

TrackerName = Literal["wandb", "mlflow", "trackio"]
FILE = "trackers.json"
PROJECT = "textgym"
ALARM = "alarm of the run"


class MissingTrackerError(TextGymError, ImportError):
    """A tracker's package is not there."""


class Tracker(Protocol):
    """One tracker in use."""

    id: str
    """Names the tracker's run."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take finite metrics of a step."""
        ...

    def alarm(self, step: int, text: str) -> None:
        """Take an alarm."""
        ...

    def close(self) -> None:
        """End the tracker's run."""
        ...


class WandbTracker:
    """Weights & Biases: WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE and the others hold."""

    def __init__(
        self, module: Any, run: RunDirectory, config: Mapping[str, Any], known: str | None
    ) -> None:
        self.id = known or uuid.uuid4().hex[:8]
        self._run = module.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.path.name,
            id=self.id,
            resume="allow",
            dir=str(run.path),
            config=dict(config),
        )
        self._run.define_metric("*", step_metric="iteration")  # its own steps never go back

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take finite metrics of a step."""
        self._run.log({"iteration": step, **metrics})

    def alarm(self, step: int, text: str) -> None:
        """Take an alarm."""
        self._run.alert(title=ALARM, text=f"iteration {step}: {text}")

    def close(self) -> None:
        """End the tracker's run."""
        self._run.finish()


class MLflowTracker:
    """MLflow: MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME hold."""

    def __init__(
        self, module: Any, run: RunDirectory, config: Mapping[str, Any], known: str | None
    ) -> None:
        self._module, self._client = module, module.MlflowClient()
        if known is not None:
            self.id = known
            self._client.update_run(self.id, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        self.id = self._client.create_run(experiment, run_name=run.path.name).info.run_id
        for key, value in _flat(config).items():
            self._client.log_param(self.id, key, value)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take finite metrics of a step."""
        metric, now = self._module.entities.Metric, int(time.time() * 1000)
        entries = [metric(key, value, now, step) for key, value in metrics.items()]
        self._client.log_batch(self.id, metrics=entries)

    def alarm(self, step: int, text: str) -> None:
        """Take an alarm."""
        self._client.set_tag(self.id, f"alarm {step}", text)

    def close(self) -> None:
        """End the tracker's run."""
        self._client.set_terminated(self.id)


class TrackioTracker:
    """Trackio: TRACKIO_DIR, TRACKIO_SPACE_ID and the others hold; TRACKIO_PROJECT is ours."""

    def __init__(
        self, module: Any, run: RunDirectory, config: Mapping[str, Any], known: str | None
    ) -> None:
        self.id = known or f"{run.path.name}-{uuid.uuid4().hex[:8]}"
        self._run = module.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT),
            name=self.id,
            resume="allow",
            config=dict(config),
            embed=False,
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take finite metrics of a step."""
        self._run.log(dict(metrics), step=step)

    def alarm(self, step: int, text: str) -> None:
        """Take an alarm."""
        self._run.alert(title=ALARM, text=text, step=step)

    def close(self) -> None:
        """End the tracker's run."""
        self._run.finish()


TRACKERS: dict[TrackerName, Callable[..., Tracker]] = {
    "wandb": WandbTracker,
    "mlflow": MLflowTracker,
    "trackio": TrackioTracker,
}
PACKAGES = {"mlflow": "mlflow-skinny"}
"""What to install, where it is not called like the module."""


def check_trackers(names: Sequence[TrackerName]) -> None:
    """See that trackers can be imported.

    Raises:
        MissingTrackerError: one cannot.
    """
    for name in names:
        _import(name)


class Trackers:
    """The trackers of one run.

    Args:
        names: which.
        run: reports to them.
        config: of the run.

    Raises:
        ConfigError: one does not let a run begin.
    """

    def __init__(
        self, names: Sequence[TrackerName], run: RunDirectory, config: Mapping[str, Any]
    ) -> None:
        self._open: dict[str, Tracker] = {}
        path = run.path / FILE
        ids: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        for name in names:
            module = _import(name)
            try:
                self._open[name] = TRACKERS[name](module, run, config, ids.get(name))
            except Exception as error:
                self.close()
                raise ConfigError(
                    f"report_to: {name} cannot begin a run: {_said(error)}"
                ) from error
        if names:
            run.write_text(FILE, json.dumps(ids | {k: x.id for k, x in self._open.items()}))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Report finite metrics of a step."""
        self._each(lambda tracker: tracker.log(step, metrics))

    def alarm(self, step: int, text: str) -> None:
        """Report an alarm."""
        self._each(lambda tracker: tracker.alarm(step, text))

    def close(self) -> None:
        """End what is open."""
        self._each(lambda tracker: tracker.close())
        self._open.clear()

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                act(tracker)
            except Exception as error:
                del self._open[name]
                warnings.warn(
                    f"{name} failed and gets nothing more of this run: {_said(error)}",
                    stacklevel=3,
                )


def _import(name: TrackerName) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = PACKAGES.get(name, name)
        raise MissingTrackerError(
            f"report_to: {name} needs the package '{package}', which is not installed or does not "
            f"work ({_said(error)}). Run: pip install {package}"
        ) from error


def _said(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a configuration as `a.b.c`: value."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        inner = _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else None
        flat |= inner if inner is not None else {f"{prefix}{key}": value}
    return flat
