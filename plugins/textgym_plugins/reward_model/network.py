"""A classifier with k heads and the weighting that makes one reward of them.

r(x, y) = sum_i w_i(x) r_i(x, y). The weights are fixed numbers, or softmax(G h(x)) with h(x) the
hidden state at the last token of the prompt, which in a causal model depends on the prompt alone
(the gating of Wang et al. 2024, arXiv:2406.12845, as one linear layer). k = 1 is the plain reward
model. The folder stays a Hugging Face folder: the k logits are its labels, and only the gate is a
file of its own. Weights are safetensors; nothing is unpickled and no remote code runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from textgym.errors import ConfigError
from textgym_plugins.reward_model.encoding import Encoded
from textgym_plugins.reward_model.spec import RewardSpec, read_spec
from textgym_plugins.reward_model.tiny import tiny_classifier, tiny_tokenizer

TINY = "tiny"
GATE_FILE = "gate.safetensors"


class Rewards(NamedTuple):
    """What the network says of B conversations, not normalised."""

    aggregate: Tensor
    """(B,)"""
    heads: Tensor
    """(B, k)"""
    weights: Tensor
    """(B, k)"""


class RewardNetwork(nn.Module):
    """k logits and their weighting."""

    def __init__(self, classifier: PreTrainedModel, spec: RewardSpec) -> None:
        super().__init__()
        self.classifier = classifier
        self.fixed_weights: Tensor
        self.register_buffer("fixed_weights", torch.tensor(spec.weights), persistent=False)
        self.gate = _fresh_gate(classifier, spec) if spec.gated else None

    def forward(self, input_ids: Tensor, attention_mask: Tensor, prompt_lengths: Tensor) -> Rewards:
        """Score right-padded conversations (B, T); `prompt_lengths` (B,) is for the gate."""
        output = self.classifier(
            input_ids=input_ids,
            attention_mask=attention_mask,
            output_hidden_states=self.gate is not None,
            use_cache=False,
        )
        heads = output.logits.float()
        weights = self.fixed_weights.expand_as(heads)
        if self.gate is not None:
            rows = torch.arange(len(input_ids), device=input_ids.device)
            h = output.hidden_states[-1][rows, prompt_lengths - 1]
            weights = self.gate(h.to(self.gate.weight.dtype)).float().softmax(-1)
        return Rewards((weights * heads).sum(-1), heads, weights)


def _fresh_gate(classifier: PreTrainedModel, spec: RewardSpec) -> nn.Linear:
    """Return a gate that starts from the spec's weights, normalised, whatever the prompt."""
    gate = nn.Linear(classifier.config.get_text_config().hidden_size, len(spec.heads))
    nn.init.zeros_(gate.weight)
    with torch.no_grad():
        gate.bias.copy_(torch.tensor(spec.weights).log())
    return gate


def pad(encoded: Sequence[Encoded], *, pad_id: int, device: torch.device) -> dict[str, Tensor]:
    """Return the arguments of `RewardNetwork.forward`, padded on the right."""
    longest = max(len(each.ids) for each in encoded)
    ids = torch.tensor([each.ids + [pad_id] * (longest - len(each.ids)) for each in encoded])
    ends = torch.tensor([len(each.ids) for each in encoded])
    mask = (torch.arange(longest) < ends[:, None]).long()
    lengths = torch.tensor([each.prompt_length for each in encoded])
    return {
        "input_ids": ids.to(device),
        "attention_mask": mask.to(device),
        "prompt_lengths": lengths.to(device),
    }


class LoadedModel(NamedTuple):
    """A reward model in memory."""

    network: RewardNetwork
    tokenizer: PreTrainedTokenizerBase
    spec: RewardSpec


def load_trained(model: str, *, device: torch.device) -> LoadedModel:
    """Load a reward model to score with: bfloat16 on a GPU, float32 on the CPU.

    Raises:
        ConfigError: it cannot be loaded, has no trained head, or another number of logits.
    """
    spec = read_spec(Path(model))
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    tokenizer, classifier, missing = _load(model, dtype)
    if missing:
        raise ConfigError(
            f"'{model}' is no trained reward model: {', '.join(sorted(missing)[:3])} missing. "
            f"Train one from it: textgym reward-model train PAIRS.jsonl --model {model}"
        )
    if classifier.config.num_labels != len(spec.heads):
        raise ConfigError(
            f"'{model}' has {classifier.config.num_labels} logits and its spec names "
            f"{len(spec.heads)} heads ({', '.join(spec.heads)}); name each in reward_model.json"
        )
    network = RewardNetwork(classifier, spec)
    if network.gate is not None:
        _load_gate(network.gate, Path(model) / GATE_FILE)
    return LoadedModel(network.to(device).eval(), tokenizer, spec)


def load_for_training(model: str, spec: RewardSpec) -> LoadedModel:
    """Load a model in float32 and give it a head per signal; new heads use torch's generator."""
    if model == TINY:
        tokenizer: PreTrainedTokenizerBase = tiny_tokenizer()
        classifier: PreTrainedModel = tiny_classifier(tiny_tokenizer(), num_heads=len(spec.heads))
    else:
        tokenizer, classifier, _ = _load(model, torch.float32, num_labels=len(spec.heads))
    if len(spec.heads) > 1:
        classifier.config.id2label = dict(enumerate(spec.heads))
        classifier.config.label2id = {name: i for i, name in enumerate(spec.heads)}
    return LoadedModel(RewardNetwork(classifier, spec), tokenizer, spec)


def save_network(network: RewardNetwork, folder: Path) -> None:
    """Write the weights of classifier and gate as safetensors."""
    with _no_bars():
        network.classifier.save_pretrained(folder)
    if network.gate is not None:
        state = {name: tensor.contiguous() for name, tensor in network.gate.state_dict().items()}
        save_file(state, folder / GATE_FILE)


def _load(
    model: str, dtype: torch.dtype, **config: Any
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel, set[str]]:
    """Return tokenizer, classifier and the names of weights that the files do not hold."""
    is_path = model.startswith((".", "/", "~")) or model.count("/") > 1  # a hub id has one at most
    if is_path and not Path(model).is_dir():
        raise ConfigError(f"the reward model '{model}' cannot be loaded: there is no such folder")
    try:
        with _no_bars():
            tokenizer = AutoTokenizer.from_pretrained(model)
            classifier, info = AutoModelForSequenceClassification.from_pretrained(
                model, dtype=dtype, use_safetensors=True, output_loading_info=True, **config
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(f"the reward model '{model}' cannot be loaded: {first}") from None
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise ConfigError(f"the tokenizer of '{model}' has neither a padding nor an end token")
    classifier.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return tokenizer, classifier, set(info["missing_keys"])


def _load_gate(gate: nn.Linear, path: Path) -> None:
    try:
        gate.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ConfigError(f"the gate {path} cannot be loaded: {error}") from None


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keep transformers' bars and its table of new weights off the terminal."""
    was_enabled, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if was_enabled:
            logging.enable_progress_bar()
