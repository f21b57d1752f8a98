"""Scores that are kept in a file, so that equal samples are judged once, by any process.

One SQLite file, in WAL mode: many processes read it while one writes, and a process that dies while
it writes loses only what it was writing. SQLite comes with Python, and scores are kept as JSON: a
cache file from a stranger can hold wrong scores but cannot run code, as pickles could.

A cache can only save time. Where its file is corrupt, foreign, full or cannot be written, that is
reported once by a warning and scoring goes on without it. Failed scores are never kept, because
what failed once may work the next time. Which rewards qualify, and what a score is known by:
`textgym.score_keys`.
"""

from __future__ import annotations

import math
import os
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from sqlite3 import SQLITE_BUSY, Error

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from textgym.reward import Reward
from textgym.sample import Sample
from textgym.score import Score
from textgym.score_file import ForeignFileError, ScoreFile
from textgym.score_keys import reward_scope, sample_key

MAX_BYTES = 1 << 30
_CRC_BYTES = 4
_SCORE = TypeAdapter(Score)


class ScoreCache:
    """Scores of deterministic rewards in a file that processes and threads may share.

    Args:
        path: the file; it is made when first needed, its folder is not.
        max_bytes: the size from which on nothing more is kept.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> None:
        self.path = Path(path).absolute()
        self.counts: Counter[str] = Counter()
        """Samples so far: `hits`, `misses`, and `bypassed` (the reward's scores are not kept)."""
        self._max_bytes = max_bytes
        self._file = ScoreFile(self.path, max_bytes=max_bytes)
        self._is_readable = self._is_writable = True
        self._scopes: dict[int, tuple[Reward, bytes | None]] = {}

    def score_batch(
        self,
        reward: Reward,
        samples: Sequence[Sample],
        score_rest: Callable[[Sequence[Sample]], list[Score]],
    ) -> list[Score]:
        """Return one score per sample, in order: the kept ones, and what `score_rest` returns."""
        scope = self._scope(reward)
        if scope is None or not self._is_readable:
            self.counts["bypassed"] += len(samples)
            return score_rest(samples)
        keys = [sample_key(scope, sample) for sample in samples]
        found = self._read(keys)
        missing = [i for i, score in enumerate(found) if score is None]
        self.counts["hits"] += len(samples) - len(missing)
        self.counts["misses"] += len(missing)
        if missing:
            scores = score_rest([samples[i] for i in missing])
            self._write([(keys[i], s) for i, s in zip(missing, scores, strict=True)])
            for index, score in zip(missing, scores, strict=True):
                found[index] = score
        return [score for score in found if score is not None]

    def close(self) -> None:
        """Close the file; it is opened again when needed."""
        self._file.close()

    def __reduce__(self) -> tuple[object, ...]:
        return _make_cache, (self.path, self._max_bytes)

    def _scope(self, reward: Reward) -> bytes | None:
        found = self._scopes.get(id(reward))
        if found is None:  # the reward is kept too: an id names it only while it lives
            found = self._scopes[id(reward)] = reward, reward_scope(reward)
        return found[1]

    def _read(self, keys: Sequence[bytes | None]) -> list[Score | None]:
        try:
            rows = self._file.read([key for key in keys if key is not None])
        except (Error, ForeignFileError) as error:
            self._is_readable = _is_busy(error)
            self._report("cannot be read", error)
            return [None] * len(keys)
        return [None if key not in rows else _decode(key, rows[key]) for key in keys]

    def _write(self, scored: Sequence[tuple[bytes | None, Score]]) -> None:
        if not self._is_readable or not self._is_writable:
            return
        rows = [
            (key, row)
            for key, score in scored
            if key is not None and (row := _encode(key, score)) is not None
        ]
        try:
            self._file.write(rows)
        except (Error, ForeignFileError) as error:
            self._is_writable = _is_busy(error)
            self._report("cannot be written", error)

    def _report(self, what: str, error: Exception) -> None:
        """Warn of the first error that lasts; a busy file may be free the next time."""
        if not _is_busy(error):
            warnings.warn(
                f"the score cache {self.path} {what}: {error}; scoring goes on without it. Delete "
                "the file or name another",
                stacklevel=2,
            )


def _make_cache(path: Path, max_bytes: int) -> ScoreCache:
    return ScoreCache(path, max_bytes=max_bytes)


def _is_busy(error: Exception) -> bool:
    # The low byte is the kind of the error, the rest says more (SQLITE_BUSY_SNAPSHOT, ...).
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == SQLITE_BUSY


def _encode(key: bytes, score: Score) -> bytes | None:
    """Return a score as bytes with a checksum, or None for one that is not kept.

    A damaged file may still be a readable database; the checksum turns such rows into misses.
    """
    if score.status == "failed":
        return None
    if not score.is_scored:
        score = replace(score, value=0.0)  # JSON has no nan
    try:
        text = _SCORE.dump_json(replace(score, seconds=0.0), warnings="error")
        _SCORE.validate_json(text)  # parts of a third party may hold what JSON cannot give back
    except (PydanticSerializationError, ValidationError):
        return None
    return zlib.crc32(key + text).to_bytes(_CRC_BYTES) + text


def _decode(key: bytes, row: object) -> Score | None:
    if not isinstance(row, bytes):
        return None
    text = row[_CRC_BYTES:]
    if zlib.crc32(key + text).to_bytes(_CRC_BYTES) != row[:_CRC_BYTES]:
        return None
    try:
        score = _SCORE.validate_json(text)
    except ValidationError:
        return None
    return score if score.is_scored else replace(score, value=math.nan)
