"""The work of the GPU benchmark of PPO, and what it costs at least: operations and bytes.

Both sides import this module, each in its own virtual environment, so it needs torch, transformers
and tokenizers alone and loads them only where it builds something.

The formulas count what PPO needs, whoever does it; a second value model, padding and anything
that is computed twice earn nothing. With N matrix weights of a layer stack, S sequences of T read
positions, R response tokens, d the width, V the vocabulary, L layers and A the width of attention:

- layers: 2 N floating-point operations a position forward, twice that backward: 6 N S T (Kaplan
  et al. 2020, arXiv:2001.08361, section 2.1);
- attention: scores and their product with the values, 4 A each pair of a position and one that it
  sees, per layer and forward: 12 A L S T (T + 1) / 2 with the backward pass;
- head: 6 V d R, and the value head 6 d R;
- model FLOPs utilisation (MFU, Chowdhery et al. 2022, arXiv:2204.02311, appendix B): their sum
  by seconds and peak. What is recomputed (the head's logits here, layers under checkpointing) is
  no part of it, and is reported as the hardware's utilisation (HFU) besides.

A decoding step reads every matrix weight once, the head included, and all keys and values so far.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from benchmarks.ppo_speed_model import Work, build_tokenizer, read_peak_rss_mib

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

PHASES = ("generation", "scoring", "update")
"""Sampling; rewards, reference, old log-probabilities, values, advantages; the epochs of PPO."""
BYTES = {"float32": 4, "bf16": 2}
WARMUPS = 1
LEARNING_RATE = 1e-8
KL_COEF = 0.05
SIDES = ("textgym", "trl")


class Peak(NamedTuple):
    """What a device can do at most, as its data sheet says."""

    flops: float
    """Dense bfloat16 operations a second."""
    bandwidth: float
    """Bytes of memory a second."""


DEVICES = {
    "NVIDIA B200": Peak(2250e12, 8.0e12),
    "NVIDIA H200": Peak(989e12, 4.8e12),
    "NVIDIA H100 80GB HBM3": Peak(989e12, 3.35e12),
    "NVIDIA H100 PCIe": Peak(756e12, 2.0e12),
    "NVIDIA A100-SXM4-80GB": Peak(312e12, 2.039e12),
    "NVIDIA A100 80GB PCIe": Peak(312e12, 1.935e12),
    "NVIDIA A100-SXM4-40GB": Peak(312e12, 1.555e12),
    "NVIDIA L40S": Peak(362e12, 0.864e12),
    "NVIDIA L4": Peak(121e12, 0.3e12),
    "NVIDIA A10": Peak(125e12, 0.6e12),
    "NVIDIA GeForce RTX 4090": Peak(165e12, 1.008e12),
}
"""By the name that torch gives; `--flops` and `--bandwidth` say it of others."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a Qwen2; the defaults are Qwen2.5-0.5B's."""

    vocabulary: int = 151_936
    hidden: int = 896
    layers: int = 24

    @property
    def intermediate(self) -> int:
        """Width of the MLP, in Qwen2.5-0.5B's proportion."""
        return self.hidden * 38 // 7

    @property
    def heads(self) -> int:
        """Attention heads of 64 numbers."""
        return max(1, self.hidden // 64)

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values, a seventh of the others."""
        return max(1, self.heads // 7)

    @property
    def head_size(self) -> int:
        """Numbers of an attention head."""
        return self.hidden // self.heads

    @property
    def layer_weights(self) -> int:
        """Matrix weights of all layers, without biases and norms."""
        attention = 2 * self.hidden * (self.heads + self.kv_heads) * self.head_size
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def head_weights(self) -> int:
        """Weights of the language model head, which is the embedding too."""
        return self.vocabulary * self.hidden


class Options(NamedTuple):
    """What one side is asked to do."""

    shape: Shape
    prompts: int
    prompt_tokens: int
    new_tokens: int
    epochs: int
    minibatches: int
    iterations: int
    device: str
    precision: str
    engine: str
    micro_batch_tokens: int
    has_tf32: bool
    threads: int

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Options:
        """Return those of a command line."""
        shape = Shape(arguments.vocabulary, arguments.hidden, arguments.layers)
        values = {name: getattr(arguments, name) for name in cls._fields if name != "shape"}
        return cls(shape=shape, **values)

    def command_line(self) -> list[str]:
        """Return the arguments that say the same to a side."""
        values = {**self.shape.__dict__, **self._asdict()}
        del values["shape"], values["has_tf32"]
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
        return [*flags, *([] if self.has_tf32 else ["--no-tf32"])]

    @property
    def lengths(self) -> Work:
        """Prompts and responses; nothing ends a response early."""
        return Work((self.prompt_tokens, self.prompt_tokens), self.new_tokens)

    @property
    def num_response_tokens(self) -> int:
        """Tokens that an iteration generates."""
        return self.prompts * self.new_tokens

    @property
    def read_positions(self) -> int:
        """Positions of a sequence that a pass computes: nothing reads the last token."""
        return self.prompt_tokens + self.new_tokens - 1


class Measurement(TypedDict):
    """What one side prints, as one line of JSON."""

    side: str
    device: str
    """As torch calls it, or `cpu`."""
    seconds: dict[str, list[float]]
    """Of each phase, of every iteration after the warm-up."""
    num_response_tokens: int
    num_optimizer_steps: int
    peak_bytes: int
    """Most that torch had allocated on the GPU; on a CPU the resident memory of the process."""
    versions: dict[str, str]


class PassFlops(NamedTuple):
    """Operations of one forward pass over all sequences, by part."""

    layers: float
    attention: float
    head: float
    value_head: float

    @property
    def total(self) -> float:
        """All parts."""
        return sum(self)


def forward_flops(options: Options) -> PassFlops:
    """Return the operations of one pass over a rollout; a backward pass takes twice as many."""
    shape, positions = options.shape, options.read_positions
    pairs = positions * (positions + 1) / 2
    attention_width = shape.heads * shape.head_size
    return PassFlops(
        layers=2.0 * shape.layer_weights * options.prompts * positions,
        attention=4.0 * attention_width * shape.layers * options.prompts * pairs,
        head=2.0 * shape.head_weights * options.num_response_tokens,
        value_head=2.0 * shape.hidden * options.num_response_tokens,
    )


def update_flops(options: Options) -> float:
    """Return the operations that the epochs of an update need; nothing is counted twice."""
    return 3 * options.epochs * forward_flops(options).total


def scoring_flops(options: Options) -> float:
    """Return the operations of scoring a rollout: the old policy with its values, the reference."""
    once = forward_flops(options)
    return 2 * once.total - once.value_head


def recomputed_flops(options: Options) -> float:
    """Return what our update computes twice at most: the head's logits, in the backward pass."""
    return options.epochs * forward_flops(options).head


def decoding_bytes(options: Options) -> float:
    """Return the bytes that decoding reads at least: weights at every step, keys and values.

    The first token comes from the prompt's pass; each of the others takes a step.
    """
    shape, size = options.shape, BYTES[options.precision]
    steps = options.new_tokens - 1
    weights = (shape.layer_weights + shape.head_weights) * size
    per_position = 2 * shape.layers * shape.kv_heads * shape.head_size * size
    positions = sum(options.prompt_tokens + step for step in range(1, steps + 1))
    return float(steps * weights + options.prompts * positions * per_position)


class Stopwatch:
    """Seconds of the phases of an iteration; the device has finished when one ends."""

    def __init__(self, device: str) -> None:
        self._is_gpu = device != "cpu"
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        self._phases: defaultdict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def lap(self, phase: str | None = None) -> None:
        """Add the time since the last lap to a phase, or to none."""
        if self._is_gpu:
            import torch

            torch.cuda.synchronize()
        now = time.perf_counter()
        if phase is not None:
            self._phases[phase] += now - self._last
        self._last = now

    def move(self, source: str, target: str, seconds: float) -> None:
        """Count seconds, which another clock has taken, to another phase of this iteration."""
        self._phases[source] -= seconds
        self._phases[target] += seconds

    def end_iteration(self) -> None:
        """Note the phases of an iteration."""
        for phase, seconds in self._phases.items():
            self.seconds[phase].append(seconds)
        self._phases.clear()

    def measured(self) -> dict[str, list[float]]:
        """Return the phases of the iterations after the warm-up."""
        return {phase: seconds[WARMUPS:] for phase, seconds in self.seconds.items()}


def build_config(shape: Shape) -> Qwen2Config:
    """Return the Qwen2 configuration."""
    from transformers import Qwen2Config

    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
        bos_token_id=None,
        pad_token_id=0,
        eos_token_id=None,
    )
    config.num_labels = 1  # read by sequence classification models alone: one value or one reward
    return config


