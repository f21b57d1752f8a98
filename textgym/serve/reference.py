"""Log-probabilities of given tokens under a causal language model: the reference policy.

Logits are turned into log-probabilities a bounded number of rows at a time: the float32 copy of a
whole batch over a vocabulary of 150,000 is what exhausts memory first.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from textgym.serve.fingerprint import model_fingerprint
from textgym.serve.jobs import RefusedError
from textgym.serve.models import load_model
from textgym.serve.services import ServiceName
from textgym.serve.wire import LogprobRequest, LogprobResponse, LogprobSequence

if TYPE_CHECKING:
    import torch

_ROWS = 1024
"""Positions whose log-probabilities are computed at once."""


class ReferenceService:
    """Evaluates sequences under one model.

    Args:
        folder: the model as `save_pretrained` writes it; weights as safetensors only, because
            unpickling runs code.
        device: as torch names it; None takes a GPU where there is one.
        dtype: of the weights; None is bfloat16 on a GPU, which samples so too, and float32 else.
        max_tokens: padded tokens of one pass through the model.
    """

    name: ServiceName = "reference"
    deterministic: bool | None = None
    dense: bool | None = None

    def __init__(
        self,
        folder: Path,
        *,
        device: str | None = None,
        dtype: str | None = None,
        max_tokens: int = 8192,
    ) -> None:
        self._model, self._device = load_model(
            folder, needs="the reference service", device=device, dtype=dtype
        )
        self._vocabulary = int(self._model.get_input_embeddings().num_embeddings)
        self._max_length = getattr(self._model.config, "max_position_embeddings", None) or math.inf
        self._max_tokens = max_tokens
        self._lock = threading.Lock()
        self.title = folder.name
        self.fingerprint = model_fingerprint(folder)

    def logprobs(self, request: LogprobRequest, request_id: str | None) -> LogprobResponse:
        """Return log p(id | what stands before it) of each completion id.

        Raises:
            RefusedError: an id is not in the vocabulary, or a sequence is too long.
        """
        sequences = request.sequences
        for index, sequence in enumerate(sequences):
            self._check(index, sequence)
        rows: dict[int, tuple[float, ...]] = {}
        with self._lock:  # one pass at a time: two would need twice the memory
            for indices in self._batches(sequences):
                batch = [sequences[i] for i in indices]
                rows |= zip(indices, self._evaluate(batch, request), strict=True)
        ordered = tuple(rows[index] for index in range(len(sequences)))
        if not all(math.isfinite(value) for row in ordered for value in row):
            raise RefusedError(
                422,
                "not_finite",
                "the model gives a token probability zero or nan; see its weights",
            )
        return LogprobResponse(
            fingerprint=self.fingerprint, request_id=request_id, logprobs=ordered
        )

    def close(self) -> None:
        """Let go of the model."""
        self._model = None

    def _check(self, index: int, sequence: LogprobSequence) -> None:
        ids = (*sequence.prompt_ids, *sequence.completion_ids)
        last = self._vocabulary - 1
        wrong = next((i for i in ids if not 0 <= i <= last), None)
        if wrong is not None:
            what = f"the id {wrong}; the ids of this model are 0 to {last}"
            raise RefusedError(422, "token_id", f"sequences[{index}] has {what}")
        if len(ids) > self._max_length:
            what = f"{len(ids)} ids; this model takes {self._max_length}"
            raise RefusedError(422, "too_long", f"sequences[{index}] has {what}")

    def _batches(self, sequences: Sequence[LogprobSequence]) -> Iterator[list[int]]:
        """Yield indices of sequences of about one length, as many as the token budget allows."""
        batch: list[int] = []
        for index in sorted(range(len(sequences)), key=lambda i: _length(sequences[i])):
            if batch and _length(sequences[index]) * (len(batch) + 1) > self._max_tokens:
                yield batch
                batch = []
            batch.append(index)
        yield batch

    def _evaluate(
        self, batch: Sequence[LogprobSequence], request: LogprobRequest
    ) -> list[tuple[float, ...]]:
        import torch

        longest = max(_length(sequence) for sequence in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        positions: list[tuple[int, int]] = []  # logits there predict a completion id
        for row, sequence in enumerate(batch):
            whole = torch.tensor([*sequence.prompt_ids, *sequence.completion_ids])
            ids[row, : len(whole)] = whole
            mask[row, : len(whole)] = 1
            positions += [(row, p - 1) for p in range(len(sequence.prompt_ids), len(whole))]
        with torch.inference_mode():
            logits = self._model(
                input_ids=ids.to(self._device),
                attention_mask=mask.to(self._device),
                use_cache=False,
            ).logits
            for start, stop in request.illegal_ranges:
                first, last = (min(max(0, i), self._vocabulary) for i in (start, stop))
                logits[..., first:last] = -math.inf
            flat = iter(_gather(logits, ids.to(self._device), positions, request.temperature))
        return [tuple(next(flat) for _ in sequence.completion_ids) for sequence in batch]


def _gather(
    logits: torch.Tensor, ids: torch.Tensor, positions: list[tuple[int, int]], temperature: float
) -> list[float]:
    """Return the log-probability of the id after each position; `logits` is (B, T, V)."""
    import torch

    values: list[float] = []
    for start in range(0, len(positions), _ROWS):
        rows, columns = torch.tensor(positions[start : start + _ROWS], device=logits.device).T
        chosen = logits[rows, columns].float() / temperature
        logprobs = torch.log_softmax(chosen, dim=-1)
        values += logprobs.gather(1, ids[rows, columns + 1].unsqueeze(1)).squeeze(1).tolist()
    return values


def _length(sequence: LogprobSequence) -> int:
    return len(sequence.prompt_ids) + len(sequence.completion_ids)
