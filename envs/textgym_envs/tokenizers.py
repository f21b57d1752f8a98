"""Tokenizers of the environments: characters, or any Hugging Face tokenizer.

Ids are laid out so that an action is an id: `0 .. num_actions - 1` can be generated, everything
above (the replacement and the padding id) can only be observed. `PAD` is always an id of its own,
never the end token: a policy whose end token looks like padding cannot learn to stop.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from textgym.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CHARS = "chars"
_PRINTABLE = "\n" + "".join(map(chr, range(32, 127)))
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

Ids = NDArray[np.int64]


class Tokenizer(Protocol):
    """What an environment needs of a tokenizer."""

    num_actions: int
    """Ids below this one can be generated; the end token is among them."""
    vocab_size: int
    """Ids below this one can be observed."""
    eos_id: int
    pad_id: int
    legal: NDArray[np.bool_]
    """Shape (num_actions,): which ids are content or the end token, not other special tokens."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; never fails."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of generated ids, without an end token."""
        ...

    def decode_rows(self, ids: Ids, lengths: Sequence[int]) -> list[str]:
        """Return the texts of the rows of `ids` (k, T), of which `lengths[i]` ids count."""
        ...


class CharTokenizer:
    """One id per character of an alphabet, then EOS, then a replacement id and PAD.

    A character outside the alphabet becomes the replacement id and is decoded as U+FFFD.
    """

    def __init__(self, alphabet: str = _PRINTABLE) -> None:
        if not alphabet or len(set(alphabet)) != len(alphabet) or "\0" in alphabet:
            raise ConfigError(
                f"tokenizer: an alphabet needs at least one character, each once and none of them "
                f"NUL, got {alphabet!r}"
            )
        self.eos_id = len(alphabet)
        self.num_actions = self.eos_id + 1
        self.replacement_id = self.eos_id + 1
        self.pad_id = self.eos_id + 2
        self.vocab_size = self.eos_id + 3
        self.legal = np.ones(self.num_actions, dtype=np.bool_)
        self._ids = {character: index for index, character in enumerate(alphabet)}
        self._characters = [*alphabet, "", _REPLACEMENT, ""]
        # NUL stands for EOS and PAD: numpy drops it at the end of a text.
        self._codes = np.array([ord(c or "\0") for c in self._characters], dtype=np.uint32)

    def encode(self, text: str) -> list[int]:
        """Return one id per character."""
        ids, replacement = self._ids, self.replacement_id
        return [ids.get(character, replacement) for character in text]

    def decode(self, ids: Sequence[int]) -> str:
        """Return one character per id; EOS and PAD are the empty text."""
        characters = self._characters
        return "".join([characters[i] for i in ids])

    def decode_rows(self, ids: Ids, lengths: Sequence[int]) -> list[str]:
        """Return the texts of all rows at once; what follows the content is EOS and PAD."""
        del lengths
        texts: list[str] = self._codes[ids].view(f"U{ids.shape[1]}")[:, 0].tolist()
        return texts


class HuggingFaceTokenizer:
    """A tokenizer of the transformers library; its ids, and a PAD of our own above them."""

    def __init__(self, name: str) -> None:
        self._tokenizer = _load_pretrained(name)
        eos = self._tokenizer.eos_token_id
        if not isinstance(eos, int):
            raise ConfigError(f"tokenizer: '{name}' defines no end token, so no episode could end")
        self.eos_id = eos
        self.num_actions = len(self._tokenizer)
        self.pad_id = self.num_actions
        self.vocab_size = self.num_actions + 1
        self.legal = np.ones(self.num_actions, dtype=np.bool_)
        self.legal[[i for i in self._tokenizer.all_special_ids if i < self.num_actions]] = False
        self.legal[eos] = True

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text as it is: the template has put its special tokens in."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of the ids, special tokens included: a reward sees what was generated."""
        text = self._tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
        return str(text)

    def decode_rows(self, ids: Ids, lengths: Sequence[int]) -> list[str]:
        """Return the texts of the rows, one by one."""
        rows = zip(ids.tolist(), lengths, strict=True)
        return [self.decode(row[:length]) for row, length in rows]


@functools.lru_cache(maxsize=8)
def make_tokenizer(spec: str) -> Tokenizer:
    """Return the tokenizer of `chars`, `chars:<alphabet>`, or a Hugging Face path or hub id."""
    kind, colon, alphabet = spec.partition(":")
    if kind == _CHARS:
        return CharTokenizer(alphabet) if colon else CharTokenizer()
    return HuggingFaceTokenizer(spec)


def _load_pretrained(name: str) -> PreTrainedTokenizerBase:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingExtraError("transformers", "agents", f"the tokenizer '{name}'") from error
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"tokenizer: '{name}' is neither 'chars', nor 'chars:<alphabet>', nor a folder or hub "
            f"id that transformers can load: {error}"
        ) from error
    return tokenizer