def build_model(shape: Shape) -> Qwen2ForCausalLM:
    """Return the randomly initialised policy, float32: what learns stays so on both sides."""
    import torch
    from transformers import Qwen2ForCausalLM

    torch.manual_seed(0)
    return Qwen2ForCausalLM(build_config(shape))


def save_model(folder: Path, shape: Shape) -> None:
    """Write the model and its tokenizer."""
    build_model(shape).save_pretrained(folder)
    build_tokenizer(has_eos=False, num_ids=shape.vocabulary).save_pretrained(folder)


def prepare(options: Options) -> None:
    """Set what both sides compute with."""
    import torch

    torch.set_num_threads(options.threads)
    if options.has_tf32:
        torch.set_float32_matmul_precision("high")


def device_name(device: str) -> str:
    """Return what torch calls the device."""
    import torch

    return "cpu" if device == "cpu" else torch.cuda.get_device_name()


def peak_bytes(device: str) -> int:
    """Return the most memory that was taken."""
    import torch

    if device == "cpu":
        return int(read_peak_rss_mib() * 2**20)
    return torch.cuda.max_memory_allocated()


def autocast(options: Options) -> torch.autocast:
    """Return the context in which a model computes at the precision that was asked for."""
    import torch

    return torch.autocast(options.device, torch.bfloat16, enabled=options.precision == "bf16")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every side and the comparison have."""
    shape = Shape()
    numbers = {
        "vocabulary": shape.vocabulary, "hidden": shape.hidden, "layers": shape.layers,
        "prompts": 64, "prompt-tokens": 64, "new-tokens": 256, "epochs": 4, "minibatches": 4,
        "iterations": 3, "micro-batch-tokens": 16_384, "threads": 4,
    }  # fmt: skip
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{default} by default")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--precision", choices=sorted(BYTES), default="bf16")
    parser.add_argument("--engine", choices=("transformers", "vllm"), default="transformers")
    parser.add_argument(
        "--no-tf32", dest="has_tf32", action="store_false", help="float32 products in full"
    )
