"""What the policy/value network says of sequences, against an independent dense computation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from textgym.errors import ConfigError
from textgym_agents.core.buffer import Batch, Evaluation, collate
from textgym_agents.core.config import PPOConfig
from textgym_agents.core.losses import Totals
from textgym_agents.core.update import ppo_loss
from textgym_agents.lm.config import LastLayersMode, LoraMode, PolicyConfig
from textgym_agents.lm.network import PolicyValueNetwork, sample_ids

MakePolicy = Callable[..., PolicyValueNetwork]
RandomBatch = Callable[..., Batch]
Gradients = Callable[[PolicyValueNetwork, Tensor], dict[str, Tensor]]
NUM_IDS = 13


class Step(NamedTuple):
    """What a policy says of one token."""

    logprob: float
    value: float
    entropy: float


def step_by_hand(network: PolicyValueNetwork, ids: list[int], j: int) -> Step:
    """Score token j by the model's own logits of the tokens before it, and of nothing else."""
    with torch.no_grad():
        out = network.lm(input_ids=torch.tensor([ids[:j]]), output_hidden_states=True)
        logits = out.logits[0, -1, : len(network.tokenizer)].double() / network.temperature
        log_p = logits.log_softmax(-1)
        value = network.value_head(out.hidden_states[-1][0, -1])
    entropy = -(log_p.exp() * log_p).sum()
    return Step(float(log_p[ids[j]]), float(value), float(entropy))


