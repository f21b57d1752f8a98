"""A reward model on the CPU: batches by length against one conversation at a time.

The model is a randomly initialised Qwen2 classifier (2 layers of width 64, bytes as ids), one
thread, float32. The conversations are sums as in the embedded world, about 35 tokens with the chat
template, and one in 16 has 30 more. Both sides tokenise, and their scores are checked to agree.
What a batch saves is the cost of a call, so the ratio falls as model and text grow, until the core
computes all the time.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForSequenceClassification

from benchmarks.table import Row, print_table
from textgym import Prompt, Sample
from textgym_plugins.reward_model import RewardModel
from textgym_plugins.reward_model.tiny import tiny_tokenizer

NUM_SAMPLES = 512
NUM_ROUNDS = 5


def run() -> list[Row]:
    """Return the row of batching."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            _write_model(Path(folder))
            return [_row(RewardModel(model=folder, device="cpu"))]
    finally:
        torch.set_num_threads(threads)


def _row(reward: RewardModel) -> Row:
    samples = _samples()
    batched = [score.value for score in reward.evaluate(samples)]  # also loads the model
    singly = [reward.evaluate([sample])[0].value for sample in samples]
    difference = max(abs(a - b) for a, b in zip(batched, singly, strict=True))
    if not difference < 1e-4:
        raise AssertionError(f"batched and single scores differ by {difference}")
    ours, peer = [], []
    for _ in range(NUM_ROUNDS):
        peer.append(_seconds(lambda: [reward.evaluate([sample]) for sample in samples]))
        ours.append(_seconds(lambda: reward.evaluate(samples)))
    return Row(
        "reward model, batched / one by one",
        NUM_SAMPLES / statistics.median(ours),
        NUM_SAMPLES / statistics.median(peer),
        "samples/s",
        target=3.0,
        note="CPU, one thread",
    )


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _write_model(folder: Path) -> None:
    tokenizer = tiny_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config.num_labels = 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Qwen2ForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _samples() -> list[Sample]:
    rng = random.Random(0)
    samples = []
    for index in range(NUM_SAMPLES):
        a, b = rng.randrange(100), rng.randrange(100)
        steps = 2 if index % 16 == 0 else 0
        prompt = Prompt(id=str(index), messages=f"{a} + {b} = ?")
        samples.append(Sample(prompt, "Carry the one. " * steps + str(a + b)))
    return samples


if __name__ == "__main__":
    print_table(run())
