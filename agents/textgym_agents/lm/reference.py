"""Log-probabilities of the reference policy from a service: `textgym serve reference`.

The model then needs no place beside the trainer's own. The service is asked with token ids only,
under the trainer's temperature and with the trainer's illegal ids; a request is repeated as the
configuration says, and what cannot be had stops the run: there is no training without it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

import torch
from pydantic import ValidationError
from torch import Tensor

from textgym.background_loop import background_loop
from textgym.http_calls import CallerSpec, JsonCaller, UnusableAnswerError, json_caller
from textgym.serve.wire import LogprobRequest, LogprobResponse, LogprobSequence
from textgym_agents.core.buffer import Batch
from textgym_agents.lm.config import ReferenceConfig


class RemoteReference:
    """The reference policy behind a URL.

    Args:
        config: where the service is.
        illegal: (V,) bool, True on ids that may not be sampled; None allows all.
        temperature: of sampling.
    """

    def __init__(
        self, config: ReferenceConfig, *, illegal: Tensor | None, temperature: float
    ) -> None:
        if config.url is None:
            raise ValueError("a reference behind a URL needs the URL")
        self._spec = CallerSpec(
            config.url, config.token_env, config.retry, config.concurrency, None, "the reference"
        )
        self._config = config
        self._ranges = () if illegal is None else _ranges(illegal)
        self._temperature = temperature
        self._fingerprint = config.fingerprint

    def logprobs(self, batch: Batch) -> Tensor:
        """Return (B, T) log-probabilities of the actions, 0 off the mask.

        Raises:
            CallError: the service cannot be had, or is another one than before.
        """
        rows = [
            (i, _sequence(ids[:n], mask[:n]))
            for i, (ids, mask, n) in enumerate(
                zip(
                    batch.input_ids, batch.action_mask, batch.attention_mask.sum(dim=1), strict=True
                )
            )
            if bool(mask.any())
        ]
        answers = background_loop().run(self._ask([sequence for _, sequence in rows]))
        out = torch.zeros(batch.action_mask.shape)
        for (i, sequence), values in zip(rows, answers, strict=True):
            start = len(sequence.prompt_ids)
            out[i, start : start + len(values)] = torch.tensor(values)
        return torch.where(batch.action_mask.cpu(), out, 0.0)

    async def _ask(self, sequences: Sequence[LogprobSequence]) -> list[tuple[float, ...]]:
        caller = json_caller(self._spec)
        size = self._config.batch_size
        parts = [tuple(sequences[i : i + size]) for i in range(0, len(sequences), size)]
        answers = []
        if self._fingerprint is None and parts:  # the others must come from the same service
            answers.append(await self._post(caller, parts.pop(0)))
        answers += await asyncio.gather(*(self._post(caller, part) for part in parts))
        return [row for answer in answers for row in answer.logprobs]

    async def _post(
        self, caller: JsonCaller, sequences: tuple[LogprobSequence, ...]
    ) -> LogprobResponse:
        request = LogprobRequest(
            sequences=sequences,
            temperature=self._temperature,
            illegal_ranges=self._ranges,
            fingerprint=self._fingerprint,
        )
        body = request.model_dump_json(exclude_defaults=True).encode()
        request_id = hashlib.sha256(body).hexdigest()

        def read(answer: object) -> LogprobResponse:
            return _read(answer, request_id, sequences)

        answer = await caller.post("/v1/logprobs", body, read, headers={"X-Request-Id": request_id})
        self._fingerprint = answer.fingerprint
        return answer


def _read(answer: object, request_id: str, sequences: Sequence[LogprobSequence]) -> LogprobResponse:
    try:
        response = LogprobResponse.model_validate(answer)
    except ValidationError as error:
        raise UnusableAnswerError(" ".join(str(error).split())[:300]) from None
    if response.request_id != request_id:
        raise UnusableAnswerError(f"it answers the request {response.request_id!r}")
    wanted = [len(sequence.completion_ids) for sequence in sequences]
    if [len(row) for row in response.logprobs] != wanted:
        raise UnusableAnswerError("it has not one number for each completion id")
    return response


def _sequence(ids: Tensor, mask: Tensor) -> LogprobSequence:
    """Return all before the first action as the prompt, and what follows as the completion."""
    first, last = mask.nonzero().squeeze(1)[[0, -1]].tolist()
    return LogprobSequence(
        prompt_ids=tuple(ids[:first].tolist()),
        completion_ids=tuple(ids[first : last + 1].tolist()),
    )


def _ranges(flags: Tensor) -> tuple[tuple[int, int], ...]:
    """Return (start, stop) of each run of True."""
    edges = torch.diff(flags.int().cpu(), prepend=torch.zeros(1), append=torch.zeros(1))
    starts, stops = (edges == 1).nonzero(), (edges == -1).nonzero()
    return tuple(zip(starts.flatten().tolist(), stops.flatten().tolist(), strict=True))
