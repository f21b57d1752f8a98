"""The work of the PPO speed benchmark: model, tokenizer, prompts and amount of training.

Both sides import this module, each in its own virtual environment, so it needs torch, transformers
and tokenizers alone and loads them only where it builds something.
"""

from __future__ import annotations

import random
import resource
import sys
from pathlib import Path
from string import ascii_letters
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from transformers import Qwen2Config, Qwen2Tokenizer

PAD_TOKEN = "<pad>"
EOS_TOKEN = "<eos>"

NUM_PROMPTS = 64
PROMPT_LENGTH = 16
"""Tokens of every prompt: equal lengths, so that neither side gains or loses by how it pads."""
RESPONSE_LENGTH = 32
NUM_EPOCHS = 4
NUM_MINIBATCHES = 4
TEMPERATURE = 1.0
LEARNING_RATE = 3e-6
KL_COEF = 0.05

VOCAB_SIZE = 2048


class Measurement(TypedDict):
    """What one run of one side prints, as one line of JSON."""

    side: str
    num_threads: int
    seconds: list[float]
    """Wall-clock seconds of each iteration after the warm-up."""
    cpu_seconds: float
    """Processor seconds of an iteration, median; far below the wall clock on a busy machine."""
    tokens_per_second: float
    """Generated tokens of an iteration by the median of `seconds`."""
    num_response_tokens: int
    """Generated tokens of an iteration: must be `NUM_PROMPTS * RESPONSE_LENGTH` on both sides."""
    num_optimizer_steps: int
    """Optimiser steps of an iteration: must be `NUM_EPOCHS * NUM_MINIBATCHES` on both sides."""
    peak_rss_mib: float
    start_rss_mib: float
    """Peak resident memory before training starts: interpreter, imports and models."""
    versions: dict[str, str]


def build_config(*, hidden_size: int = 256, num_layers: int = 4) -> Qwen2Config:
    """Return the Qwen2 configuration; the defaults give 3.3 million parameters."""
    from transformers import Qwen2Config

    config = Qwen2Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 5 // 2,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 64 or 1,
        num_key_value_heads=hidden_size // 128 or 1,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=None,
        pad_token_id=0,
        eos_token_id=None,  # every response has all its tokens
    )
    config.num_labels = 1  # read by sequence classification models alone: one value or one reward
    return config


def build_tokenizer(*, has_eos: bool = True) -> Qwen2Tokenizer:
    """Return a Qwen2 tokenizer with `VOCAB_SIZE` ids: one for each byte, and words to fill it up.

    Text encodes to bytes, as there are no merges; the words can be generated and decoded.
    """
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    known = [PAD_TOKEN, EOS_TOKEN, *sorted(ByteLevel.alphabet())]
    words = known + [f"w{index}" for index in range(len(known), VOCAB_SIZE)]
    special: dict[str, Any] = {"unk_token": PAD_TOKEN, "pad_token": PAD_TOKEN}
    special["eos_token"] = EOS_TOKEN if has_eos else None  # None is allowed, its stub says not
    return Qwen2Tokenizer(
        vocab={word: index for index, word in enumerate(words)}, padding_side="left", **special
    )


def make_prompts(seed: int = 0) -> list[str]:
    """Return `NUM_PROMPTS` prompts of `PROMPT_LENGTH` random letters, each one token."""
    rng = random.Random(seed)
    return ["".join(rng.choices(ascii_letters, k=PROMPT_LENGTH)) for _ in range(NUM_PROMPTS)]


def save_model(folder: Path, seed: int = 0) -> None:
    """Write a randomly initialised causal LM and its tokenizer, without an end token."""
    import torch
    from transformers import Qwen2ForCausalLM

    torch.manual_seed(seed)
    Qwen2ForCausalLM(build_config()).save_pretrained(folder)
    build_tokenizer(has_eos=False).save_pretrained(folder)


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