def check_alignment(network: PolicyValueNetwork, batch: Batch) -> None:
    """Compare every action token of a batch with `step_by_hand`."""
    with torch.no_grad():
        scores = network.evaluate(batch)
    for i, j in batch.action_mask.nonzero().tolist():
        wanted = step_by_hand(network, batch.input_ids[i].tolist(), j)
        got = Step(*(float(x[i, j]) for x in (scores.logprobs, scores.values, scores.entropy)))
        assert got == pytest.approx(wanted, abs=2e-5)
    for x in (scores.logprobs, scores.values, scores.entropy):
        assert bool((x[~batch.action_mask] == 0).all())
    for i, length in enumerate(batch.attention_mask.sum(dim=1).tolist()):
        ids = [*batch.input_ids[i, :length].tolist(), 0]
        wanted = step_by_hand(network, ids, length)
        after = wanted.value if batch.is_truncated[i] else 0.0
        assert float(scores.bootstrap[i]) == pytest.approx(after, abs=2e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_evaluate_scores_each_token_by_what_is_before_it(
    any_policy: PolicyValueNetwork, random_batch: RandomBatch, temperature: float
) -> None:
    any_policy.temperature = temperature
    check_alignment(any_policy, random_batch(4))


class ShiftedLogprobs(PolicyValueNetwork):
    """A mutant: the log-probability of the token after the one that is scored."""

    def evaluate(self, batch: Batch, *, value_grad_to_trunk: float = 1.0) -> Evaluation:
        scores = super().evaluate(batch)
        return scores._replace(logprobs=scores.logprobs.roll(1, dims=1))


class ValueAtOwnToken(PolicyValueNetwork):
    """A mutant: V is read at the position of the token that it should not know yet."""

    def evaluate(self, batch: Batch, *, value_grad_to_trunk: float = 1.0) -> Evaluation:
        values = self.values_of(self.hidden_states(batch.input_ids))
        return super().evaluate(batch)._replace(values=values.where(batch.action_mask, 0.0))


class SampledEntropy(PolicyValueNetwork):
    """A mutant: minus the log-probability of the sampled token in place of the entropy."""

    def evaluate(self, batch: Batch, *, value_grad_to_trunk: float = 1.0) -> Evaluation:
        scores = super().evaluate(batch)
        return scores._replace(entropy=-scores.logprobs)


@pytest.mark.parametrize("mutant", [ShiftedLogprobs, ValueAtOwnToken, SampledEntropy])
def test_the_alignment_check_catches(
    tiny_policy: PolicyValueNetwork, random_batch: RandomBatch, mutant: type[PolicyValueNetwork]
) -> None:
    tiny_policy.__class__ = mutant
    with pytest.raises(AssertionError):
        check_alignment(tiny_policy, random_batch(4))


def alone(batch: Batch, i: int) -> Batch:
    """Return one sequence without padding."""
    return batch.rows(torch.tensor([i]))


def padded(batch: Batch, extra: int, *, seed: int = 0) -> Batch:
    """Return a batch with more columns, and random ids wherever nothing is."""

    def widen(x: Tensor) -> Tensor:
        if x.dim() == 1:
            return x
        return torch.cat([x, torch.zeros(len(x), extra, dtype=x.dtype)], dim=1)

    wide = Batch(**{name: widen(x) for name, x in vars(batch).items() if x is not None})
    noise = torch.randint(0, NUM_IDS, wide.input_ids.shape, generator=_generator(seed))
    return replace(wide, input_ids=wide.input_ids.where(wide.attention_mask, noise))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def loss_of(network: PolicyValueNetwork, batches: list[Batch], whole: Batch) -> Tensor:
    """Return the PPO loss of one optimiser step that is split into batches."""
    totals = Totals.of(whole.action_mask)
    config = PPOConfig(entropy_coef=0.1)
    losses = [ppo_loss(network.evaluate(b), b, config, totals)[0] for b in batches]
    return torch.stack(losses).sum()


def test_padding_and_company_change_nothing(
    any_policy: PolicyValueNetwork, random_batch: RandomBatch, gradients: Gradients
) -> None:
    batch = random_batch(5)
    variants = {
        "alone": [alone(batch, i) for i in range(5)],
        "padded": [padded(batch, 9)],
        "permuted": [batch.rows(torch.tensor([3, 0, 4, 2, 1]))],
        "halves": [batch.rows(torch.tensor([0, 4])), batch.rows(torch.tensor([1, 2, 3]))],
    }
    loss = loss_of(any_policy, [batch], batch)
    wanted = gradients(any_policy, loss)
    assert all(float(g.abs().max()) > 0 for g in wanted.values())
    for name, batches in variants.items():
        other = loss_of(any_policy, batches, batch)
        assert float(other.detach()) == pytest.approx(float(loss.detach()), abs=1e-5), name
        for parameter, g in gradients(any_policy, other).items():
            torch.testing.assert_close(g, wanted[parameter], atol=1e-5, rtol=1e-4)


def test_padding_changes_no_score(
    any_policy: PolicyValueNetwork, random_batch: RandomBatch
) -> None:
    batch = random_batch(5)
    with torch.no_grad():
        whole = any_policy.evaluate(padded(batch, 9))
        for i in range(5):
            one = any_policy.evaluate(alone(batch, i))
            for x, y in zip(one[:3], whole[:3], strict=True):
                torch.testing.assert_close(x[0], y[i, : x.shape[1]], atol=1e-5, rtol=0)
            torch.testing.assert_close(one.bootstrap[0], whole.bootstrap[i], atol=1e-5, rtol=0)


def test_padding_changes_little_in_bfloat16(
    make_policy: MakePolicy, random_batch: RandomBatch
) -> None:
    network = make_policy(config=PolicyConfig(precision="bf16"), std=0.1)
    batch = random_batch(20)
    with torch.no_grad():
        whole = network.evaluate(padded(batch, 9))
        parts = [network.evaluate(alone(batch, i)) for i in range(20)]
    for name in ("logprobs", "values", "entropy"):
        x = torch.cat([getattr(p, name)[0] for p in parts])
        y = torch.cat([getattr(whole, name)[i, : len(p.values[0])] for i, p in enumerate(parts)])
        error = (x - y).abs()
        assert float(error.mean()) < 5e-3, name
        assert float(error.max()) < 5e-2, name
        assert y.dtype == torch.float32


def test_the_value_of_a_state_does_not_know_the_action(any_policy: PolicyValueNetwork) -> None:
    ids = torch.tensor([[9, 3, 7, 1, 4]])
    mask = torch.tensor([[False, True, True, True, True]])
    batch = replace(_batch_of(ids), action_mask=mask)
    j = 3
    with torch.no_grad():
        before = any_policy.evaluate(batch)
        for other in range(NUM_IDS):
            changed = batch.input_ids.clone()
            changed[0, j] = other
            after = any_policy.evaluate(replace(batch, input_ids=changed))
            assert torch.equal(before.values[:, : j + 1], after.values[:, : j + 1])
            assert torch.equal(before.entropy[:, : j + 1], after.entropy[:, : j + 1])
            if other != ids[0, j]:
                assert float(before.logprobs[0, j]) != float(after.logprobs[0, j])
                assert float(before.values[0, j + 1]) != float(after.values[0, j + 1])


def _batch_of(ids: Tensor) -> Batch:
    true, zeros = torch.ones_like(ids, dtype=torch.bool), torch.zeros(ids.shape)
    return Batch(ids, true, true, zeros, true[:, 0], zeros, zeros, zeros, zeros)


def test_a_new_value_head_is_zero_and_moves_alone_at_first(
    make_policy: MakePolicy, random_batch: RandomBatch, gradients: Gradients
) -> None:
    network = make_policy(head_std=0.0)
    batch = random_batch()
    scores = network.evaluate(batch)
    assert float(scores.values.detach().abs().max()) == 0.0
    assert float(scores.bootstrap.abs().max()) == 0.0
    loss = ((scores.values - batch.returns) ** 2)[batch.action_mask].mean()
    found = gradients(network, loss)
    head = {name for name in found if name.startswith("value_head")}
    assert all(float(found[name].abs().max()) > 0 for name in head)
    assert all(float(found[name].abs().max()) == 0 for name in set(found) - head)


def test_the_value_head_is_built_zero(tiny_policy: PolicyValueNetwork) -> None:
    fresh = PolicyValueNetwork(tiny_policy.lm, tiny_policy.tokenizer, tiny_policy.config)
    assert all(float(p.abs().max()) == 0.0 for p in fresh.value_head.parameters())


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_value_gradient_into_the_trunk_is_scaled(
    tiny_policy: PolicyValueNetwork, random_batch: RandomBatch, gradients: Gradients, share: float
) -> None:
    batch = random_batch()
    full = gradients(tiny_policy, tiny_policy.evaluate(batch).values.sum())
    scores = tiny_policy.evaluate(batch, value_grad_to_trunk=share)
    torch.testing.assert_close(scores.values, tiny_policy.evaluate(batch).values)
    for name, g in gradients(tiny_policy, scores.values.sum()).items():
        factor = 1.0 if name.startswith("value_head") else share
        torch.testing.assert_close(g, factor * full[name], atol=1e-5, rtol=1e-4)


def test_phantom_rows_are_illegal_everywhere(make_policy: MakePolicy) -> None:
    network = make_policy(num_rows=40)
    hidden = network.hidden_states(torch.tensor([[9, 3, 7]]))[:, -1].detach()
    logits = network.next_logits(hidden)
    assert bool((logits[:, NUM_IDS:] == -torch.inf).all())
    assert bool(torch.isfinite(logits[:, :NUM_IDS]).all())
    drawn = sample_ids(logits.expand(100_000, -1), _generator(0))
    assert int(drawn.max()) < NUM_IDS
    total = network.score_tokens(hidden.expand(NUM_IDS, -1), torch.arange(NUM_IDS)).logprobs
    assert float(total.exp().sum()) == pytest.approx(1.0, abs=1e-5)
    raw = network.lm(input_ids=torch.tensor([[9, 3, 7]])).logits[0, -1].softmax(-1)
    assert float(raw[:NUM_IDS].sum()) < 0.9  # the mask has something to do


@pytest.mark.parametrize("mode", [None, LoraMode(rank=2)])
def test_the_legal_ids_are_the_same_in_old_new_and_reference(
    make_policy: MakePolicy, random_batch: RandomBatch, mode: LoraMode | None
) -> None:
    legal = (0, 2, 5, 6)
    config = PolicyConfig(legal_ids=legal, **({} if mode is None else {"mode": mode}))
    network = make_policy(config=config, num_rows=40)
    batch = random_batch()
    totals = torch.zeros(batch.input_ids.shape)
    references = torch.zeros_like(totals)
    copy = network.frozen_copy()
    for i in legal:
        ids = batch.input_ids.masked_fill(batch.action_mask, i)
        one = replace(batch, input_ids=ids.where(batch.action_mask, batch.input_ids))
        # the state before the first action of each sequence is the same for all i
        totals += network.evaluate(one).logprobs.detach().exp()
        if mode is None:
            references += copy.evaluate(one).logprobs.exp()
        else:
            with network.reference(), torch.no_grad():
                references += network.evaluate(one).logprobs.exp()
    first = batch.action_mask.int().argmax(dim=1, keepdim=True)
    torch.testing.assert_close(totals.gather(1, first), torch.ones(len(first), 1))
    torch.testing.assert_close(references.gather(1, first), torch.ones(len(first), 1))


def test_illegal_ids_have_no_probability(make_policy: MakePolicy) -> None:
    network = make_policy(config=PolicyConfig(legal_ids=(1, 6)))
    hidden = torch.randn(1, 32, generator=_generator(1))
    scores = network.score_tokens(hidden.expand(13, -1), torch.arange(13))
    assert {i for i, p in enumerate(scores.logprobs.tolist()) if p > -math.inf} == {1, 6}


@pytest.mark.parametrize("legal", [(), (3, 13), (40,)])
def test_legal_ids_must_be_ids(make_policy: MakePolicy, legal: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"policy\.legal_ids: expected ids of 0 to 12, got "):
        make_policy(config=PolicyConfig(legal_ids=legal), num_rows=40)


def test_a_tokenizer_with_more_ids_than_rows_is_an_error(make_policy: MakePolicy) -> None:
    with pytest.raises(ConfigError, match="13 ids but the model only 12 output rows"):
        make_policy(num_rows=12, pad_id=0)


def test_evaluate_never_holds_all_logits(
    make_policy: MakePolicy, largest_result: Callable[[], Any]
) -> None:
    num_rows, rows, length = 3000, 8, 160
    network = make_policy(num_rows=num_rows)
    ids = torch.randint(0, NUM_IDS, (rows, length), generator=_generator(0))
    mask = (torch.arange(length) >= 20).expand(rows, -1)
    batch = replace(_batch_of(ids), action_mask=mask)
    with largest_result() as seen:
        scores = network.evaluate(batch)
        (scores.logprobs.sum() + scores.values.sum() + scores.entropy.sum()).backward()
    assert int(mask.sum()) > 2 * 512
    assert seen.numel == 512 * num_rows < rows * length * num_rows


def test_last_k_trains_the_top_layers_the_norm_and_the_value_head(
    make_policy: MakePolicy, random_batch: RandomBatch, gradients: Gradients
) -> None:
    network = make_policy(config=PolicyConfig(mode=LastLayersMode(k=1)))
    batch = random_batch()
    found = gradients(network, loss_of(network, [batch], batch))
    assert found
    assert all(
        name.startswith(("lm.model.layers.1.", "lm.model.norm.", "value_head.")) for name in found
    )
    names = {n for n, _ in network.named_parameters() if n.startswith("lm.model.layers.1.")}
    assert names <= set(found)
    trained = {id(p) for p in network.trainable()}
    assert not trained & {id(p) for p in network.value_head.parameters()}


def test_last_k_with_more_layers_than_there_are_is_an_error(make_policy: MakePolicy) -> None:
    with pytest.raises(ConfigError, match=r"last 3 layers of Qwen2ForCausalLM, which has 2 layers"):
        make_policy(config=PolicyConfig(mode=LastLayersMode(k=3)))


@pytest.mark.parametrize("mode", [None, LastLayersMode(k=1)])
def test_a_frozen_copy_shares_what_is_frozen_and_does_not_follow(
    make_policy: MakePolicy, random_batch: RandomBatch, mode: LastLayersMode | None
) -> None:
    network = make_policy(config=PolicyConfig() if mode is None else PolicyConfig(mode=mode))
    network.temperature = 0.7
    batch = random_batch()
    copy = network.frozen_copy()
    with torch.no_grad():
        before = copy.evaluate(batch)
        assert torch.equal(before.logprobs, network.evaluate(batch).logprobs)
        theirs = dict(copy.named_parameters())
        for name, p in network.named_parameters():
            assert (theirs[name] is p) == (not p.requires_grad), name
        for p in network.trainable():
            p.add_(0.1)
        assert not torch.equal(network.evaluate(batch).logprobs, before.logprobs)
        assert torch.equal(copy.evaluate(batch).logprobs, before.logprobs)
    assert not any(p.requires_grad for p in copy.parameters())
    assert any(p.requires_grad for p in network.trainable())


@pytest.mark.parametrize("mode", ["full", "lora", "last_k"])
def test_checkpointing_changes_neither_scores_nor_gradients(
    make_policy: MakePolicy, random_batch: RandomBatch, gradients: Gradients, mode: str
) -> None:
    modes = {"lora": LoraMode(rank=2), "last_k": LastLayersMode(k=1)}
    batch = random_batch()
    found = []
    for checkpointing in (False, True):
        config = PolicyConfig(gradient_checkpointing=checkpointing)
        if mode in modes:
            config = config.model_copy(update={"mode": modes[mode]})
        network = make_policy(config=config)
        found.append(gradients(network, loss_of(network, [batch], batch)))
    assert found[0].keys() == found[1].keys()
    for name, g in found[0].items():
        torch.testing.assert_close(g, found[1][name], atol=1e-6, rtol=1e-5)


def test_forward_returns_hidden_states_and_shifted_values(
    tiny_policy: PolicyValueNetwork, random_batch: RandomBatch
) -> None:
    batch = random_batch()
    with torch.no_grad():
        hidden, values = tiny_policy(batch.input_ids, batch.attention_mask)
        scores = tiny_policy.evaluate(batch)
    assert hidden.shape == (*batch.input_ids.shape, 32)
    torch.testing.assert_close(values[batch.action_mask], scores.values[batch.action_mask])
    assert bool((values[~batch.attention_mask] == 0).all())
    assert bool((values[:, 0] == 0).all())


def test_get_action_and_value_continues_each_sequence(
    tiny_policy: PolicyValueNetwork, random_batch: RandomBatch
) -> None:
    batch = random_batch()
    lengths = batch.attention_mask.sum(dim=1)
    with torch.no_grad():
        sampled = tiny_policy.get_action_and_value(
            batch.input_ids, batch.attention_mask, generator=_generator(2)
        )
        again = tiny_policy.get_action_and_value(
            batch.input_ids, batch.attention_mask, sampled.action
        )
    for i, length in enumerate(lengths.tolist()):
        ids = [*batch.input_ids[i, :length].tolist(), int(sampled.action[i])]
        wanted = step_by_hand(tiny_policy, ids, length)
        got = Step(*(float(x[i]) for x in (again.logprob, again.value, again.entropy)))
        assert got == pytest.approx(wanted, abs=2e-5)
    assert torch.equal(sampled.logprob, again.logprob)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3_text", "mistral"])
def test_other_architectures_align(
    make_policy: MakePolicy, random_batch: RandomBatch, kind: str
) -> None:
    check_alignment(make_policy(kind), random_batch(4))


def test_logits_that_are_more_than_head_times_hidden_are_an_error(make_policy: MakePolicy) -> None:
    with pytest.raises(ConfigError, match="soft-capping or scaling"):
        make_policy("gemma2")


def test_bfloat16_is_no_unsupported_architecture(make_policy: MakePolicy) -> None:
    assert make_policy(config=PolicyConfig(precision="bf16")).config.precision == "bf16"


def test_the_same_seed_gives_the_same_adapter() -> None:
    config = PolicyConfig(mode=LoraMode(rank=2))
    first, second, other = (PolicyValueNetwork.from_config(config, seed=s) for s in (3, 3, 4))
    torch.manual_seed(1)  # the global generator has no part in it
    third = PolicyValueNetwork.from_config(config, seed=3)
    for x, y, z in zip(first.parameters(), second.parameters(), third.parameters(), strict=True):
        assert torch.equal(x, y)
        assert torch.equal(x, z)
    adapters = [n.lm.model.layers[0].mlp.up_proj.lora_A["default"].weight for n in (first, other)]
    assert not torch.equal(*adapters)


def test_an_unknown_model_is_one_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"policy\.model: cannot load 'no/such/folder/here': "):
        PolicyValueNetwork.from_config(PolicyConfig(model="no/such/folder/here"), seed=0)


