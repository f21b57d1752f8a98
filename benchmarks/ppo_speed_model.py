"""The work of the speed benchmarks of PPO and GRPO: model, tokenizer, prompts, amount of training.

Both sides import this module, each in its own virtual environment, so it needs torch, transformers
and tokenizers alone and loads them only where it builds something.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_letters
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

PAD_TOKEN = "<pad>"
EOS_TOKEN = "<eos>"

NUM_PROMPTS = 64
NUM_SAMPLES = 4
"""Completions of each prompt where samples are compared (GRPO); of 16 prompts then."""
NUM_EPOCHS = 4
NUM_MINIBATCHES = 4
TEMPERATURE = 1.0
LEARNING_RATE = 1e-8
"""Steps so small that neither side learns to end its responses sooner or later than the other."""
KL_COEF = 0.05

VOCAB_SIZE = 7168
"""Seven ids for each number that a layer writes, as Qwen2.5-0.5B has: what logits and activations
take stands in its proportion then."""


@dataclass(frozen=True)
class Work:
    """The lengths of prompts and responses."""

    prompt_lengths: tuple[int, int]
    """Fewest and most tokens of a prompt; every length is as likely as any other."""
    response_length: int
    """Tokens of a response, or the most where responses end."""
    end_probability: float | None = None
    """Of the end token, at every position; None: there is none, and all responses are equal."""

    @property
    def mean_response(self) -> float:
        """Tokens of a response, the end token included: the mean of a cut geometric number."""
        if self.end_probability is None:
            return self.response_length
        return (1 - (1 - self.end_probability) ** self.response_length) / self.end_probability


WORKS = {
    "fixed": Work((16, 16), 32),
    "ragged": Work((8, 64), 96, end_probability=0.0295),  # 32 tokens of at most 96 on average
}


class Measurement(TypedDict):
    """What one run of one side prints, as one line of JSON."""

    side: str
    num_threads: int
    seconds: list[float]
    """Wall-clock seconds of each iteration after the warm-up."""
    cpu_seconds: float
    """Processor seconds of an iteration, median; far below the wall clock on a busy machine."""
    tokens_per_second: float
    """Response tokens of an iteration, the end token included, by its seconds; median."""
    num_response_tokens: int
    """Mean of an iteration: what was agreed on both sides, or near it where responses end."""
    num_optimizer_steps: int
    """Optimiser steps of an iteration: must be `NUM_EPOCHS * NUM_MINIBATCHES` on both sides."""
    peak_rss_mib: float
    import_rss_mib: float
    """Peak resident memory when everything is imported and nothing built."""
    start_rss_mib: float
    """Peak resident memory before training starts: interpreter, imports and models."""
    versions: dict[str, str]


def build_config(*, hidden_size: int = 256, num_layers: int = 4) -> Qwen2Config:
    """Return the Qwen2 configuration; the defaults give 4.6 million parameters."""
    from transformers import Qwen2Config

    config = Qwen2Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 5 // 2,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 64 or 1,
        num_key_value_heads=hidden_size // 128 or 1,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        pad_token_id=0,
        eos_token_id=None,  # every response has all its tokens; see `let_end` for the others
    )
    config.num_labels = 1  # read by sequence classification models alone: one value or one reward
    return config


def build_tokenizer(*, has_eos: bool = True, num_ids: int = VOCAB_SIZE) -> Qwen2Tokenizer:
    """Return a Qwen2 tokenizer: one id for each byte, and words to fill it up.

    Text encodes to bytes, as there are no merges; the words can be generated and decoded.
    """
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    known = [PAD_TOKEN, EOS_TOKEN, *sorted(ByteLevel.alphabet())]
    words = known + [f"w{index}" for index in range(len(known), num_ids)]
    special: dict[str, Any] = {"unk_token": PAD_TOKEN, "pad_token": PAD_TOKEN}
    special["eos_token"] = EOS_TOKEN if has_eos else None  # None is allowed, its stub says not
    return Qwen2Tokenizer(
        vocab={word: index for index, word in enumerate(words)}, padding_side="left", **special
    )


def make_prompts(work: Work, *, count: int = NUM_PROMPTS, seed: int = 0) -> list[str]:
    """Return prompts of random letters, each one token."""
    rng = random.Random(seed)
    lengths = [rng.randint(*work.prompt_lengths) for _ in range(count)]
    return ["".join(rng.choices(ascii_letters, k=length)) for length in lengths]


def build_model(work: Work, seed: int = 0) -> Qwen2ForCausalLM:
    """Return a randomly initialised causal LM, which ends its responses as the work says."""
    import torch
    from transformers import Qwen2ForCausalLM

    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(build_config())
    if work.end_probability is not None:
        let_end(model, work.end_probability)
    return model


def let_end(model: Qwen2ForCausalLM, probability: float) -> None:
    """Change the tied embedding so that the end token is that likely after any text.

    All tokens get a common component, which is then in every hidden state, and the end token's is
    made longer until its probability is as wanted.
    """
    import torch

    end = build_tokenizer().eos_token_id
    ids = torch.randint(2, VOCAB_SIZE, (16, 64), generator=torch.Generator().manual_seed(0))
    embedding = model.get_input_embeddings().weight
    with torch.no_grad():
        embedding[:, 0] += 1.0
        hidden = model.model(input_ids=ids).last_hidden_state.flatten(0, 1)
        logits = hidden @ embedding.T

        def mean_probability(longer: float) -> float:
            lifted = logits.clone()
            lifted[:, end] += longer * hidden[:, 0]
            return float(lifted.softmax(-1)[:, end].mean())

        embedding[end, 0] += _bisect(mean_probability, probability)


def _bisect(rising: Callable[[float], float], wanted: float) -> float:
    """Return where a rising function has a value."""
    low, high = 0.0, 10.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < wanted else (low, middle)
    return low


def save_model(folder: Path, work: Work) -> None:
    """Write the model and its tokenizer, with an end token where responses end."""
    build_model(work).save_pretrained(folder)
    build_tokenizer(has_eos=work.end_probability is not None).save_pretrained(folder)


def count_response_tokens(responses: Tensor, work: Work) -> int:
    """Return how many tokens of (B, T) responses stand before or at the first end token."""
    if work.end_probability is None:
        return responses.numel()
    is_end = (responses == build_tokenizer().eos_token_id).long()
    return int((is_end.cumsum(dim=1) - is_end == 0).sum())


def tokens_per_second(tokens: Sequence[int], seconds: Sequence[float]) -> float:
    """Return the median over iterations."""
    return statistics.median(t / s for t, s in zip(tokens, seconds, strict=True))


def parse_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line of one side, with the options that every side has."""
    parser.add_argument("--work", choices=sorted(WORKS), default="fixed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=5)
    return parser.parse_args()


def read_peak_rss_mib() -> float:
    """Return the peak resident memory of this process in MiB.

    Linux carries `ru_maxrss` over from the parent process through exec, so a small child of a large
    parent would report the parent; `VmHWM` belongs to this process alone.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024
