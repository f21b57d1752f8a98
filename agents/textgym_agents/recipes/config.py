"""What a recipe is: stages that run one command each, what is measured after them, and guards.

A recipe is a YAML file. Texts in it may hold `${model}`, the model that the recipe starts from,
`${STAGE}`, the folder of an earlier stage, `${policy:STAGE}`, the model in it that others can open,
`${out}`, what the stage itself is to write, and `${url:SERVICE}`, where a service of it listens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue, PositiveInt, model_validator

from textgym.config import load_config, merge, read_yaml
from textgym.errors import ConfigError, UnknownNameError, did_you_mean
from textgym_agents.core.config_base import Config
from textgym_agents.lm.shapes import BUILT_IN

PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")
MODEL = "model"
OUT = "out"
URL = "url:"
POLICY = "policy:"
COMMANDS_WITH_ENGINE = ("train",)
COMMANDS_WITH_RUN = ("train", "sft", "dpo")

Command = Literal["train", "sft", "dpo", "reward-model"]


class Service(Config):
    """A process of `textgym serve` that runs while a stage does."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """What `${url:NAME}` names it by."""
    args: tuple[str, ...]
    """The arguments of `textgym serve`, without `--port`."""


class Measure(Config):
    """What is measured of a model."""

    suites: tuple[str, ...] = Field(min_length=1)
    """Benchmarks by name, as `textgym evaluate --suite` takes them."""
    limit: PositiveInt | None = None
    """The most prompts of each."""
    samples: PositiveInt = 1
    """Completions of each prompt."""
    temperature: float = Field(default=0.0, ge=0)
    """Of sampling; 0 takes the most likely token."""
    max_new_tokens: PositiveInt | None = None
    """Longest completion; None is what each suite says."""
    max_length: PositiveInt | None = None
    """Prompt and completion together; None is the default of `textgym evaluate`."""


class Stage(Config):
    """One command of `textgym`, and the folder that it fills."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Its folder (or file), and what later stages name that by."""
    title: str = ""
    """What tables call it; its name by default."""
    command: Command
    """The command that runs."""
    args: tuple[str, ...] = ()
    """Its arguments. `--run`, `--seed` and `--engine` are added where the command takes them."""
    config: dict[str, JsonValue] = Field(default_factory=dict)
    """Written to a file that the command reads, where there is any."""
    services: tuple[Service, ...] = ()
    """What runs beside it."""
    is_policy: bool = True
    """Whether the outcome is a policy, which is measured."""

    @model_validator(mode="after")
    def _check_config(self) -> Stage:
        if self.command == "reward-model" and (self.config or self.is_policy):
            raise ValueError(
                f"the stage '{self.name}' runs reward-model, which takes no config and makes no "
                "policy: set is_policy to false and give args alone"
            )
        return self

    def texts(self) -> Iterator[str]:
        """Yield every text in which placeholders are filled in."""
        yield from self.args
        yield from _texts(self.config)
        for service in self.services:
            yield from service.args


class Guard(Config):
    """What a stage must not cost."""

    stage: str
    """The stage that is judged."""
    against: str
    """The stage that it is held against, or `model`, what the recipe started from."""
    metrics: tuple[str, ...] = Field(min_length=1)
    """`SUITE/METRIC`, each on its own."""
    margin: float = Field(default=0.02, ge=0)
    """How much lower a metric may be."""


class TableRow(Config):
    """A row of the last table, whose columns are the measured models."""

    title: str
    """What stands in front of it."""
    metric: str
    """`SUITE/METRIC`, or `run/METRIC`: what stands in the stage's last evaluation."""
    kind: Literal["share", "number"] = "share"
    """How it is shown: in percent, or as it is."""


