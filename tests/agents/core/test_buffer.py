"""The buffer: ragged in, padded once, advantages of exactly the policy's tokens (T1 to T3, T12)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from textgym_agents.core import buffer as buffer_module
from textgym_agents.core import targets as targets_module
from textgym_agents.core.buffer import Batch, Episode, Evaluation, MemoryBuffer
from textgym_agents.core.config import PPOConfig

PLAIN = PPOConfig(whiten_advantages=False, gamma=0.9, gae_lambda=0.5, value_lambda=0.5)


def episode(actions: str, rewards: list[float], *, truncated: bool = False) -> Episode:
    """Return an episode of one token per character: `a` is an action, anything else is not."""
    mask = torch.tensor([c == "a" for c in actions], dtype=torch.bool)
    ids = torch.arange(10, 10 + len(actions))
    return Episode(ids, mask, torch.tensor(rewards), not truncated, truncated)


def filled(*episodes: Episode) -> MemoryBuffer:
    memory = MemoryBuffer()
    for one in episodes:
        memory.add(one)
    return memory


def evaluation(memory: MemoryBuffer, *, value: float = 0.25, bootstrap: float = 2.0) -> Evaluation:
    """Return the same value everywhere, off the mask and at the end of terminated episodes too."""
    shape = memory.batch.input_ids.shape
    values = torch.full(shape, value)
    return Evaluation(
        torch.full(shape, -1.0), values, torch.ones(shape), torch.full(shape[:1], bootstrap)
    )


def advantages_of(*episodes: Episode, config: PPOConfig = PLAIN) -> Batch:
    memory = filled(*episodes)
    memory.record(evaluation(memory))
    memory.compute_returns_and_advantages(config)
    return memory.batch


def check_termination_ignores_the_value_that_follows() -> None:
    # gamma 0.9, lambda 0.5, V 0.25 everywhere, 2 after the end, reward 1 on the last of 3 actions.
    # Terminated: delta_3 = 1 - 0.25 = 0.75, delta_1 = delta_2 = 0.225 - 0.25 = -0.025;
    #   A_2 = -0.025 + 0.45 * 0.75 = 0.3125, A_1 = -0.025 + 0.45 * 0.3125 = 0.115625.
    # Truncated adds (gamma lambda)^(3 - k) * 0.9 * 2: 1.8, 0.81, 0.3645.
    rewards = [0.0, 0, 0, 0, 1]
    batch = advantages_of(
        episode("ppaaa", rewards),
        episode("ppaaa", rewards, truncated=True),
    )
    terminated = torch.tensor([0, 0, 0.115625, 0.3125, 0.75])
    extra = torch.tensor([0, 0, 0.3645, 0.81, 1.8])
    torch.testing.assert_close(batch.advantages, torch.stack([terminated, terminated + extra]))
    on = batch.action_mask
    torch.testing.assert_close(batch.returns, torch.where(on, batch.advantages + 0.25, 0.0))


def check_terminal_reward_lands_on_the_last_action() -> None:
    # Prompt, two actions (the second ends the text), then a token of the environment on which the
    # reward arrives; a longer episode beside it, so that there is padding after the end too.
    # A_2 = 1 - 0.25 = 0.75 undiscounted; A_1 = 0.225 - 0.25 + 0.45 * 0.75 = 0.3125.
    batch = advantages_of(
        episode("paae", [0.0, 0, 0, 1]),
        episode("ppaaaa", [0.0, 0, 0, 0, 0, 0]),
    )
    expected = torch.tensor([0, 0.3125, 0.75, 0, 0, 0])
    torch.testing.assert_close(batch.advantages[0], expected)
    assert batch.action_mask[0].tolist() == [False, True, True, False, False, False]
    assert batch.rewards[0].tolist() == [0, 0, 1, 0, 0, 0]


def check_kl_penalty_is_taken_off_the_reward() -> None:
    memory = filled(episode("paae", [0.0, 0, 1, 0]))
    memory.record(evaluation(memory), kl_penalty=torch.tensor([[9.0, 0.1, 0.3, 9.0]]))
    torch.testing.assert_close(memory.batch.rewards, torch.tensor([[0.0, -0.1, 0.7, 0]]))


def check_returns_are_stored_before_whitening() -> None:
    episodes = [episode("paaa", [0.0, 0, 0, 1]), episode("paa", [0.0, 0, -1])]
    plain = advantages_of(*episodes)
    white = advantages_of(*episodes, config=PLAIN.model_copy(update={"whiten_advantages": True}))
    on = plain.action_mask
    torch.testing.assert_close(white.returns, plain.returns)
    raw = plain.advantages[on]
    torch.testing.assert_close(
        white.advantages[on], (raw - raw.mean()) / (raw.std(correction=0) + 1e-8)
    )
    assert (white.advantages[~on] == 0).all()


def test_termination_ignores_the_value_that_follows_and_truncation_does_not() -> None:
    """T3."""
    check_termination_ignores_the_value_that_follows()


def test_terminal_reward_lands_on_the_last_action() -> None:
    """T2: and nothing after the end takes part."""
    check_terminal_reward_lands_on_the_last_action()


def test_kl_penalty_is_taken_off_the_reward_of_actions() -> None:
    check_kl_penalty_is_taken_off_the_reward()


def test_returns_are_stored_before_whitening() -> None:
    """T12: once, over the action tokens of the whole rollout."""
    check_returns_are_stored_before_whitening()


def test_value_targets_have_a_lambda_of_their_own() -> None:
    # V 0.25, gamma 1, reward 1 on the second action. Targets with lambda 1: both returns are 1.
    # Advantages with lambda 0: delta_1 = 0.25 - 0.25 = 0, delta_2 = 0.75.
    config = PLAIN.model_copy(update={"gamma": 1.0, "gae_lambda": 0.0, "value_lambda": 1.0})
    batch = advantages_of(episode("paa", [0.0, 0, 1]), config=config)
    torch.testing.assert_close(batch.returns, torch.tensor([[0.0, 1, 1]]))
    torch.testing.assert_close(batch.advantages, torch.tensor([[0.0, 0, 0.75]]))


def test_length_adaptive_lambda_depends_on_the_actions_of_each_sequence() -> None:
    # 1,000 actions: lambda 0.98; 4 actions: 0.95. V 0, gamma 1, reward 1 on the last action: the
    # advantage k actions before the end is lambda^k.
    config = PPOConfig(
        whiten_advantages=False, gamma=1.0, gae_lambda="length_adaptive", value_lambda=1.0
    )
    memory = filled(
        episode("p" + "a" * 1000, [0.0] * 1000 + [1.0]), episode("paaaa", [0.0, 0, 0, 0, 1])
    )
    memory.record(evaluation(memory, value=0.0))
    memory.compute_returns_and_advantages(config)
    assert float(memory.batch.advantages[0, 990]) == pytest.approx(0.98**10, rel=1e-4)
    assert float(memory.batch.advantages[1, 1]) == pytest.approx(0.95**3, rel=1e-4)
    assert float(memory.batch.returns[0, 1]) == pytest.approx(1.0)


def test_discount_unit_reaches_the_recursion() -> None:
    # Two turns of two actions, V 0, lambda 1, gamma 0.5, reward 8 at the end: 4 4 and 8 8.
    config = PLAIN.model_copy(update={"gamma": 0.5, "gae_lambda": 1.0, "discount_unit": "turn"})
    memory = filled(episode("paaeaa", [0.0, 0, 0, 0, 0, 8]))
    memory.record(evaluation(memory, value=0.0))
    memory.compute_returns_and_advantages(config)
    assert memory.batch.advantages.tolist() == [[0, 4, 4, 0, 8, 8]]


def test_advantages_of_an_episode_do_not_depend_on_the_others() -> None:
    """T3: no leak over an episode's end, whatever the padding."""
    episodes = [
        episode("paaeaa", [0.0, 0, 0, 1, 0, 2], truncated=True),
        episode("pa", [0.0, -1]),
        episode("ppaeeaaa", [0.0, 0, 1, 0, 0, 0, 0, 3]),
    ]
    together = advantages_of(*episodes)
    for i, one in enumerate(episodes):
        alone, length = advantages_of(one), len(one.input_ids)
        assert torch.equal(together.advantages[i, :length], alone.advantages[0])
        assert torch.equal(together.returns[i, :length], alone.returns[0])
        assert (together.advantages[i, length:] == 0).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_add_rejects_a_reward_that_is_not_finite(bad: float) -> None:
    memory = MemoryBuffer()
    with pytest.raises(ValueError, match="not finite cannot be trained on"):
        memory.add(episode("paa", [0.0, bad, 1.0]))
    assert len(memory) == 0


