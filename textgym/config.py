"""Load a configuration: preset, then YAML file, then `--set a.b.c=value`, then validation.

Every mistake becomes one `ConfigError` that names where it was made, the dotted field, and what to
do. YAML is read as PyYAML's safe loader reads it, with two differences: a key that occurs twice is
an error, and `1e-5` is a number (YAML 1.1, which PyYAML follows, reads it as text).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from textgym.errors import ConfigError
from textgym.validation import Location, explain, shown

ConfigT = TypeVar("ConfigT", bound=BaseModel)
Layers = list[tuple[str, dict[str, Any]]]


def load_config(
    model: type[ConfigT],
    *,
    path: Path | None = None,
    preset: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
) -> ConfigT:
    """Return the validated configuration.

    Args:
        model: the frozen pydantic model of the configuration.
        path: a YAML file; its values win over those of the preset.
        preset: values to start from.
        overrides: `a.b.c=value` each, the value in YAML; they win over the file.

    Raises:
        ConfigError: anything that cannot be read or does not fit the model; all mistakes at once.
    """
    layers: Layers = [("preset", dict(preset or {}))]
    if path is not None:
        layers.append((str(path), read_yaml(path)))
    layers += [(f"--set {override}", parse_override(override)) for override in overrides]
    merged: dict[str, Any] = {}
    for _, values in layers:
        merged = merge(merged, values)
    try:
        return model.model_validate(merged)
    except ValidationError as error:
        mistakes = explain(error, model, merged)
        lines = [_origin(location, layers) + message for location, message in mistakes]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def dump_config(config: BaseModel) -> str:
    """Return a configuration as YAML that loads back equal."""
    return dump_yaml(config.model_dump(mode="json"))


def dump_yaml(values: Mapping[str, Any]) -> str:
    """Return fields as YAML that `read_yaml` reads back equal, in their order."""
    import yaml

    from textgym.yaml_files import Dumper

    return yaml.dump(dict(values), Dumper=Dumper, sort_keys=False, allow_unicode=True)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds; an empty file is an empty mapping."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; save it as UTF-8") from None
    values = _parse(text, str(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected `field: value` lines, got {shown(values)}")
    return values


def parse_override(override: str) -> dict[str, Any]:
    """Return `a.b=value` as `{"a": {"b": value}}`, the value read as YAML."""
    name, equals, text = override.partition("=")
    names = name.strip().split(".")
    if not equals or not all(names):
        raise ConfigError(f"--set {override}: expected FIELD=VALUE, such as ppo.gamma=0.99")
    value = _parse(text, f"--set {override}")
    for part in reversed(names):
        value = {part: value}
    return dict(value)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `over`; mappings merge, everything else is replaced.

    A mapping whose `kind` changes is replaced whole: the fields of one alternative of a union mean
    nothing to another.
    """
    merged = dict(base)
    for name, new in over.items():
        old = base.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping) and not _changes_kind(old, new):
            new = merge(old, new)
        merged[name] = new
    return merged


def _changes_kind(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return "kind" in new and new["kind"] != old.get("kind", new["kind"])


def _parse(text: str, where: str) -> Any:
    import yaml

    from textgym.yaml_files import Loader

    try:
        return yaml.load(text, Loader=Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{where}{place}: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: {' '.join(str(error).split())}") from None
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"{where}: not usable as YAML: {error}") from None


def _origin(location: Location, layers: Layers) -> str:
    """Return where a mistake was made: the last layer that holds its location.

    A missing field is in no layer, and a rule across fields has no location; both belong to the
    file, unless something else could be the cause.
    """
    if location:
        for where, values in reversed(layers):
            if _holds(values, location):
                return f"{where}: "
        return next((f"{where}: " for where, _ in layers[1:] if where[:2] != "--"), "")
    filled = [where for where, values in layers if values]
    return f"{filled[0]}: " if len(filled) == 1 else ""


def _holds(values: Any, location: Location) -> bool:
    for part in location:
        if isinstance(values, Sequence) and isinstance(part, int) and part < len(values):
            values = values[part]
        elif isinstance(values, Mapping) and part in values:
            values = values[part]
        else:
            return False
    return True
