"""`UnicodeText`: the space of any text, for observations and actions of text mode.

`gymnasium.spaces.Text` needs its characters listed: with all of Unicode it takes seconds to build
and megabytes to pickle, and its default alphabet has neither a space nor the empty text. This
space bounds the length and nothing else.
"""

from __future__ import annotations

from typing import Any

from gymnasium.spaces import Space

_SAMPLE_LENGTH = 32


class UnicodeText(Space[str]):
    """Every `str` of at most `max_length` code points; None means no bound.

    `sample` draws short printable ASCII text: enough for checkers, and not a language model.
    """

    def __init__(self, max_length: int | None = None, *, seed: int | None = None) -> None:
        if max_length is not None and max_length < 0:
            raise ValueError(f"max_length must be at least 0, got {max_length}")
        self.max_length = max_length
        super().__init__(None, str, seed)

    @property
    def is_np_flattenable(self) -> bool:
        """Texts differ in length, so they do not flatten to one array shape."""
        return False

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> str:
        """Return printable ASCII of 0 to 32 characters; masks have no meaning here."""
        if mask is not None or probability is not None:
            raise ValueError("UnicodeText.sample takes neither a mask nor probabilities")
        longest = _SAMPLE_LENGTH if self.max_length is None else self.max_length
        length = int(self.np_random.integers(min(longest, _SAMPLE_LENGTH) + 1))
        return bytes(self.np_random.integers(32, 127, size=length).tolist()).decode("ascii")

    def contains(self, x: Any) -> bool:
        """Return whether `x` is a text within the bound."""
        return isinstance(x, str) and (self.max_length is None or len(x) <= self.max_length)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnicodeText) and other.max_length == self.max_length

    __hash__ = None  # type: ignore[assignment]  # spaces hold a generator: mutable, as in Gymnasium

    def __repr__(self) -> str:
        return f"UnicodeText(max_length={self.max_length})"