@pytest.mark.parametrize("both", [True, False])
def test_episode_is_either_terminated_or_truncated(both: bool) -> None:
    with pytest.raises(ValueError, match=f"either terminated or truncated; got both as {both}"):
        Episode(torch.arange(2), torch.ones(2, dtype=torch.bool), torch.zeros(2), both, both)


def test_episodes_are_stored_ragged_and_padded_on_the_right() -> None:
    episodes = [episode("pa", [0.0, 1]), episode("ppaea", [0.0, 0, 1, 0, 2])]
    memory = filled(*episodes)
    assert [len(e.input_ids) for e in memory.episodes] == [2, 5]
    assert [e.num_actions for e in memory.episodes] == [1, 2]
    batch = memory.batch
    assert batch is memory.batch
    assert batch.attention_mask.tolist() == [[True] * 2 + [False] * 3, [True] * 5]
    assert batch.input_ids[0, :2].tolist() == [10, 11]
    assert not (batch.action_mask & ~batch.attention_mask).any()


def test_add_after_the_batch_was_built_is_seen() -> None:
    memory = filled(episode("pa", [0.0, 1]))
    assert len(memory.batch.input_ids) == 1
    memory.add(episode("paa", [0.0, 0, 1]))
    assert memory.batch.input_ids.shape == (2, 3)