class Recipe(Config):
    """A recipe."""

    title: str
    """One line."""
    model: str = "tiny"
    """What the stages start from."""
    values: dict[str, str] = Field(default_factory=dict)
    """More placeholders; a value may hold placeholders itself."""
    stages: tuple[Stage, ...] = Field(min_length=1)
    """In the order in which they run."""
    measure: Measure | None = None
    """What is measured of the policy of each stage; None leaves it at what its run says."""
    measure_model: bool = False
    """Whether the model that the recipe starts from is measured as well."""
    guards: tuple[Guard, ...] = ()
    """Each ends the recipe where it is not held."""
    table: tuple[TableRow, ...] = Field(min_length=1)
    """The metrics that the recipe shows at its end."""

    @model_validator(mode="after")
    def _check_measure(self) -> Recipe:
        if self.measure is None and self.measure_model:
            raise ValueError("measure_model is true, but measure does not say by what")
        return self

    @model_validator(mode="after")
    def _check_names(self) -> Recipe:
        known = [MODEL, *self.values]
        for name, value in self.values.items():
            if not value:
                raise ValueError(f"this recipe needs a value for '{name}': --set values.{name}=...")
        for stage in self.stages:
            if stage.name in (*known, OUT):
                raise ValueError(
                    f"a stage is named '{stage.name}', which is taken; 'model' and 'out' are too"
                )
            self._check_placeholders(stage, known)
            known.append(stage.name)
        measured = self.measured
        for guard in self.guards:
            for name in (guard.stage, guard.against):
                if name not in measured:
                    raise ValueError(
                        f"a guard names '{name}', which is not measured; there are: "
                        f"{', '.join(measured)}"
                    )
        return self

    @staticmethod
    def _check_placeholders(stage: Stage, known: list[str]) -> None:
        allowed = {OUT, *known, *(f"{POLICY}{name}" for name in known)}
        allowed |= {f"{URL}{service.name}" for service in stage.services}
        for text in stage.texts():
            for name in PLACEHOLDER.findall(text):
                if name not in allowed:
                    raise ValueError(
                        f"the stage '{stage.name}' names ${{{name}}}, which is not there before "
                        f"it runs; there are: {', '.join(sorted(allowed))}"
                    )

    @property
    def measured(self) -> list[str]:
        """The names of what is measured, in order."""
        first = [MODEL] if self.measure_model else []
        return first + [stage.name for stage in self.stages if stage.is_policy]


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def filled(value: Any, values: Mapping[str, str]) -> Any:
    """Return a value with the placeholders in all of its texts filled in.

    Raises:
        ConfigError: one stands for something that is not there yet.
    """
    if isinstance(value, str):
        for name in PLACEHOLDER.findall(value):
            if name not in values:
                raise ConfigError(
                    f"${{{name}}} is used before there is one: its stage has to come first, and "
                    "to end with a policy"
                )
        return PLACEHOLDER.sub(lambda found: values[found[1]], value)
    if isinstance(value, Mapping):
        return {key: filled(each, values) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [filled(each, values) for each in value]
    return value


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    files = resources.files(__package__).iterdir()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


def load_recipe(name: str, *, model: str | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe of the package by its name, or one from a YAML file.

    The file says how the recipe runs with an embedded model. Where it has a section `full`, at the
    top or in a stage, that is put over its surroundings for any other model, and a stage with
    `only: embedded` is left out there.

    Args:
        name: of the recipe, or the path of a YAML file.
        model: what to start from; None takes what the file says.
        overrides: `field=value` each.

    Raises:
        UnknownNameError: there is none of that name.
        ConfigError: the file or an override is not as it should be.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in recipe_names():
            raise UnknownNameError(
                f"no recipe named '{name}'.{did_you_mean(name, recipe_names())} There are: "
                f"{', '.join(recipe_names())}; or give a YAML file."
            )
        path = Path(str(resources.files(__package__) / f"{name}.yaml"))
    values = read_yaml(path)
    if model is not None:
        values["model"] = model
    return load_config(Recipe, preset=_scaled(values), overrides=overrides)


def _scaled(values: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe file's values at the scale of its model."""
    is_embedded = values.get("model", "tiny") in BUILT_IN
    values = _scaled_section(values, is_embedded=is_embedded)
    stages = values.get("stages")
    if isinstance(stages, list):
        kept = [dict(s) for s in stages if is_embedded or s.get("only") != "embedded"]
        for stage in kept:
            stage.pop("only", None)
        values["stages"] = [_scaled_section(s, is_embedded=is_embedded) for s in kept]
    return values


def _scaled_section(values: dict[str, Any], *, is_embedded: bool) -> dict[str, Any]:
    rest = {key: value for key, value in values.items() if key != "full"}
    full = values.get("full")
    return merge(rest, full) if isinstance(full, dict) and not is_embedded else rest
