"""The memory of a run by part and phase, from the model's configuration alone.

The weights are never loaded. The model is built from shapes, and the three phases of an iteration
are run on it in shapes: generation, scoring, and one optimiser step, with every tensor that is kept
for the backward pass (`LiveBytes`). So the prediction holds for any architecture, mode of tuning,
precision and length that the trainer itself can run, and changes with the trainer.

It is that of the worst case: every prompt leaves as much room as `rollout.max_new_tokens` asks for,
and every completion uses all of it. Not in it: what the interpreter and its libraries need, the
context of a GPU, and fragmentation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from textgym_agents.lm import cut
from textgym_agents.lm.config import AdapterMode, LastLayersMode, QloraMode, TrainConfig
from textgym_agents.lm.head import CHUNK_TOKENS, chunked_scores, scaled_logits
from textgym_agents.lm.kv_cache import make_cache, room_for
from textgym_agents.lm.measure import MAX_CPU_TOKENS, MAX_TOKENS
from textgym_agents.lm.modes import add_adapter, train_last_layers
from textgym_agents.lm.packing import ATTENTION, Packing, packed_arguments, sees_everything
from textgym_agents.memory.live import LiveBytes

FLOAT32 = 4
NF4_BITS = 4.127
"""Bits of a weight in NF4 with doubly quantised constants (arXiv:2305.14314, section 3)."""
OPTIMIZER_BYTES = {"adamw": 8.0, "adamw_8bit": 2.06}
"""Of each parameter that learns: two moments, in 8 bits with a scale for every 256."""


class Phase(NamedTuple):
    """The bytes of a phase of an iteration, by part."""

    name: str
    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """All parts."""
        return sum(self.parts.values())


class MemoryPlan(NamedTuple):
    """What a run is predicted to need."""

    num_parameters: int
    """Of the model, without adapter and value head."""
    num_trainable: int
    """Of the policy, without the value head."""
    phases: tuple[Phase, ...]

    @property
    def peak(self) -> Phase:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: phase.total)


class Lengths(NamedTuple):
    """Tokens of an episode in the worst case."""

    prompt: int
    completion: int

    @classmethod
    def of(cls, config: TrainConfig) -> Lengths:
        """Return those of a configuration."""
        limit = config.rollout.max_length
        completion = min(config.rollout.max_new_tokens, limit - 1)
        return cls(limit - completion, completion)

    @property
    def total(self) -> int:
        """Prompt and completion."""
        return self.prompt + self.completion


def plan_memory(
    config: TrainConfig, model_config: PreTrainedConfig, *, device: str = "cuda"
) -> MemoryPlan:
    """Predict the memory of a run.

    Args:
        config: of the run.
        model_config: of its model.
        device: `cuda` or `cpu`, where the network runs; they differ in the size of a pass.
    """
    return _Model(config, model_config, device=device).plan()


class _Model:
    """A model of shapes and the phases of an iteration on it."""

    def __init__(self, config: TrainConfig, model_config: PreTrainedConfig, *, device: str) -> None:
        self.config = config
        self.lengths = Lengths.of(config)
        self.device = device
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        mode = config.policy.mode
        self.lm = self._build(model_config)
        self.num_parameters = _count(self.lm)
        self.num_top = self._apply_mode()
        with self.fake:
            _replace_tensors(self.lm)
            self.value_head = nn.Linear(self.width, 1)
        self.packs = self.lm.config._attn_implementation == ATTENTION and sees_everything(self.lm)
        if not self.packs:
            self.num_top = 0
        self.trainable = [p for p in self.lm.parameters() if p.requires_grad]
        self.base_bytes = _quantized_bytes(self.lm) if isinstance(mode, QloraMode) else None

    def _build(self, model_config: PreTrainedConfig) -> PreTrainedModel:
        is_quantized = isinstance(self.config.policy.mode, QloraMode)
        dtype = torch.bfloat16 if is_quantized else torch.float32
        with torch.device("meta"):
            lm: PreTrainedModel = AutoModelForCausalLM.from_config(model_config, dtype=dtype)
        if lm.config._attn_implementation == "sdpa":
            lm.set_attn_implementation(ATTENTION)
        lm.eval()
        return lm

    def _apply_mode(self) -> int:
        """Let learn what learns, as the network does; return how many layers are above a cut."""
        policy, num_top = self.config.policy, 0
        self.lm.requires_grad_(policy.mode.kind == "full")
        if isinstance(policy.mode, AdapterMode):
            self.lm = add_adapter(self.lm, policy.mode, seed=0).get_base_model()
        elif isinstance(policy.mode, LastLayersMode):
            num_top = train_last_layers(self.lm, policy.mode)
            num_top = num_top if num_top < len(self.lm.get_decoder().layers) else 0
        if policy.gradient_checkpointing:
            self.lm.gradient_checkpointing_enable(
                {"use_reentrant": False, "preserve_rng_state": False}
            )
            self.lm.enable_input_require_grads()
            for module in self.lm.modules():
                module.training = True
        return num_top

    @property
    def width(self) -> int:
        """Of the hidden states."""
        width: int = self.lm.config.get_text_config().hidden_size
        return width

    @property
    def head(self) -> Tensor:
        """(V, d)."""
        weight: Tensor = self.lm.get_output_embeddings().weight
        return weight

    # Phases --------------------------------------------------------------------------------------

    def plan(self) -> MemoryPlan:
        """Return the plan."""
        held = self._held()
        gradients = sum(p.numel() * p.element_size() for p in self.trainable)
        update_peak = self._update()
        logits = min(self._logits(self._update_sequences()), max(0, update_peak - gradients))
        phases = (
            Phase("rollout", held | self._rollout()),
            Phase("scoring", held | self._scoring()),
            Phase(
                "update",
                held
                | {
                    "gradients": gradients,
                    "activations": max(0, update_peak - gradients - logits),
                    "logits": logits,
                },
            ),
        )
        return MemoryPlan(self.num_parameters, sum(p.numel() for p in self.trainable), phases)

    def _held(self) -> dict[str, int]:
        """Return what is there in every phase."""
        config = self.config
        weights = sum(p.numel() * p.element_size() for p in self.lm.parameters())
        num_trainable = sum(p.numel() for p in self.trainable) + self.width + 1
        held = {
            "weights": self.base_bytes or weights,
            "optimizer": round(num_trainable * OPTIMIZER_BYTES[config.ppo.optimizer.kind]),
        }
        if self.base_bytes is not None:
            held["weights"] += sum(p.numel() * p.element_size() for p in self.trainable)
        is_elsewhere = isinstance(config.policy.mode, AdapterMode) or config.reference.url
        if config.ppo.kl_penalty.beta > 0 and not is_elsewhere:
            held["reference"] = sum(p.numel() * p.element_size() for p in self.trainable)
        if self.num_top and self.device == "cpu":
            num_tokens = config.rollout.num_episodes * self.lengths.total
            held["kept states"] = num_tokens * self.width * FLOAT32
        return held

    def _rollout(self) -> dict[str, int]:
        """Return the cache when all completions are complete, and the logits of a step."""
        rows, prompt = self.config.rollout.num_rows, self.lengths.prompt
        self.lm.eval()  # a layer that would be recomputed ignores its cache
        with self.fake, torch.no_grad():
            ids = torch.zeros(rows, prompt, dtype=torch.long)
            cache = make_cache(self.lm.config)
            with LiveBytes(self._known(ids)) as live:
                with self._autocast():  # at its end the weights that it has cast are gone
                    hidden = self.lm.get_decoder()(
                        input_ids=ids, past_key_values=cache, use_cache=True
                    ).last_hidden_state[:, -1].clone()  # fmt: skip
            in_pass = live.peak - live.now
            kept = live.now - hidden.untyped_storage().nbytes()
            with LiveBytes(self._known(hidden)) as step:
                scaled_logits(hidden, self.head, None, 1.0)
        self.lm.train(self.config.policy.gradient_checkpointing)
        cache_bytes = round(kept * _room_at_end(self.lengths) / room_for(prompt))
        logits = 4 * step.now  # and their probabilities, cumulated in float64
        return {"KV cache": cache_bytes, "activations": max(0, in_pass - logits), "logits": logits}

    def _scoring(self) -> dict[str, int]:
        """Return what a pass without gradients needs over as many tokens as one may have."""
        default = MAX_CPU_TOKENS if self.device == "cpu" else MAX_TOKENS
        budget = self.config.ppo.micro_batch_tokens or default
        count = min(max(1, budget // self.lengths.total), self.config.rollout.num_episodes)
        with self.fake, torch.no_grad():
            peak = self._measure(count, lambda scores: None)
        logits = min(self._logits(count), peak)
        return {"activations": peak - logits, "logits": logits}

    def _logits(self, count: int) -> int:
        """Return the bytes of a chunk's logits and of their log-probabilities."""
        num_tokens = min(CHUNK_TOKENS, count * self.lengths.completion)
        return 2 * num_tokens * len(self.head) * FLOAT32

    def _update(self) -> int:
        """Return the peak of an optimiser step, its gradients included."""
        count = self._update_sequences()

        def backward(scores: tuple[Tensor, ...]) -> None:
            logprobs, entropy, values = scores
            loss = logprobs.sum() + values.sum()
            if self.config.ppo.entropy_coef > 0:
                loss = loss + entropy.sum()
            loss.backward()

        with self.fake:
            is_split = count < self.config.ppo.batch_size
            peak = self._measure(count, backward, num_passes=2 if is_split else 1)
        for p in (*self.trainable, *self.value_head.parameters()):
            p.grad = None
        return peak

    def _update_sequences(self) -> int:
        """Return how many sequences a micro-batch has."""
        batch_size, budget = self.config.ppo.batch_size, self.config.ppo.micro_batch_tokens
        if budget is None:
            return batch_size
        return min(batch_size, max(1, budget // self.lengths.total))

    def _measure(
        self, count: int, then: Callable[[tuple[Tensor, ...]], None], *, num_passes: int = 1
    ) -> int:
        """Return the peak of scoring that many sequences and of what is done then."""
        length = self.lengths.total - 1  # nothing reads the last token
        num_actions = count * self.lengths.completion
        ids = torch.zeros(count * length, dtype=torch.long)
        live = LiveBytes(self._known(ids))
        with live:
            for _ in range(num_passes):
                hidden = self._hidden(ids, count, length)
                before = hidden.index_select(0, torch.zeros(num_actions, dtype=torch.long))
                chosen = torch.zeros(num_actions, dtype=torch.long)
                logprobs, entropy = chunked_scores(before, self.head, chosen)
                values = self.value_head(before.float())
                del hidden, before
                then((logprobs, entropy, values))
                del logprobs, entropy, values
        return live.peak

    def _hidden(self, ids: Tensor, count: int, length: int) -> Tensor:
        """Return hidden states (N, d) of sequences of one length."""
        decoder: Any = self.lm.get_decoder()
        inputs: dict[str, Any] = {"input_ids": ids.view(count, length)}
        if self.packs:
            inputs = {"input_ids": ids.unsqueeze(0), **self._packed(count, length)}
        if self.num_top:
            decoder = cut.above(decoder, self.num_top)
            inputs["inputs_embeds"] = torch.zeros(1, count * length, self.width)
            del inputs["input_ids"]
        with self._autocast():
            hidden: Tensor = decoder(use_cache=False, **inputs).last_hidden_state
        return hidden.flatten(0, 1)

    def _packed(self, count: int, length: int) -> dict[str, Any]:
        """Return the arguments of a packed row of equal lengths; they are computed in numbers."""
        with unset_fake_temporarily():
            packing = Packing.of(torch.full((count,), length), length)
        return packed_arguments(packing)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.config.policy.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast("cpu", torch.bfloat16)  # the fake tensors are on the CPU

    def _known(self, *tensors: Tensor) -> list[Tensor]:
        modules = (self.lm, self.value_head)
        held = [x for m in modules for x in (*m.parameters(), *m.buffers())]
        return [*held, *tensors]


def _replace_tensors(lm: PreTrainedModel) -> None:
    """Replace all parameters and buffers, keeping tied ones tied; peft cannot move fake ones."""
    made: dict[int, Tensor] = {}
    for module in lm.modules():
        groups: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for tensors in groups:
            for name, x in tensors.items():
                if x is None:
                    continue
                if id(x) not in made:
                    made[id(x)] = torch.empty(x.shape, dtype=x.dtype)
                    if isinstance(x, nn.Parameter):
                        made[id(x)] = nn.Parameter(made[id(x)], requires_grad=x.requires_grad)
                tensors[name] = made[id(x)]


def _count(lm: PreTrainedModel) -> int:
    return sum(p.numel() for p in lm.parameters())


def _quantized_bytes(lm: PreTrainedModel) -> int:
    """Return the bytes of a frozen base whose linear layers, but the head, are in 4 bits."""
    head = lm.get_output_embeddings().weight
    linear = {
        id(m.weight)
        for m in lm.modules()
        if isinstance(m, nn.Linear) and m.weight is not head and not m.weight.requires_grad
    }
    total = 0.0
    for p in lm.parameters():
        if id(p) in linear:
            total += p.numel() * NF4_BITS / 8
        elif not p.requires_grad:
            total += p.numel() * p.element_size()
    return round(total)


def _room_at_end(lengths: Lengths) -> int:
    """Return the positions of the cache once it has grown as far as completions do."""
    room = room_for(lengths.prompt)
    while room < lengths.total - 1:  # nothing follows the last token
        room = room_for(room + 1)
    return room