def numbered(lengths: list[int]) -> MemoryBuffer:
    """Return episodes whose reward is their own index."""
    return filled(
        *[episode("p" + "a" * (n - 1), [0.0] * (n - 1) + [float(i)]) for i, n in enumerate(lengths)]
    )


def indices(*batches: Batch) -> list[int]:
    return [int(x) for batch in batches for x in batch.rewards.sum(dim=1)]


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 99])
def test_minibatches_cover_every_episode_once(batch_size: int) -> None:
    memory = numbered([3, 7, 2, 5, 4, 6, 2, 9, 3, 2])
    batches = memory.minibatches(batch_size, torch.Generator().manual_seed(0))
    assert sorted(indices(*batches)) == list(range(10))
    assert all(len(indices(each)) == min(batch_size, 10) for each in batches[:-1])


def test_minibatches_follow_the_generator() -> None:
    memory = numbered([2] * 10)

    def orders(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return [indices(*memory.minibatches(4, generator)) for _ in range(2)]

    first, second = orders(1)
    assert [first, second] == orders(1)
    assert first != second
    assert first != orders(2)[0]


def with_every_field(batch: Batch) -> Batch:
    """Return a batch in which no optional field is None."""
    mask, zeros = batch.action_mask, batch.rewards
    return replace(
        batch, policy_mask=mask, reference_logprobs=zeros, engine_weights=zeros,
        cut_states=zeros.unsqueeze(2).expand(-1, -1, 3),
    )  # fmt: skip


def test_rows_are_trimmed_to_the_longest_of_them() -> None:
    batch = with_every_field(numbered([3, 9, 2, 5]).batch)
    rows = batch.rows(torch.tensor([3, 0]))
    assert indices(rows) == [3, 0]
    for field in fields(rows):
        expected = {"is_truncated": (2,), "cut_states": (2, 5, 3)}.get(field.name, (2, 5))
        assert getattr(rows, field.name).shape == expected, field.name


@pytest.mark.parametrize("max_tokens", [None, 1, 9, 10, 18, 20, 1000])
def test_micro_batches_hold_every_row_once_within_the_budget(max_tokens: int | None) -> None:
    lengths = [3, 9, 2, 5, 9, 4]
    parts = list(numbered(lengths).batch.micro_batches(max_tokens))
    assert sorted(indices(*parts)) == list(range(6))
    assert sum(int(part.action_mask.sum()) for part in parts) == sum(lengths) - 6
    for part in parts:
        if max_tokens is not None and len(part.input_ids) > 1:
            assert part.input_ids.numel() <= max_tokens


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_the_shares_of_processes_hold_every_row_once_and_as_many_tokens(size: int) -> None:
    batch = numbered([9, 2, 7, 3, 5]).batch
    shares = [batch.share(rank, size) for rank in range(size)]
    held = [share for share in shares if share is not None]
    assert len(held) == min(size, 5)
    assert sorted(indices(*held)) == sorted(indices(batch))
    if size == 2:
        assert [int(share.attention_mask.sum()) for share in held] == [16, 10]


def test_batch_moves_every_field_to_a_device() -> None:
    batch = with_every_field(numbered([2, 3]).batch).to(torch.device("meta"))
    assert {getattr(batch, field.name).device.type for field in fields(batch)} == {"meta"}


def test_record_keeps_what_the_behaviour_policy_said() -> None:
    memory = numbered([3, 2])
    old = evaluation(memory)
    memory.record(old)
    on = memory.batch.action_mask
    assert torch.equal(memory.batch.logprobs[on], old.logprobs[on])
    assert torch.equal(memory.batch.values[on], old.values[on])


REAL_RECORD, REAL_COLLATE, REAL_WHITEN = (
    MemoryBuffer.record,
    buffer_module.collate,
    buffer_module.masked_whiten,
)


def bootstrap_past_termination(self: MemoryBuffer, old: Evaluation, **options: Any) -> None:
    REAL_RECORD(self, old, **options)
    self._bootstrap = old.bootstrap


def truncation_as_termination(self: MemoryBuffer, old: Evaluation, **options: Any) -> None:
    REAL_RECORD(self, old, **options)
    self._bootstrap = torch.zeros_like(old.bootstrap)


def penalty_added(self: MemoryBuffer, old: Evaluation, *, kl_penalty: Tensor | None = None) -> None:
    REAL_RECORD(self, old, kl_penalty=None if kl_penalty is None else -kl_penalty)


def penalty_off_the_mask(
    self: MemoryBuffer, old: Evaluation, *, kl_penalty: Tensor | None = None
) -> None:
    REAL_RECORD(self, old)
    if kl_penalty is not None:
        self._batch = replace(self.batch, rewards=self.batch.rewards - kl_penalty)


def reward_left_where_it_arrived(rewards: Tensor, mask: Tensor) -> Tensor:
    return rewards


def reward_on_the_pad_after_the_end(episodes: list[Episode]) -> Batch:
    """Count the token after the last action as an action, and put its reward there."""
    batch = REAL_COLLATE(episodes)
    after = batch.action_mask.roll(1, dims=1)
    after[:, 0] = False
    is_last = batch.action_mask & (batch.action_mask.flip(1).cumsum(1).flip(1) == 1)
    rewards = torch.where(is_last, 0.0, batch.rewards)
    rewards = rewards + torch.where(is_last, batch.rewards, 0.0).roll(1, dims=1)
    return replace(batch, action_mask=batch.action_mask | after, rewards=rewards)


def whiten_over_pads(x: Tensor, mask: Tensor) -> Tensor:
    return REAL_WHITEN(x, torch.ones_like(mask)) * mask


@pytest.mark.parametrize(
    ("target", "name", "mutant", "check"),
    [
        (
            MemoryBuffer,
            "record",
            bootstrap_past_termination,
            check_termination_ignores_the_value_that_follows,
        ),
        (
            MemoryBuffer,
            "record",
            truncation_as_termination,
            check_termination_ignores_the_value_that_follows,
        ),
        (MemoryBuffer, "record", penalty_added, check_kl_penalty_is_taken_off_the_reward),
        (MemoryBuffer, "record", penalty_off_the_mask, check_kl_penalty_is_taken_off_the_reward),
        (
            buffer_module,
            "fold_rewards",
            reward_left_where_it_arrived,
            check_terminal_reward_lands_on_the_last_action,
        ),
        (
            buffer_module,
            "collate",
            reward_on_the_pad_after_the_end,
            check_terminal_reward_lands_on_the_last_action,
        ),
        (
            targets_module,
            "masked_whiten",
            whiten_over_pads,
            check_returns_are_stored_before_whitening,
        ),
    ],
)
def test_mutant_is_caught(
    monkeypatch: pytest.MonkeyPatch,
    target: Any,
    name: str,
    mutant: Callable[..., Any],
    check: Callable[[], None],
) -> None:
    """T28: bootstrap past termination, the reward on the pad after the end, whitening over pads."""
    monkeypatch.setattr(target, name, mutant)
    with pytest.raises(AssertionError):
        check()
