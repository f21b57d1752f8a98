"""The reward `json_format`: 1.0 if a completion is one JSON document that fits a schema.

A schema may hold regular expressions, which can take exponential time; it therefore runs in a
worker. References to other documents are never fetched.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import JsonValue, field_validator

from textgym import Reward, Sample, Score
from textgym.errors import ConfigError, MissingExtraError
from textgym_plugins.rules.json_text import parse_json, without_fence
from textgym_plugins.rules.text import short
from textgym_plugins.thinking import after_thinking


class JsonFormat(Reward):
    """Whether the answer is JSON, and fits a JSON schema where there is one."""

    name: ClassVar[str] = "json_format"
    time_limit: ClassVar[float] = 2.0

    json_schema: dict[str, JsonValue] | None = None
    """The schema (draft 2020-12 unless it names another). None: the one of the prompt, if its
    target is an object `{"json_schema": {...}}`, else any JSON will do."""
    allow_fence: bool = True
    """Accept a Markdown fence around the document."""

    @field_validator("json_schema")
    @classmethod
    def _is_schema(cls, value: dict[str, JsonValue] | None) -> dict[str, JsonValue] | None:
        if value is not None:
            try:
                make_validator(value)
            except MissingExtraError:
                pass  # scoring says so
            except ConfigError as error:
                raise ValueError(str(error)) from None
        return value

    def score_batch(self, samples: Sequence[Sample]) -> list[Score]:
        """Return 1.0 (`formatted`) or 0.0 (`malformed`, with the first error) for each sample."""
        return [self._score(sample) for sample in samples]

    def _score(self, sample: Sample) -> Score:
        schema = self.json_schema
        if schema is None and isinstance(sample.prompt.target, Mapping):
            given = sample.prompt.target.get("json_schema")
            if given is not None and not isinstance(given, dict):
                return Score.unscored("the target's 'json_schema' is no object")
            schema = given
        try:
            validator = None if schema is None else self._validator(schema)
        except MissingExtraError as error:
            return Score.failed("unavailable", str(error))
        except ConfigError as error:
            return Score.unscored(f"prompt '{sample.prompt.id}': {error}")
        answer = (after_thinking(sample.completion) or "").strip()
        return _judge(without_fence(answer) if self.allow_fence else answer, validator)

    def _validator(self, schema: dict[str, JsonValue]) -> Any:
        return self._own_validator if schema is self.json_schema else make_validator(schema)

    @functools.cached_property
    def _own_validator(self) -> Any:
        assert self.json_schema is not None
        return make_validator(self.json_schema)


def make_validator(schema: dict[str, JsonValue]) -> Any:  # jsonschema has no types
    """Return the validator of a schema.

    Raises:
        MissingExtraError: jsonschema is not installed.
        ConfigError: the schema is not one.
    """
    try:
        import jsonschema
        import referencing
    except ModuleNotFoundError as error:
        raise MissingExtraError("jsonschema", "schema", "checking a JSON schema") from error
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ConfigError(f"the JSON schema is not one: {short(error.message)}") from None
    except RecursionError:
        raise ConfigError("the JSON schema is nested too deep") from None
    return kind(schema, registry=referencing.Registry())


def _judge(text: str, validator: Any) -> Score:
    try:
        value = parse_json(text)
    except ValueError as error:
        return Score(0.0, label="malformed", reason=f"not JSON: {error}")
    if validator is not None:
        problem = _schema_problem(value, validator)
        if isinstance(problem, Score):
            return problem
        if problem:
            return Score(0.0, label="malformed", reason=problem, extracted=text[:1000])
    return Score(1.0, label="formatted", reason="JSON that fits", extracted=text[:1000])


def _schema_problem(value: JsonValue, validator: Any) -> str | Score:
    from jsonschema.exceptions import best_match
    from referencing.exceptions import Unresolvable

    try:
        error = best_match(validator.iter_errors(value))
    except Unresolvable as missing:
        return Score.unscored(f"the JSON schema refers to {short(str(missing.ref))}, not in it")
    except RecursionError:
        return "nested too deep for the schema"
    if error is None:
        return ""
    return f"at {error.json_path[:100]}: {short(error.message)}"
