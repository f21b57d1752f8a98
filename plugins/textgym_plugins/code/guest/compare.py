"""Whether a returned value is the expected one; both are built-in values by now."""

from __future__ import annotations

import math


def matches(value: object, expected: object, *, tolerance: float) -> bool:
    """Return whether a value equals what a JSON target expects.

    Types count: True is not 1, and "1" is not 1. What JSON cannot say does not: a tuple matches a
    list, a whole float matches an int, and an integer key matches its text. Floats may differ by
    the relative `tolerance`.
    """
    if isinstance(expected, bool) or expected is None or isinstance(expected, str):
        return type(value) is type(expected) and value == expected
    if isinstance(expected, int | float):
        return _is_number(value, expected, tolerance)
    if isinstance(expected, list | tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(expected)
            and all(
                matches(v, e, tolerance=tolerance) for v, e in zip(value, expected, strict=True)
            )
        )
    if isinstance(expected, dict):
        if not isinstance(value, dict) or len(value) != len(expected):
            return False
        named = {_key(key): item for key, item in value.items()}
        return named.keys() == expected.keys() and all(
            matches(named[key], item, tolerance=tolerance) for key, item in expected.items()
        )
    return False


def _is_number(value: object, expected: float, tolerance: float) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if isinstance(value, int) and isinstance(expected, int):
        return value == expected
    if value == expected or (value != value and expected != expected):
        return True
    try:
        return math.isclose(value, expected, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:  # an int that no float holds
        return False


def _key(key: object) -> object:
    if isinstance(key, bool) or key is None:
        return {True: "true", False: "false", None: "null"}[key]
    return str(key) if isinstance(key, int | float) else key
