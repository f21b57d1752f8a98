"""Turn pydantic's validation errors into sentences that name the field, the value and the fix."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

Location = tuple[int | str, ...]
_SHOWN = 60


def explain(
    error: ValidationError, model: type[BaseModel], given: Mapping[str, Any]
) -> list[tuple[Location, str]]:
    """Return the location and the explanation of each error of validating `given` as `model`."""
    explained: list[tuple[Location, str]] = []
    for details in error.errors(include_url=False):
        kind = details["type"]
        location = _without_tags(details["loc"], given, kind)
        name = dotted(location)
        if kind == "extra_forbidden":
            message = _unknown_field(location, _models_at(details["loc"][:-1], model), model)
        elif kind == "missing":
            message = f"the field '{name}' is missing"
        else:
            message = details["msg"].removeprefix("Value error, ")
            message = f"'{name}' is {shown(details['input'])}: {message}" if name else message
        explained.append((location, message))
    return explained


def dotted(location: Location) -> str:
    """Return `('ppo', 'lr')` as `ppo.lr`."""
    return ".".join(str(part) for part in location)


def shown(value: object) -> str:
    """Return the repr of a value, cut where it would fill the screen."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _without_tags(location: Location, given: Any, kind: str) -> Location:
    """Drop the names of union members, which pydantic puts between the fields of a location."""
    kept: list[int | str] = []
    for position, part in enumerate(location):
        names_no_value = kind == "missing" and position == len(location) - 1
        if isinstance(given, Mapping) and part in given:
            given = given[part]
        elif isinstance(given, Sequence) and isinstance(part, int) and part < len(given):
            given = given[part]
        elif not names_no_value:
            continue
        kept.append(part)
    return tuple(kept)


def _unknown_field(
    location: Location, levels: list[type[BaseModel]], model: type[BaseModel]
) -> str:
    *parents, name = (str(part) for part in location)
    siblings = list(dict.fromkeys(field for level in levels for field in level.model_fields))
    prefix = "".join(f"{parent}." for parent in parents)
    nearest = [prefix + field for field in difflib.get_close_matches(name, siblings, n=1)]
    nearest = nearest or [path for path in _elsewhere(name, model) if path != prefix + name]
    hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
    owner = f"'{prefix[:-1]}' has the fields" if parents else "The fields are"
    return f"no field '{prefix}{name}'.{hint} {owner} {', '.join(siblings) or 'none'}."


def _elsewhere(name: str, model: type[BaseModel]) -> list[str]:
    """Return the path of the nearest field at any level, for one put at the wrong level."""
    paths = {path.rpartition(".")[2]: path for path in reversed(list(_field_paths(model)))}
    return [paths[field] for field in difflib.get_close_matches(name, paths, n=1, cutoff=0.75)]


def _field_paths(model: type[BaseModel], prefix: str = "", depth: int = 4) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        for nested in _models_in(field.annotation) if depth else ():
            yield from _field_paths(nested, f"{prefix}{name}.", depth - 1)


def _models_at(location: Location, model: type[BaseModel]) -> list[type[BaseModel]]:
    """Return the models that can stand at a location as pydantic gives it, tags included."""
    levels = [model]
    for part in location:
        fields = [level.model_fields[str(part)] for level in levels if part in level.model_fields]
        if fields:
            levels = [nested for field in fields for nested in _models_in(field.annotation)]
        else:  # the tag of a union's member, an index of a list or a key of a mapping
            levels = [level for level in levels if _has_tag(level, part)] or levels
    return levels


def _has_tag(model: type[BaseModel], tag: int | str) -> bool:
    annotations = [field.annotation for field in model.model_fields.values()]
    return tag == model.__name__ or any(
        typing.get_origin(annotation) is typing.Literal and tag in typing.get_args(annotation)
        for annotation in annotations
    )


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [nested for arg in typing.get_args(annotation) for nested in _models_in(arg)]
