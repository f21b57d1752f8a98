"""Small policies that are built in process: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from textgym_agents.core.buffer import Batch, Episode, collate
from textgym_agents.lm.config import LoraMode, PolicyConfig
from textgym_agents.lm.network import PolicyValueNetwork

SYMBOLS = "012345$xyABC_"
"""One id per symbol: six contents, the end token, two answers, three prompts, the padding."""

MakeModel = Callable[..., PreTrainedModel]
MakePolicy = Callable[..., PolicyValueNetwork]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """A second thread costs more than it brings on models of this size."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _symbol_tokenizer(*, pad: str = "_") -> PreTrainedTokenizerFast:
    """Return a tokenizer with one id per symbol."""
    vocabulary = {symbol: i for i, symbol in enumerate(SYMBOLS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="_"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="$",
        pad_token=pad,
        clean_up_tokenization_spaces=False,
    )


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    """Return a function that builds a random causal language model of two small layers."""

    def make(
        kind: str = "qwen2",
        *,
        num_rows: int = len(SYMBOLS),
        seed: int = 0,
        tied: bool = True,
        eos: int | list[int] = 6,
        pad_id: int = 12,
        std: float = 0.3,
        bias_std: float = 0.1,
        hidden_size: int = 32,
        intermediate_size: int = 64,
        head_dim: int = 8,
    ) -> PreTrainedModel:
        config = AutoConfig.for_model(
            kind,
            vocab_size=num_rows,
            hidden_size=hidden_size,
            intermediate_size=intermediate_size,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=head_dim,
            max_position_embeddings=256,
            tie_word_embeddings=tied,
            initializer_range=std,
            bos_token_id=None,
            eos_token_id=eos,
            pad_token_id=pad_id,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
            for name, p in model.named_parameters():
                if "bias" in name:
                    torch.nn.init.normal_(p, std=bias_std)
        return model

    return make


@pytest.fixture(scope="session")
def make_policy(make_model: MakeModel) -> MakePolicy:
    """Return a function that builds a policy; its value head is random, so that it is seen."""

    def make(
        kind: str = "qwen2",
        config: PolicyConfig | None = None,
        *,
        pad: str = "_",
        head_std: float = 0.3,
        adapter_std: float = 0.3,
        seed: int = 0,
        **model: int | bool | float | list[int],
    ) -> PolicyValueNetwork:
        lm = make_model(kind, seed=seed, **model)
        network = PolicyValueNetwork(lm, _symbol_tokenizer(pad=pad), config or PolicyConfig())
        generator = torch.Generator().manual_seed(seed + 1)
        for p in network.value_head.parameters():
            torch.nn.init.normal_(p, std=head_std, generator=generator)
        for name, p in network.lm.named_parameters():
            if "lora_B" in name and adapter_std > 0:
                torch.nn.init.normal_(p, std=adapter_std, generator=generator)
        return network

    return make


@pytest.fixture
def tiny_policy(make_policy: MakePolicy) -> PolicyValueNetwork:
    """A Qwen2 with tied embeddings, in float32, trained in full."""
    return make_policy()


@pytest.fixture(params=["qwen2", "qwen3", "phantom", "pad_is_eos", "untied"])
def any_policy(request: pytest.FixtureRequest, make_policy: MakePolicy) -> PolicyValueNetwork:
    """Each kind of policy in turn."""
    kinds: dict[str, Callable[[], PolicyValueNetwork]] = {
        "qwen2": make_policy,
        "qwen3": lambda: make_policy("qwen3"),
        "phantom": lambda: make_policy(num_rows=40),
        "pad_is_eos": lambda: make_policy(pad="$"),
        "untied": lambda: make_policy(tied=False),
    }
    return kinds[request.param]()


@pytest.fixture
def lora_policy(make_policy: MakePolicy) -> PolicyValueNetwork:
    """A policy with a random adapter, whose second matrix is not zero."""
    return make_policy(config=PolicyConfig(mode=LoraMode(rank=4, alpha=8)))


@pytest.fixture(scope="session")
def episode() -> Callable[..., Episode]:
    """Return a function that makes an episode of one turn with its reward on the last token."""

    def make(prompt: Sequence[int], action: Sequence[int], reward: float = 1.0) -> Episode:
        ids = torch.tensor([*prompt, *action])
        mask = torch.arange(len(ids)) >= len(prompt)
        rewards = torch.zeros(len(ids))
        rewards[-1] = reward
        return Episode(ids, mask, rewards, terminated=True, truncated=False)

    return make


@pytest.fixture(scope="session")
def random_batch() -> Callable[..., Batch]:
    """Return a function that makes a batch of several lengths, of one or two turns per episode."""

    def make(count: int = 6, *, seed: int = 0, longest: int = 20) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        episodes = [_random_episode(i, longest, generator) for i in range(count)]
        batch = collate(episodes)

        def draw() -> Tensor:
            x = torch.randn(batch.rewards.shape, generator=generator)
            return torch.where(batch.action_mask, x, 0.0)

        return replace(
            batch, logprobs=draw() - 2.5, values=draw(), advantages=draw(), returns=draw()
        )

    return make


def _random_episode(index: int, longest: int, generator: torch.Generator) -> Episode:
    lengths = torch.randint(1, max(2, longest // 4), (4,), generator=generator).tolist()
    parts = lengths[: 2 if index % 2 else 4]  # prompt, action, message, action
    ids = torch.randint(0, len(SYMBOLS), (sum(parts),), generator=generator)
    mask = torch.cat([torch.full((n,), bool(k % 2)) for k, n in enumerate(parts)])
    rewards = torch.randn(len(ids), generator=generator) * mask
    return Episode(ids, mask, rewards, terminated=index % 3 > 0, truncated=index % 3 == 0)


@pytest.fixture(scope="session")
def gradients() -> Callable[[PolicyValueNetwork, Tensor], dict[str, Tensor]]:
    """Return a function from a scalar to its gradients by parameter; 0 where there is none."""

    def compute(network: PolicyValueNetwork, loss: Tensor) -> dict[str, Tensor]:
        network.zero_grad(set_to_none=True)
        loss.backward()
        return {
            name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
            for name, p in network.named_parameters()
            if p.requires_grad
        }

    return compute


class _LargestResult(TorchDispatchMode):
    """Remembers how many elements the largest result of any operation has."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch types nothing here
        self.numel = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else (out,):
            if isinstance(x, Tensor):
                self.numel = max(self.numel, x.numel())
        return out


@pytest.fixture(scope="session")
def largest_result() -> type[_LargestResult]:
    """Return the context that watches the size of every result, in `numel`."""
    return _LargestResult
