"""From conversations to token ids, and from ids to batches of similar length.

Text that spells a special token (`<|im_end|>` in a completion) is broken up with a space first:
otherwise a policy could end its own turn and write the next one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from textgym.sample import Sample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SURROGATES = re.compile("[\ud800-\udfff]")


class Encoded(NamedTuple):
    """One conversation as ids."""

    ids: list[int]
    prompt_length: int
    """Ids that belong to the prompt, at least 1; 1 where nobody asked for it."""
    num_tokens: int
    """How long the conversation was before it was cut."""

    @property
    def is_truncated(self) -> bool:
        """Whether the beginning was cut off."""
        return self.num_tokens > len(self.ids)


class EncodingError(Exception):
    """A conversation that the tokenizer's chat template does not take."""


class Encoder:
    """Renders conversations with the tokenizer's chat template.

    A tokenizer without one, as older encoders have, gets question and completion as a text pair.

    Args:
        tokenizer: of the reward model.
        max_tokens: a longer conversation keeps its end, which a reward model reads last.
        finds_prompt: also find where the prompt ends, which a gate needs.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, max_tokens: int, finds_prompt: bool
    ) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._finds_prompt = finds_prompt
        special = sorted(map(str, tokenizer.all_special_tokens), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, special)) or r"(?!)")

    def encode(self, sample: Sample) -> Encoded:
        """Return the ids of prompt, later turns and completion.

        Raises:
            EncodingError: the chat template refuses the conversation.
        """
        (encoded,) = self.encode_batch([sample])
        if isinstance(encoded, EncodingError):
            raise encoded
        return encoded

    def encode_batch(self, samples: Sequence[Sample]) -> list[Encoded | EncodingError]:
        """Return the ids of each conversation, or why its chat template refuses it."""
        if self._tokenizer.chat_template is None:
            return [self._encode_pair(sample) for sample in samples]
        rendered = [self._render_both(sample) for sample in samples]
        usable = [each for each in rendered if not isinstance(each, EncodingError)]
        whole = iter(self._ids([conversation for conversation, _ in usable]))
        asked = iter(self._ids([prompt for _, prompt in usable]))
        return [
            each if isinstance(each, EncodingError) else self._join(next(whole), next(asked))
            for each in rendered
        ]

    def _render_both(self, sample: Sample) -> tuple[str, str] | EncodingError:
        """Return the conversation and, if it is needed, the prompt alone."""
        asked = [(m.role, m.content) for m in sample.prompt.messages]
        try:
            conversation = self._render(_conversation(sample), opens_answer=False)
            prompt = self._render(asked, opens_answer=True) if self._finds_prompt else ""
        except EncodingError as error:
            return error
        return conversation, prompt

    def _join(self, ids: list[int], asked: list[int]) -> Encoded:
        return self._cut(ids, _shared_length(asked, ids))

    def _encode_pair(self, sample: Sample) -> Encoded:
        question, answer = self._clean(sample.prompt.text), self._clean(sample.completion)
        return self._cut(list(self._tokenizer(question, answer)["input_ids"]), 1)

    def _ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:  # which tokenizers do not take
            return []
        # one call for all: a call costs as much as the ids of a short text
        return list(self._tokenizer(texts, add_special_tokens=False)["input_ids"])

    def _render(self, messages: Sequence[tuple[str, str]], *, opens_answer: bool) -> str:
        from jinja2 import TemplateError  # comes with transformers' chat templates

        chat = [{"role": role, "content": self._clean(text)} for role, text in messages]
        try:
            text = self._tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=opens_answer
            )
        except TemplateError as error:
            raise EncodingError(f"the chat template refuses the conversation: {error}") from None
        return str(text)

    def _clean(self, text: str) -> str:
        text = _SURROGATES.sub("\ufffd", str(text))
        return self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    def _cut(self, ids: list[int], prompt_length: int) -> Encoded:
        dropped = max(0, len(ids) - self._max_tokens)
        return Encoded(ids[dropped:], max(1, prompt_length - dropped), len(ids))


def _conversation(sample: Sample) -> list[tuple[str, str]]:
    """Return prompt, later turns and completion, which may be the last of the turns."""
    chat: list[tuple[str, str]] = [
        (m.role, m.content) for m in (*sample.prompt.messages, *sample.turns)
    ]
    answer = ("assistant", str(sample.completion))
    return chat if sample.turns and chat[-1] == answer else [*chat, answer]


def _shared_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many ids two sequences begin with in common: templates may end a prompt anew."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def length_batches(lengths: Sequence[int], tokens_per_batch: int) -> Iterator[list[int]]:
    """Yield indices in batches whose padded size stays within the budget, shortest first.

    One conversation above the budget is a batch of its own.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[index] * (len(batch) + 1) > tokens_per_batch:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
