"""Parts in flight: the same rollout, with the rewards of one computed while another is written."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import gymnasium
import pytest
import torch

from textgym_agents.lm.clock import Clock
from textgym_agents.lm.config import EnvConfig, RolloutConfig
from textgym_agents.lm.engine import Generation, TransformersEngine
from textgym_agents.lm.envs import make_envs
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.overlap import collect_parts
from textgym_agents.lm.rollout import collect
from textgym_agents.lm.transcript import Rollout

MakePolicy = Callable[..., PolicyValueNetwork]
CONFIG = RolloutConfig(max_new_tokens=1, max_length=16)
TOY = EnvConfig(id="textgym:ToyTwoTurn-v0")
SEEDS = [3, 11, 4, 7, 5]


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in SEEDS]


def play(
    network: PolicyValueNetwork, num_in_flight: int, *, clock: Clock | None = None
) -> list[Rollout]:
    envs = [make_envs(TOY, 4) for _ in range(num_in_flight)]
    try:
        return collect_parts(
            envs,
            TransformersEngine(network),
            network,
            CONFIG,
            seeds=SEEDS,
            generators=generators(),
            clock=clock or Clock(),
        )
    finally:
        for each in envs:
            each.close()


@pytest.mark.parametrize("num_in_flight", [1, 2, 3, 5])
def test_parts_are_the_same_however_many_are_in_flight(
    tiny_policy: PolicyValueNetwork, num_in_flight: int
) -> None:
    envs, engine = make_envs(TOY, 4), TransformersEngine(tiny_policy)
    wanted = [
        collect(envs, engine, tiny_policy, CONFIG, seed=seed, generator=generator)
        for seed, generator in zip(SEEDS, generators(), strict=True)
    ]
    envs.close()
    assert play(tiny_policy, num_in_flight) == wanted
    turns = {len(t.completions) for rollout in wanted for t in rollout.transcripts}
    assert turns == {1, 2}  # parts do not end one after another


def test_the_environment_works_while_the_engine_writes(tiny_policy: PolicyValueNetwork) -> None:
    """A step of the first part ends only once the engine has been asked for the second."""
    writes, is_asked_again = [0], threading.Event()
    main = threading.current_thread()

    class Watched(TransformersEngine):
        def generate(self, *args: Any, **kwargs: Any) -> list[Generation]:
            assert threading.current_thread() is main
            writes[0] += 1
            if writes[0] == 2:
                is_asked_again.set()
            return super().generate(*args, **kwargs)

    class Slow(gymnasium.vector.VectorWrapper):  # type: ignore[type-arg]
        def step(self, actions: Any) -> Any:
            assert threading.current_thread() is not main
            assert is_asked_again.wait(timeout=30)
            return super().step(actions)

    clock = Clock()
    envs = [Slow(make_envs(TOY, 4)) for _ in range(2)]
    rollouts = collect_parts(
        envs,
        Watched(tiny_policy),
        tiny_policy,
        CONFIG,
        seeds=SEEDS[:2],
        generators=generators(),
        clock=clock,
    )
    for each in envs:
        each.close()
    assert [len(rollout.scored()) for rollout in rollouts] == [4, 4]
    seconds = clock.take()
    assert seconds["generation"] > 0
    assert seconds["environment"] > 0
    assert clock.take() == {}


def test_an_environment_that_fails_ends_the_rollout(tiny_policy: PolicyValueNetwork) -> None:
    class Broken(gymnasium.vector.VectorWrapper):  # type: ignore[type-arg]
        def step(self, actions: Any) -> Any:
            raise RuntimeError("out of order")

    envs = [Broken(make_envs(TOY, 4)) for _ in range(2)]
    with pytest.raises(RuntimeError, match="out of order"):
        collect_parts(
            envs,
            TransformersEngine(tiny_policy),
            tiny_policy,
            CONFIG,
            seeds=SEEDS,
            generators=generators(),
            clock=Clock(),
        )


def test_samples_of_another_version_are_left_out(tiny_policy: PolicyValueNetwork) -> None:
    """Such as those of an engine whose weights changed in the middle of an episode."""

    class Mixed(TransformersEngine):
        def generate(self, *args: Any, **kwargs: Any) -> list[Generation]:
            generations = super().generate(*args, **kwargs)
            return [generations[0]._replace(policy_version=6), *generations[1:]]

    engine, envs = Mixed(tiny_policy), make_envs(TOY, 4)
    engine.sync(7)
    generator = torch.Generator().manual_seed(0)
    rollout = collect(envs, engine, tiny_policy, CONFIG, seed=0, generator=generator)
    envs.close()
    stale = [t for t in rollout.transcripts if t.failure is not None]
    assert stale
    assert all(t.failure == "stale_policy" and t.policy_version == 6 for t in stale)
    assert all(t.policy_version == 7 for t in rollout.scored())
    assert rollout.metrics()["rollout/failed/stale_policy"] == len(stale)
    assert stale[0].record()["policy_version"] == 6