def test_the_end_token_is_learnt_from(
    make_policy: MakePolicy, episode: Callable[..., Any], gradients: Gradients
) -> None:
    network = make_policy(tied=False)
    batch = collate([episode([9, 3], [1, 6])])
    assert batch.action_mask.tolist() == [[False, False, True, True]]
    only_end = replace(batch, action_mask=torch.tensor([[False, False, False, True]]))
    found = gradients(network, -network.evaluate(only_end).logprobs.sum())
    g = found["lm.lm_head.weight"]
    assert float(g[6].abs().max()) > 1e-2
    hidden = network.hidden_states(batch.input_ids)[0, 2].detach()
    p = float(network.next_logits(hidden).softmax(-1)[6])
    torch.testing.assert_close(g[6], (p - 1) * hidden, atol=1e-5, rtol=1e-4)


def test_pad_equal_to_end_gives_identical_batches_and_scores(
    make_policy: MakePolicy, episode: Callable[..., Any]
) -> None:
    episodes = [episode([9, 6], [1, 6]), episode([10], [6]), episode([6, 6, 6], [2, 2, 2, 6])]
    batch = collate(episodes)
    scores = [make_policy(pad=pad).evaluate(batch) for pad in ("_", "$")]
    for x, y in zip(*scores, strict=True):
        assert torch.equal(x, y)
    assert batch.attention_mask.sum(dim=1).tolist() == [4, 2, 7]
    assert batch.action_mask.sum(dim=1).tolist() == [2, 1, 4]
