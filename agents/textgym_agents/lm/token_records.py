"""What rollouts/*.jsonl says of each token: its text, log-probability, value, advantage and KL.

The figures are those of the update that learnt from the episode, under the policy that sampled it.
Only episodes that are written down get them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from textgym_agents.core.buffer import Batch
from textgym_agents.lm.transcript import Transcript

_DIGITS = 4
_UNFINISHED = "\ufffd"
_LONGEST_CHARACTER = 8
"""Tokens; a character of four bytes is at most four, and others may stand for unknown bytes."""


class TokenMeasures(NamedTuple):
    """Figures of the tokens of one episode, each of the length of its sequence, where known."""

    values: list[float] | None
    """V of the state before the token."""
    advantages: list[float]
    """As the policy learnt from them, but for whitening over minibatches."""
    kl: list[float] | None
    """log pi_old - log pi_ref, the estimate k1 of KL(policy || reference); nats."""


def keep_measures(
    transcripts: Sequence[Transcript], batch: Batch, kl: Tensor | None, *, has_critic: bool
) -> None:
    """Note on the first episodes of a batch what the update knows of their tokens.

    Args:
        transcripts: the episodes of the first rows, in their order.
        batch: with advantages.
        kl: (B, T), nats; None without a reference.
        has_critic: whether the values mean anything.
    """
    for row, transcript in enumerate(transcripts):
        length = len(transcript.ids)
        transcript.measures = TokenMeasures(
            values=batch.values[row, :length].tolist() if has_critic else None,
            advantages=batch.advantages[row, :length].tolist(),
            kl=None if kl is None else kl[row, :length].tolist(),
        )


def token_record(
    transcript: Transcript, tokenizer: PreTrainedTokenizerBase
) -> dict[str, dict[str, list[Any]]]:
    """Return the field `tokens` of an episode's record; nothing where no token was sampled.

    Its lists begin at the first sampled token. Tokens of the environment have texts alone: their
    figures are null.
    """
    if True not in transcript.is_action:
        return {}
    start = transcript.is_action.index(True)
    columns: dict[str, Sequence[float] | None] = {"logprobs": transcript.logprobs}
    if transcript.measures is not None:
        columns |= transcript.measures._asdict()
    is_action = transcript.is_action[start:]
    return {
        "tokens": {
            "text": token_texts(tokenizer, transcript.ids[start:]),
            **{
                name: [
                    round(x, _DIGITS) if sampled and math.isfinite(x) else None
                    for x, sampled in zip(column[start:], is_action, strict=True)
                ]
                for name, column in columns.items()
                if column is not None
            },
        }
    }


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Return the text of each token; together they are the text of all.

    A character of several tokens belongs to the last one of them, and the others are empty. Ids
    are decoded with those before them, because tokenizers drop spaces at a beginning.
    """
    return list(_texts(tokenizer, ids))


def _texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> Iterator[str]:
    before, start = 0, 0
    for stop in range(1, len(ids) + 1):
        known = _decode(tokenizer, ids[before:start])
        text = _decode(tokenizer, ids[before:stop])
        is_last = stop == len(ids) or stop - start >= _LONGEST_CHARACTER
        if text.endswith(_UNFINISHED) and not is_last:
            yield ""
            continue
        yield text[len(known) :]
        before, start = start, stop


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))
