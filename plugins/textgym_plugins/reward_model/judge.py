"""Scores conversations with a loaded reward model, batched by length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from textgym import Sample, Score
from textgym.errors import ConfigError
from textgym_plugins.reward_model.encoding import Encoded, Encoder, EncodingError, length_batches
from textgym_plugins.reward_model.network import LoadedModel, Rewards, load_trained, pad

_CPU_BATCH, _GPU_BATCH = 1024, 16384


class Judge(NamedTuple):
    """A reward model with what turns its logits into scores."""

    model: LoadedModel
    encoder: Encoder
    device: torch.device

    @classmethod
    def load(cls, model: str, *, device: str = "auto", max_tokens: int | None = None) -> Judge:
        """Load a model to score with.

        Raises:
            ConfigError: the model or the device cannot be used.
        """
        where = choose_device(device)
        return cls.of(load_trained(model, device=where), where, max_tokens)

    @classmethod
    def of(cls, model: LoadedModel, device: torch.device, max_tokens: int | None = None) -> Judge:
        """Return the judge of a model that is in memory already."""
        longest = max_tokens or model.spec.max_tokens
        encoder = Encoder(model.tokenizer, max_tokens=longest, finds_prompt=model.spec.gated)
        return cls(model, encoder, device)

    def evaluate(
        self,
        samples: Sequence[Sample],
        *,
        tokens_per_batch: int | None = None,
        abstains: bool = False,
    ) -> list[Score]:
        """Return one normalised score per sample, in order."""
        scores: list[Score | None] = [None] * len(samples)
        encoded: dict[int, Encoded] = {}
        for index, one in enumerate(self.encoder.encode_batch(samples)):
            if isinstance(one, EncodingError):
                scores[index] = Score.unscored(f"prompt '{samples[index].prompt.id}': {one}")
            elif abstains and one.is_truncated:
                scores[index] = Score.unscored(_cut(one))
            else:
                encoded[index] = one
        rewards = self.rewards(list(encoded.values()), tokens_per_batch=tokens_per_batch)
        for row, (index, one) in enumerate(encoded.items()):
            scores[index] = self._score(row, rewards, one)
        return [score for score in scores if score is not None]

    def rewards(
        self, encoded: Sequence[Encoded], *, tokens_per_batch: int | None = None
    ) -> Rewards:
        """Return what the network says of each conversation, on the CPU, not normalised."""
        num_heads, pad_id = len(self.model.spec.heads), self.model.tokenizer.pad_token_id
        heads = torch.zeros(len(encoded), num_heads)
        rewards = Rewards(torch.zeros(len(encoded)), heads, torch.zeros_like(heads))
        budget = tokens_per_batch or (_CPU_BATCH if self.device.type == "cpu" else _GPU_BATCH)
        lengths = [len(each.ids) for each in encoded]
        with torch.inference_mode():
            for batch in length_batches(lengths, budget):
                inputs = pad([encoded[i] for i in batch], pad_id=pad_id, device=self.device)
                for whole, part in zip(rewards, self.model.network(**inputs), strict=True):
                    whole[batch] = part.float().cpu()
        return rewards

    def _score(self, row: int, rewards: Rewards, encoded: Encoded) -> Score:
        spec = self.model.spec
        raw = float(rewards.aggregate[row])
        reason = f"raw {raw:.4f}" + (f"; {_cut(encoded)}" if encoded.is_truncated else "")
        parts = {}
        if len(spec.heads) > 1:
            heads, weights = rewards.heads[row].tolist(), rewards.weights[row].tolist()
            parts = {
                name: Score(value, reason=f"weight {weight:.4g}")
                for name, value, weight in zip(spec.heads, heads, weights, strict=True)
            }
        return Score((raw - spec.mean) / spec.std, reason=reason, parts=parts)


def choose_device(device: str) -> torch.device:
    """Return the device of a name; `auto` is a GPU where there is one.

    Raises:
        ConfigError: there is no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = str(error).splitlines()[0]
        raise ConfigError(f"the device '{device}' cannot be used: {reason}") from None
    return found


def _cut(encoded: Encoded) -> str:
    kept = len(encoded.ids)
    return f"{encoded.num_tokens} tokens, above max_tokens {kept}; the beginning is cut off"
