"""Policy and value function on one trunk: any Hugging Face causal language model.

The value head reads the hidden state after the final norm. It starts at zero, so V is 0 at first
and the first value gradient that enters the trunk is exactly zero. Entry j of every result scores
token x_j and is read at position j - 1: V_j does not depend on x_j.

Batches are padded on the right; what is padding is left out where the model can read sequences
packed in one row (`packing`), and harmless where it cannot: no token sees what is after it.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer
from transformers.modeling_layers import GradientCheckpointingLayer

from textgym.errors import ConfigError
from textgym_agents.core.buffer import Batch, Evaluation
from textgym_agents.lm import cut, policy_files
from textgym_agents.lm.config import AdapterMode, LastLayersMode, PolicyConfig, QloraMode
from textgym_agents.lm.cpu_matmul import even_rows, speed_up
from textgym_agents.lm.head import TokenScores, chunked_scores, scaled_logits
from textgym_agents.lm.modes import add_adapter, train_last_layers
from textgym_agents.lm.packing import Packing, packed_arguments, use_packing
from textgym_agents.lm.shapes import BUILT_IN
from textgym_agents.lm.tiny import tiny_model, tiny_tokenizer


class ForwardOutput(NamedTuple):
    """Hidden states and values of a batch of sequences."""

    hidden: Tensor
    """(B, T, d) after the final norm."""
    values: Tensor
    """(B, T) float32; entry j is V of the state before token j, entry 0 is 0."""


class ReadStates(NamedTuple):
    """Hidden states of the tokens of a batch that were read."""

    hidden: Tensor
    """(N, d)."""
    starts: Tensor
    """(B,): where those of each sequence begin."""


class ActionAndValue(NamedTuple):
    """One decision per sequence; each (B,)."""

    action: Tensor
    logprob: Tensor
    entropy: Tensor
    value: Tensor


class PolicyValueNetwork(nn.Module):
    """A causal language model with a value head, in one of four modes of training.

    Args:
        lm: the causal language model.
        tokenizer: its tokenizer; ids at or above `len(tokenizer)` are never sampled.
        config: mode of training and precision.
        base_path: where the frozen base of an adapter can be loaded from; None if only from here.
        seed: of the weights of an adapter that is added.
    """

    def __init__(
        self,
        lm: PreTrainedModel,
        tokenizer: Tokenizer,
        config: PolicyConfig,
        *,
        base_path: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.lm: Any = lm
        self.tokenizer = tokenizer
        self.config = config
        self.base_path = base_path
        self.seed = seed
        self.temperature = 1.0
        self.value_head = nn.Linear(lm.config.get_text_config().hidden_size, 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self.peft: Any = None
        self.illegal: Tensor | None
        self.register_buffer("illegal", self._illegal_ids(config.legal_ids), persistent=False)
        self.lm.eval()  # a model that was just built may have dropout on
        self._check_head()
        self._check_generation_config()
        self.packs = use_packing(lm)
        self.set_mode(config)

    @classmethod
    def from_config(cls, config: PolicyConfig, *, seed: int) -> PolicyValueNetwork:
        """Build an embedded model, or load one from a folder, a run or the hub."""
        if config.model in BUILT_IN:
            if isinstance(config.mode, QloraMode):
                raise ConfigError("policy.mode: qlora loads a model from a folder or the hub")
            tiny = tiny_tokenizer()
            embedded = tiny_model(tiny, seed=seed, shape=BUILT_IN[config.model])
            return cls(embedded, tiny, config, seed=seed)
        if (saved := policy_files.find_policy(config.model)) is not None:
            return cls.load(saved, config=config, seed=seed)
        lm, tokenizer = policy_files.load_pretrained(config.model, config.mode)
        return cls(lm, tokenizer, config, base_path=config.model, seed=seed)

    # Modes ---------------------------------------------------------------------------------------

    def set_mode(self, config: PolicyConfig) -> None:
        """Choose which parameters learn: all, the top layers, or an adapter that is added now."""
        self.config = config
        self.num_top = 0
        """Layers above the cut, whose inputs can be kept; 0 where there is no cut."""
        mode = config.mode
        self.lm.eval()  # dropout is zero: train and eval forward agree
        self.lm.requires_grad_(mode.kind == "full")
        if isinstance(mode, AdapterMode) and self.peft is None:
            self.peft = add_adapter(self.lm, mode, seed=self.seed)
            self.lm = self.peft.get_base_model()
            if config.gradient_checkpointing:
                self.lm.enable_input_require_grads()
        elif isinstance(mode, LastLayersMode):
            num_top = train_last_layers(self.lm, mode)
            self.num_top = num_top if self.packs and cut.can_be_cut(self.lm, num_top) else 0
        if config.gradient_checkpointing:
            self.lm.gradient_checkpointing_enable({"use_reentrant": False})
        speed_up(self.lm)

    @property
    def trunk(self) -> Any:
        """The decoder without the language model head."""
        return self.lm.get_decoder()

    @property
    def head_weight(self) -> Tensor:
        """(V, d), the language model head; tied to the embedding in small models."""
        weight: Tensor = self.lm.get_output_embeddings().weight
        return weight

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.value_head.weight.device

    @property
    def stop_ids(self) -> frozenset[int]:
        """The ids that end a completion, from the tokenizer and the model's configurations."""
        ids: set[int] = set()
        configs = (self.lm.config, self.lm.generation_config)
        for value in (self.tokenizer.eos_token_id, *(c.eos_token_id for c in configs)):
            ids.update(value if isinstance(value, list) else [] if value is None else [value])
        return frozenset(ids)

    def trainable(self) -> list[nn.Parameter]:
        """Return the parameters of the policy that learn; the value head is not among them."""
        return [p for p in self.lm.parameters() if p.requires_grad]

    # Evaluation ----------------------------------------------------------------------------------

    def hidden_states(self, input_ids: Tensor, **cache: Any) -> Tensor:
        """Return (B, T, d) hidden states after the final norm."""
        return self._run(self.trunk, bool(cache), input_ids=input_ids, **cache)

    def _run(self, decoder: Any, use_cache: bool, **inputs: Any) -> Tensor:
        if self.config.gradient_checkpointing:
            self._recompute_layers(torch.is_grad_enabled() and not use_cache)
        with self._autocast():
            hidden: Tensor = decoder(use_cache=use_cache, **inputs).last_hidden_state
        return hidden

    def _read(self, batch: Batch) -> ReadStates:
        """Return the hidden states of what has to be read of each sequence."""
        lengths, width = batch.lengths_to_read(), batch.input_ids.shape[1]
        if not self.packs:
            width = int(lengths.max())
            hidden = self.hidden_states(batch.input_ids[:, :width]).flatten(0, 1)
            return ReadStates(hidden, torch.arange(len(lengths), device=hidden.device) * width)
        packing = self._pack(lengths, width)
        if batch.cut_states is None:
            decoder, row = self.trunk, {"input_ids": _packed(batch.input_ids, packing)}
        else:
            decoder = cut.above(self.trunk, self.num_top)
            row = {"inputs_embeds": _packed(batch.cut_states, packing)}
        hidden = self._run(decoder, False, **row, **packed_arguments(packing))
        return ReadStates(hidden[0], packing.starts)

    @torch.no_grad()
    def states_below(self, batch: Batch) -> Tensor:
        """Return (B, T, d): what the frozen layers below the top ones make of each sequence."""
        ids = batch.input_ids
        packing = self._pack(batch.lengths_to_read(), ids.shape[1])
        hidden = self._run(
            cut.below(self.trunk, self.num_top), False,
            input_ids=_packed(ids, packing), **packed_arguments(packing),
        )[0]  # fmt: skip
        states = hidden.new_zeros(ids.numel(), hidden.shape[-1])
        n = packing.num_tokens
        return states.index_copy(0, packing.sources[:n], hidden[:n]).view(*ids.shape, -1)

    def _pack(self, lengths: Tensor, width: int) -> Packing:
        return Packing.of(lengths, width, num_rows=self._even_rows)

    def _even_rows(self, count: int) -> int:
        return even_rows(count) if self.device.type == "cpu" else count

    def _recompute_layers(self, is_on: bool) -> None:
        """Switch checkpointing of the decoder layers; a checkpointed layer ignores its cache.

        A layer asks its own flag `training`; the modules inside stay in eval mode, without dropout.
        """
        for module in self.trunk.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.training = is_on

    def values_of(self, hidden: Tensor, *, grad_to_trunk: float = 1.0) -> Tensor:
        """Return V of the states whose last token has these hidden states (..., d); float32."""
        if grad_to_trunk < 1.0:
            hidden = hidden.detach() * (1 - grad_to_trunk) + hidden * grad_to_trunk
        values: Tensor = self.value_head(hidden.float()).squeeze(-1)
        return values

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> ForwardOutput:
        """Return hidden states and values of right-padded sequences (B, T)."""
        hidden = self.hidden_states(input_ids)
        values = torch.zeros(input_ids.shape, device=hidden.device)
        values[:, 1:] = self.values_of(hidden[:, :-1])
        if attention_mask is not None:
            values = torch.where(attention_mask.bool(), values, 0.0)
        return ForwardOutput(hidden, values)

    def evaluate(self, batch: Batch, *, value_grad_to_trunk: float = 1.0) -> Evaluation:
        """Return log-probabilities, values and entropies of the actions of a batch."""
        mask, is_truncated = batch.action_mask, batch.is_truncated
        hidden, starts = self._read(batch)
        rows, columns = mask.nonzero(as_tuple=True)
        before = hidden.index_select(0, starts[rows] + columns - 1)  # h_{j-1} of each action j
        scores = self.score_tokens(before, batch.input_ids[mask])
        values = self.values_of(before, grad_to_trunk=value_grad_to_trunk)
        bootstrap = torch.zeros(len(mask), device=hidden.device)
        with torch.no_grad():
            last = starts + batch.attention_mask.sum(dim=1) - 1
            bootstrap[is_truncated] = self.values_of(hidden[last[is_truncated]])
        empty = torch.zeros(mask.shape, device=hidden.device)
        return Evaluation(
            logprobs=empty.masked_scatter(mask, scores.logprobs),
            values=empty.masked_scatter(mask, values),
            entropy=empty.masked_scatter(mask, scores.entropy),
            bootstrap=bootstrap,
        )

    def score_tokens(self, hidden: Tensor, ids: Tensor) -> TokenScores:
        """Return log-probability and entropy for hidden states (N, d) and the ids that followed."""
        num_more = self._even_rows(len(ids)) - len(ids)
        scores = chunked_scores(
            nn.functional.pad(hidden, (0, 0, 0, num_more)),
            self.head_weight,
            nn.functional.pad(ids, (0, num_more)),
            illegal=self.illegal,
            temperature=self.temperature,
            entropy_top=self.config.entropy_topk,
        )
        return TokenScores(*(x[: len(ids)] for x in scores))

    def get_action_and_value(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        action: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> ActionAndValue:
        """Return an action for the state after each right-padded sequence, and its value.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T) bool, True on tokens.
            action: (B,) ids to evaluate; None samples them.
            generator: of the samples.
        """
        last = attention_mask.sum(dim=1) - 1
        hidden = self.hidden_states(input_ids)[torch.arange(len(last), device=last.device), last]
        if action is None:
            action = sample_ids(self.next_logits(hidden), generator)
        scores = self.score_tokens(hidden, action)
        return ActionAndValue(action, scores.logprobs, scores.entropy, self.values_of(hidden))

    def next_logits(self, hidden: Tensor, temperature: float | None = None) -> Tensor:
        """Return float32 logits (B, V) at the sampling temperature, -inf on illegal ids."""
        tau = self.temperature if temperature is None else temperature
        return scaled_logits(hidden, self.head_weight, self.illegal, tau)

    @contextlib.contextmanager
    def reference(self) -> Iterator[None]:
        """Evaluate the frozen base of an adapter inside this context; the value head stays."""
        if self.peft is None:
            raise ConfigError("only a policy with an adapter holds its own reference")
        with self.peft.disable_adapter():
            yield

    def frozen_copy(self) -> PolicyValueNetwork:
        """Return a reference policy; parameters that do not learn are shared, not copied."""
        shared = {id(p): p for p in self.parameters() if not p.requires_grad}
        return copy.deepcopy(self, dict(shared)).requires_grad_(False)

    # Files ---------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write a Hugging Face folder: model or adapter, tokenizer, and the value head."""
        policy_files.save_policy(self, Path(path))

    def save_base(self, path: Path) -> None:
        """Write the frozen base of the adapter and remember it as the place to load it from."""
        policy_files.save_base(self, path)

    @classmethod
    def load(
        cls, path: str | Path, *, config: PolicyConfig | None = None, seed: int = 0
    ) -> PolicyValueNetwork:
        """Load what `save` wrote, in the mode it was saved in unless `config` says otherwise.

        An adapter stays the adapter that it is, and ids that were illegal stay so unless `config`
        names the legal ones.
        """
        saved = policy_files.read_policy(Path(path))
        config = config or saved.config
        config = config.model_copy(update={"legal_ids": config.legal_ids or saved.config.legal_ids})
        if saved.adapter is not None:
            config = config.model_copy(update={"mode": saved.config.mode})
        network = cls(saved.lm, saved.tokenizer, config, base_path=saved.base_path, seed=seed)
        if saved.adapter is not None:
            network.load_adapter(saved.adapter)
        network.value_head.load_state_dict(saved.value_head)
        return network

    def load_adapter(self, weights: dict[str, Tensor]) -> None:
        """Replace the adapter's weights."""
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(self.peft, weights)

    # Checks --------------------------------------------------------------------------------------

    def _illegal_ids(self, legal_ids: Sequence[int] | None) -> Tensor | None:
        num_rows, num_ids = self.head_weight.shape[0], len(self.tokenizer)
        if num_ids > num_rows:
            raise ConfigError(
                f"the tokenizer has {num_ids} ids but the model only {num_rows} output rows; "
                "they do not belong together"
            )
        ids = torch.arange(num_rows, device=self.head_weight.device)
        if legal_ids is None:
            return None if num_ids == num_rows else ids >= num_ids
        if not legal_ids or not all(0 <= i < num_ids for i in legal_ids):
            raise ConfigError(
                f"policy.legal_ids: expected ids of 0 to {num_ids - 1}, got {legal_ids}"
            )
        return ~torch.isin(ids, torch.tensor(legal_ids, device=ids.device))

    @torch.no_grad()
    def _check_head(self) -> None:
        """Fail for models whose logits are more than head times hidden state."""
        ids = torch.zeros(1, 2, dtype=torch.long, device=self.lm.device)
        hidden = self.trunk(input_ids=ids, use_cache=False).last_hidden_state  # not autocast
        ours = hidden[0, -1].float() @ self.head_weight.float().T
        theirs = self.lm(input_ids=ids).logits[0, -1]
        tolerance = 1e-3 if theirs.dtype == torch.float32 else 5e-2
        if not torch.allclose(ours, theirs.float(), atol=tolerance, rtol=tolerance):
            raise ConfigError(
                f"the logits of {type(self.lm).__name__} are not its head times its last hidden "
                "state (soft-capping or scaling); this architecture is not supported"
            )

    def _check_generation_config(self) -> None:
        """Keep only the special ids of shipped settings that could not be saved again.

        Nothing here samples by them.
        """
        shipped = self.lm.generation_config
        try:
            shipped.validate(strict=True)
        except ValueError:
            self.lm.generation_config = GenerationConfig(
                bos_token_id=shipped.bos_token_id,
                eos_token_id=shipped.eos_token_id,
                pad_token_id=shipped.pad_token_id,
            )

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.config.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


def _packed(x: Tensor, packing: Packing) -> Tensor:
    """Return a batch (B, T, ...) as one packed row (1, N, ...)."""
    return x.flatten(0, 1).index_select(0, packing.sources).unsqueeze(0)


def sample_ids(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw one id per row of (B, V) logits: no top-p, no top-k, no penalty.

    One random number per row is placed in the cumulated probabilities; an exponential variate for
    each id, as `torch.multinomial` draws them, costs as much as a layer of a small model. Float64
    keeps the share of ids whose probability is below float32's resolution at 1.
    """
    cumulated = logits.softmax(-1).cumsum(-1, dtype=torch.float64)
    total = cumulated[:, -1:]
    drawn = torch.rand(total.shape, dtype=torch.float64, device=logits.device, generator=generator)
    place = torch.minimum(drawn * total, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(cumulated, place, right=True).squeeze(1)
