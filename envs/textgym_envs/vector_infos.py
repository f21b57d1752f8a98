"""Vector infos without a Python loop over environments.

Gymnasium's vector info is one array per key with a mask `_key`, and a nested dictionary where an
environment's info holds one. Here the values live in tables whose first row is "nothing" (None, or
0), and every environment points to a row: then all keys of one type are one `take`. No two values
of a result overlap in memory; the masks of one dictionary are one array, which is read-only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from textgym_envs.arrays import Bools, Floats, Ints, Texts
from textgym_envs.judging import TEXT_KEYS, Outcome
from textgym_envs.prompt_table import RESET_KEYS

_NUMBER_KEYS = ("is_success", "score", "reward_parts", "n_prompt_tokens", "n_completion_tokens")
_FINAL_KEYS = TEXT_KEYS + _NUMBER_KEYS
_MASKS_OF_FINAL = tuple(f"_{key}" for key in _FINAL_KEYS)
_MASKS_OF_RESET = tuple(f"_{key}" for key in RESET_KEYS)


class Outcomes(NamedTuple):
    """Outcomes as tables; row 0 is that of an environment without one."""

    numbers: Floats
    """Columns: reward, is_success, num_tokens, score, and the rubric's components."""
    texts: Texts
    """Columns: `TEXT_KEYS`."""


def outcome_table(outcomes: Sequence[Outcome], part_names: Sequence[str]) -> Outcomes:
    """Return the outcomes as the rows 1, 2, ... of a table."""
    numbers = np.zeros((1 + len(outcomes), 4 + len(part_names)), dtype=np.float64)
    texts = np.empty((1 + len(outcomes), len(TEXT_KEYS)), dtype=object)
    for i, each in enumerate(outcomes, start=1):
        numbers[i] = (each.reward, each.is_success, each.num_tokens, each.score, *each.parts)
        texts[i] = each.texts
    return Outcomes(numbers, texts)


def reset_infos(texts: Texts, mask: Bools) -> dict[str, Any]:
    """Return the infos of `RESET_KEYS` from their values (num_envs, 3)."""
    infos: dict[str, Any] = dict.fromkeys(_MASKS_OF_RESET, _read_only(mask))
    infos.update(zip(RESET_KEYS, texts.T, strict=True))
    return infos


class Final(NamedTuple):
    """What the environments that ended contribute to a step."""

    rewards: Floats
    """Shape (num_envs,), 0.0 where the episode goes on."""
    infos: dict[str, Any]


def final_infos(
    outcomes: Outcomes,
    places: NDArray[np.integer],
    num_prompt_tokens: Ints,
    part_names: Sequence[str],
    mask: Bools,
) -> Final:
    """Return rewards and final infos, equal to batching each `Outcome.info`.

    Args:
        outcomes: where the outcomes are.
        places: row of `outcomes` by environment, 0 where `mask` is False; shape (num_envs,).
        num_prompt_tokens: 0 where `mask` is False; shape (num_envs,).
        part_names: the components of the rubric.
        mask: which environments ended; shape (num_envs,).
    """
    numbers = outcomes.numbers.take(places, axis=0)
    rewards, is_success, num_tokens, score, *parts = numbers.T
    mask = _read_only(mask)
    reward_parts: dict[str, Any] = dict(zip(part_names, parts, strict=True))
    reward_parts |= {f"_{name}": mask for name in part_names}
    values = [
        *outcomes.texts.take(places, axis=0).T,
        is_success.astype(np.bool_),
        score,
        reward_parts,
        num_prompt_tokens,
        num_tokens.astype(np.int64),
    ]
    infos: dict[str, Any] = dict.fromkeys(_MASKS_OF_FINAL, mask)
    infos.update(zip(_FINAL_KEYS, values, strict=True))
    return Final(rewards, infos)


def leave_success_open(infos: dict[str, Any], rows: Bools) -> None:
    """Take `is_success` out of final infos in `rows`, whose rewards do not declare a best value."""
    known = infos["_is_success"] & ~rows
    infos["is_success"] &= known
    infos["_is_success"] = _read_only(known)
    if not known.any():
        del infos["is_success"], infos["_is_success"]


def object_info(values: Sequence[object], rows: Ints, num_envs: int) -> Texts:
    """Return an object array with `values` at `rows` and None elsewhere."""
    array = np.empty(num_envs, dtype=object)
    for row, value in zip(rows.tolist(), values, strict=True):
        array[row] = value
    return array


def _read_only(mask: Bools) -> Bools:
    """Return a copy for all keys of a dictionary to share, safe because nobody can write to it."""
    mask = mask.copy()
    mask.setflags(write=False)
    return mask
