"""Rewards of some episodes are computed while others are written.

A rollout that is larger than its environments is played in parts. Here several parts are in flight,
each with environments of its own: while the engine writes for one part, the environments of the
others score what was written before, in threads. A part is a function of its own seeds, so the same
seeds give the same rollout, however many parts are in flight; and no update happens meanwhile, so
every sample is the current policy's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from gymnasium.vector import VectorEnv

from textgym_agents.lm.clock import Clock
from textgym_agents.lm.config import RolloutConfig
from textgym_agents.lm.engine import GenerationEngine
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.rollout import Episodes, Reset, Step, drop_stale
from textgym_agents.lm.transcript import Rollout


class _Part(NamedTuple):
    """A part in flight, and what its environments are about to answer."""

    number: int
    episodes: Episodes
    answer: Future[Reset] | Future[Step]


def collect_parts(
    envs: Sequence[VectorEnv[Any, Any, Any]],
    engine: GenerationEngine,
    network: PolicyValueNetwork,
    config: RolloutConfig,
    *,
    seeds: Sequence[int | list[int]],
    generators: Sequence[torch.Generator],
    clock: Clock,
) -> list[Rollout]:
    """Run one part of a rollout per seed, and return them in the order of the seeds.

    Args:
        envs: as many equal vector environments as parts may be in flight.
        engine: samples the completions, in the calling thread.
        network: its tokenizer encodes observations and decodes completions.
        config: limits of length, and the temperature.
        seeds: of the environments of each part; a list has one for each that plays.
        generators: of the sampling of each part.
        clock: is told what took how long.
    """
    waiting = deque(enumerate(seeds))
    finished: dict[int, Rollout] = {}
    in_flight: deque[_Part] = deque()
    with ThreadPoolExecutor(len(envs), "textgym-envs") as threads:

        def start(own: VectorEnv[Any, Any, Any]) -> None:
            if waiting:
                number, seed = waiting.popleft()
                episodes = Episodes(own, network, config, clock)
                in_flight.append(_Part(number, episodes, threads.submit(episodes.reset, seed)))

        for own in envs:
            start(own)
        while in_flight:
            number, episodes, answer = in_flight.popleft()
            _take(episodes, answer.result())
            actions = episodes.sample(engine, config.temperature, generators[number])
            if actions is None:
                drop_stale(episodes.transcripts, engine.policy_version)
                finished[number] = Rollout(episodes.transcripts)
                start(episodes.envs)
            else:
                in_flight.append(_Part(number, episodes, threads.submit(episodes.step, actions)))
    return [finished[number] for number in sorted(finished)]


def _take(episodes: Episodes, answer: Reset | Step) -> None:
    if isinstance(answer, Reset):
        episodes.begin(answer)
    else:
        episodes.observe(answer)
