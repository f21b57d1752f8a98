"""Generation with a cache: what was sampled, from which distribution, and where it ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats  # type: ignore[import-untyped]  # it ships no types
from transformers import PreTrainedModel

from textgym_agents.core.buffer import Batch, Episode, collate
from textgym_agents.lm.config import LastLayersMode, LoraMode, PolicyConfig
from textgym_agents.lm.engine import Generation, TransformersEngine
from textgym_agents.lm.network import PolicyValueNetwork

MakePolicy = Callable[..., PolicyValueNetwork]
MakeEpisode = Callable[..., Episode]
END = 6
PROMPTS = [[9], [10, 3, 7, 1, 4, 4, 2], [11, 5], [9, 3, 7], [1] * 12, [10], [11, 0, 8, 8], [9, 9]]


def generate(
    network: PolicyValueNetwork,
    prompts: Sequence[Sequence[int]] = PROMPTS,
    *,
    limit: int = 30,
    temperature: float | None = None,
    seed: int = 0,
) -> list[Generation]:
    tau = network.temperature if temperature is None else temperature
    return TransformersEngine(network).generate(
        prompts,
        max_new_tokens=[limit] * len(prompts),
        temperature=tau,
        generator=torch.Generator().manual_seed(seed),
    )


def batch_of(
    prompts: Sequence[Sequence[int]], generations: list[Generation], episode: MakeEpisode
) -> Batch:
    pairs = zip(prompts, generations, strict=True)
    return collate([episode(prompt, g.token_ids) for prompt, g in pairs])


def largest_difference(
    network: PolicyValueNetwork, generations: list[Generation], episode: MakeEpisode
) -> float:
    """Return the largest |log mu - log pi| over the sampled tokens."""
    batch = batch_of(PROMPTS, generations, episode)
    with torch.no_grad():
        scores = network.evaluate(batch).logprobs[batch.action_mask]
    mu = torch.tensor([x for g in generations for x in g.logprobs])
    return float((scores - mu).abs().max())


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_equal_the_teacher_forced_ones(
    any_policy: PolicyValueNetwork, episode: MakeEpisode, temperature: float
) -> None:
    any_policy.temperature = temperature
    generations = generate(any_policy)
    lengths = {len(g.token_ids) for g in generations}
    assert len(lengths) > 2  # rows end early and leave the batch
    assert {g.finish_reason for g in generations} == {"stop", "length"}
    assert largest_difference(any_policy, generations, episode) < 2e-5


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3_text", "mistral"])
def test_logprobs_of_other_architectures(
    make_policy: MakePolicy, episode: MakeEpisode, kind: str
) -> None:
    network = make_policy(kind)
    assert largest_difference(network, generate(network), episode) < 2e-5


@pytest.mark.parametrize("mode", [LoraMode(rank=2), LastLayersMode(k=1)])
def test_logprobs_in_other_modes(
    make_policy: MakePolicy, episode: MakeEpisode, mode: LoraMode | LastLayersMode
) -> None:
    network = make_policy(config=PolicyConfig(mode=mode))
    assert largest_difference(network, generate(network), episode) < 2e-5


def test_logprobs_with_checkpointing(make_policy: MakePolicy, episode: MakeEpisode) -> None:
    network = make_policy(config=PolicyConfig(gradient_checkpointing=True))
    assert largest_difference(network, generate(network), episode) < 2e-5
    scores = network.evaluate(batch_of(PROMPTS, generate(network), episode))
    scores.logprobs.sum().backward()
    assert largest_difference(network, generate(network), episode) < 2e-5


def test_rows_leave_the_batch(
    tiny_policy: PolicyValueNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    original = tiny_policy.hidden_states

    def watch(input_ids: torch.Tensor, **cache: object) -> torch.Tensor:
        sizes.append(len(input_ids))
        return original(input_ids, **cache)

    monkeypatch.setattr(tiny_policy, "hidden_states", watch)
    generations = generate(tiny_policy, PROMPTS * 4, limit=40)
    running = [sum(len(g.token_ids) > step for g in generations) for step in range(1, 40)]
    assert sizes[0] == 32
    assert len(set(sizes)) > 3
    for size, live in zip(sizes[1:], running, strict=False):
        assert live <= size <= max(1, live / 0.75)


def test_nothing_follows_the_end_token(any_policy: PolicyValueNetwork) -> None:
    for g in generate(any_policy, PROMPTS * 8):
        assert END not in g.token_ids[:-1]
        assert (g.token_ids[-1] == END) == (g.finish_reason == "stop")
        assert g.finish_reason == "stop" or len(g.token_ids) == 30
        assert len(g.logprobs) == len(g.token_ids)


def test_each_row_has_its_own_limit(tiny_policy: PolicyValueNetwork) -> None:
    limits = [1, 2, 3, 4, 5, 6, 7, 8]
    generations = TransformersEngine(tiny_policy).generate(
        PROMPTS, max_new_tokens=limits, temperature=1.0, generator=torch.Generator().manual_seed(1)
    )
    for g, limit in zip(generations, limits, strict=True):
        assert 1 <= len(g.token_ids) <= limit
        assert g.finish_reason == "stop" or len(g.token_ids) == limit


@pytest.mark.parametrize("eos", [[6, 5], [5, 6], 5])
def test_every_stop_id_stops(make_policy: MakePolicy, eos: int | list[int]) -> None:
    network = make_policy(eos=eos)
    assert network.stop_ids == {5, 6}
    generations = generate(network, PROMPTS * 8)
    ends = {g.token_ids[-1] for g in generations if g.finish_reason == "stop"}
    assert ends == {5, 6}
    assert not any({5, 6} & set(g.token_ids[:-1]) for g in generations)


def test_stop_ids_of_the_generation_config_count(make_policy: MakePolicy) -> None:
    network = make_policy()
    network.lm.generation_config.eos_token_id = [4, 3]
    assert network.stop_ids == {3, 4, 6}


def test_an_empty_response_is_one_end_token(make_policy: MakePolicy, episode: MakeEpisode) -> None:
    network = make_policy(config=PolicyConfig(legal_ids=(END,)))
    generations = generate(network)
    assert all(g == Generation([END], [0.0], "stop") for g in generations)
    batch = batch_of(PROMPTS, generations, episode)
    assert batch.action_mask.sum(dim=1).tolist() == [1] * len(PROMPTS)
    assert largest_difference(network, generations, episode) == 0.0


def test_the_same_generator_gives_the_same_samples(tiny_policy: PolicyValueNetwork) -> None:
    first, second = generate(tiny_policy, seed=3), generate(tiny_policy, seed=3)
    assert first == second
    torch.manual_seed(0)  # the global generator has no part in it
    assert generate(tiny_policy, seed=3) == first
    assert generate(tiny_policy, seed=4) != first


def test_pad_equal_to_end_samples_the_same(make_policy: MakePolicy) -> None:
    assert generate(make_policy(pad="_")) == generate(make_policy(pad="$"))


def test_temperature_zero_takes_the_most_likely_id(
    tiny_policy: PolicyValueNetwork, episode: MakeEpisode
) -> None:
    tiny_policy.temperature = 0.5
    generations = generate(tiny_policy, temperature=0.0)
    assert generations == generate(tiny_policy, temperature=0.0, seed=9)
    tiny_policy.temperature = 1.0
    assert largest_difference(tiny_policy, generations, episode) < 2e-5
    for prompt, g in zip(PROMPTS, generations, strict=True):
        ids = list(prompt)
        for token in g.token_ids:
            logits = tiny_policy.lm(input_ids=torch.tensor([ids])).logits[0, -1]
            assert int(logits.argmax()) == token
            ids.append(token)


def test_only_legal_ids_are_sampled(make_policy: MakePolicy) -> None:
    phantom = make_policy(num_rows=40)
    chosen = make_policy(num_rows=40, config=PolicyConfig(legal_ids=(0, 3, 6)))
    seen = [
        {token for g in generate(network, [[9]] * 500) for token in g.token_ids}
        for network in (phantom, chosen)
    ]
    assert seen[0] == set(range(13))
    assert seen[1] == {0, 3, 6}


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_samples_follow_the_scored_distribution(
    make_policy: MakePolicy, episode: MakeEpisode, temperature: float
) -> None:
    """What ships with a model (top-k, top-p, a penalty on repetition) has no say."""
    network = make_policy(num_rows=16, std=0.15)
    shipped = network.lm.generation_config
    shipped.do_sample, shipped.top_k, shipped.top_p = True, 5, 0.5
    shipped.repetition_penalty, shipped.temperature, shipped.min_p = 1.5, 0.3, 0.2
    network.temperature = temperature
    prompt, rounds = [9, 3, 9], 8
    counts: Counter[tuple[int, ...]] = Counter()
    for seed in range(rounds):
        samples = generate(network, [prompt] * 25_000, limit=2, seed=seed)
        counts.update(tuple(g.token_ids) for g in samples)
    outcomes = [(END,), *((a, b) for a in range(13) if a != END for b in range(13))]
    batch = collate([episode(prompt, outcome) for outcome in outcomes])
    with torch.no_grad():
        logprobs = network.evaluate(batch).logprobs.sum(dim=1).double()
    expected = logprobs.exp().numpy()
    assert expected.sum() == pytest.approx(1.0, abs=1e-5)
    observed = np.array([counts[outcome] for outcome in outcomes], dtype=np.float64)
    assert observed.sum() == 2e5
    expected *= 2e5 / expected.sum()
    is_rare = expected < 5
    if is_rare.any():
        expected = np.append(expected[~is_rare], expected[is_rare].sum())
        observed = np.append(observed[~is_rare], observed[is_rare].sum())
    assert len(expected) > 50
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_shipped_settings_that_cannot_be_saved_keep_their_stop_ids(
    make_policy: MakePolicy, make_model: Callable[..., PreTrainedModel], tmp_path: Path
) -> None:
    lm = make_model()
    lm.generation_config.top_k, lm.generation_config.top_p = 5, 0.5  # without do_sample
    lm.generation_config.eos_token_id = [6, 4]
    network = PolicyValueNetwork(lm, make_policy().tokenizer, PolicyConfig())
    network.save(tmp_path)
    assert PolicyValueNetwork.load(tmp_path).stop_ids == {4, 6}
