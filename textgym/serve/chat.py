"""Chat completions of a small model, in the form that OpenAI-compatible clients speak.

It is the generator of a test or of a small run, on the machine that has the model; what answers
thousands of users is vLLM. Requests that wait are answered together, as one padded batch.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from textgym.errors import ConfigError
from textgym.serve.chat_wire import Assistant, ChatRequest, ChatResponse, Choice, Usage
from textgym.serve.fingerprint import model_fingerprint
from textgym.serve.jobs import RefusedError
from textgym.serve.models import load_model
from textgym.serve.services import ServiceName

if TYPE_CHECKING:
    import torch

_MAX_BATCH = 64
"""Requests that are answered together."""


class _Waiting(NamedTuple):
    """A request whose answer somebody waits for."""

    ids: list[int]
    max_tokens: int
    temperature: float
    future: Future[list[int]]


class ChatService:
    """Answers conversations with one model.

    Args:
        folder: the model as `save_pretrained` writes it, weights as safetensors, with a tokenizer
            that has a chat template.
        device: as torch names it; None takes a GPU where there is one.
    """

    name: ServiceName = "chat"
    deterministic: bool | None = None
    dense: bool | None = None

    def __init__(self, folder: Path, *, device: str | None = None) -> None:
        self._model, self._device = load_model(folder, needs="the chat service", device=device)
        self._tokenizer = _chat_tokenizer(folder)
        self._max_length = int(getattr(self._model.config, "max_position_embeddings", 4096))
        self.title = folder.name
        self.fingerprint = model_fingerprint(folder)
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._answer_all, daemon=True, name="chat")
        self._thread.start()

    def complete(self, request: ChatRequest) -> ChatResponse:
        """Return the answer to a conversation.

        Raises:
            RefusedError: it streams, the template refuses it, or it leaves no room for an answer.
        """
        if request.stream:
            raise RefusedError(422, "stream", "this service does not stream; set stream to false")
        ids = self._encode(request)
        room = self._max_length - len(ids)
        if room < 1:
            what = f"the conversation has {len(ids)} tokens; this model takes {self._max_length}"
            raise RefusedError(422, "too_long", what)
        future: Future[list[int]] = Future()
        self._waiting.put(
            _Waiting(ids, min(request.limit, room), request.temperature or 0.0, future)
        )
        answer = future.result()
        ends = bool(answer) and answer[-1] in self._end_ids
        text = self._tokenizer.decode(answer, skip_special_tokens=True)
        choice = Choice(message=Assistant(content=text), finish_reason="stop" if ends else "length")
        usage = Usage(
            prompt_tokens=len(ids),
            completion_tokens=len(answer),
            total_tokens=len(ids) + len(answer),
        )
        return ChatResponse(
            created=int(time.time()), model=self.title, choices=(choice,), usage=usage
        )

    def close(self) -> None:
        """Answer what waits, end the thread and let go of the model."""
        self._waiting.put(None)
        self._thread.join()
        self._model = None

    def _encode(self, request: ChatRequest) -> list[int]:
        messages = [m.model_dump() for m in request.messages]
        try:
            encoded = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=True
            )
        except Exception as error:  # a template is a program of whoever made the model
            what = f"the chat template refuses the messages: {type(error).__name__}"
            raise RefusedError(422, "template", what) from None
        return [int(each) for each in encoded["input_ids"]]

    @property
    def _end_ids(self) -> frozenset[int]:
        ends = self._model.generation_config.eos_token_id
        return frozenset([ends] if isinstance(ends, int) else ends or ())

    def _answer_all(self) -> None:
        """Answer what waits, until there is a None."""
        while (first := self._waiting.get()) is not None:
            batch, is_last = [first], False
            while len(batch) < _MAX_BATCH and not is_last:
                try:
                    more = self._waiting.get_nowait()
                except queue.Empty:
                    break
                is_last = more is None
                batch += [] if more is None else [more]
            for alike in _alike(batch):
                self._answer(alike)
            if is_last:
                return

    def _answer(self, batch: Sequence[_Waiting]) -> None:
        try:
            answers = self._generate(batch)
        except Exception as error:  # it would end the thread, and everybody would wait for ever
            for each in batch:
                each.future.set_exception(error)
            return
        for each, answer in zip(batch, answers, strict=True):
            each.future.set_result(answer)

    def _generate(self, batch: Sequence[_Waiting]) -> list[list[int]]:
        """Return the answers to requests of one temperature, end tokens included."""
        import torch

        longest = max(len(each.ids) for each in batch)
        pad = self._tokenizer.pad_token_id or 0
        ids = torch.full((len(batch), longest), pad, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, each in enumerate(batch):
            ids[row, longest - len(each.ids) :] = torch.tensor(each.ids)
            mask[row, longest - len(each.ids) :] = 1
        temperature = batch[0].temperature
        sampling = {"temperature": temperature, "top_p": 1.0, "top_k": 0} if temperature else {}
        with torch.inference_mode():
            written: torch.Tensor = self._model.generate(
                input_ids=ids.to(self._device),
                attention_mask=mask.to(self._device),
                max_new_tokens=max(each.max_tokens for each in batch),
                do_sample=temperature > 0,
                pad_token_id=pad,
                **sampling,
            )
        rows = written[:, longest:].tolist()
        return [self._cut(row, each.max_tokens) for row, each in zip(rows, batch, strict=True)]

    def _cut(self, ids: list[int], most: int) -> list[int]:
        """Return an answer up to its end token, or its limit."""
        end = next((i + 1 for i, each in enumerate(ids) if each in self._end_ids), len(ids))
        return ids[: min(end, most)]


def _alike(batch: Sequence[_Waiting]) -> Iterator[list[_Waiting]]:
    """Yield the requests of each temperature."""
    for temperature in dict.fromkeys(each.temperature for each in batch):
        yield [each for each in batch if each.temperature == temperature]


def _chat_tokenizer(folder: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    if not (folder / "tokenizer.json").is_file():
        raise ConfigError(f"--model {folder} is no folder of a model: it has no tokenizer.json")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    if not tokenizer.chat_template:
        raise ConfigError(f"--model {folder}: its tokenizer has no chat template")
    return tokenizer
