"""The language of a text, by langdetect as the official checker asks it, but reproducibly.

langdetect draws n-grams at random and is not seeded by the official checker, so its answer on a
short or mixed text changes from run to run. Here each text is judged with one seed, by a factory
of our own: the global one that `langdetect.detect` uses is not touched.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from textgym.errors import MissingExtraError

_SEED = 0
_LONGEST = 100_000
"""langdetect looks at 10,000 characters after it has dropped URLs, which it seeks everywhere."""


class _Detection(NamedTuple):
    factory: Any  # langdetect has no types
    unclear: type[Exception]


@functools.lru_cache(maxsize=256)
def detect_language(text: str) -> str | None:
    """Return the ISO 639-1 code of the language (`zh-cn`, `zh-tw` for Chinese), None if unclear.

    Raises:
        MissingExtraError: langdetect is not installed.
    """
    factory, unclear = _detection()
    detector = factory.create()
    try:
        detector.append(text[:_LONGEST])
        language: str = detector.detect()
    except unclear:  # there are no letters to judge by
        return None
    return language


@functools.cache
def _detection() -> _Detection:
    try:
        from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory
        from langdetect.lang_detect_exception import LangDetectException
    except ModuleNotFoundError as error:
        raise MissingExtraError("langdetect", "ifeval", "detecting the language") from error
    factory = DetectorFactory()
    factory.load_profile(PROFILES_DIRECTORY)
    factory.seed = _SEED
    return _Detection(factory, LangDetectException)
