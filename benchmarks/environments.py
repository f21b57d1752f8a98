"""Speed of TextGen-v0 in token mode against CartPole-v1 and against `SyncVectorEnv` of itself.

Two shapes, both with real rewards at every end of an episode: `small` (12 characters, prompts
`a+b=`, three new tokens, 100 prompts) and `default` (what `gym.make` gives: printable ASCII, 64 new
tokens). Actions are uniform and drawn beforehand. Ours and the peer take turns in one process, in
short chunks, and medians are compared, so that what else the machine does weighs on both.

The steady state is measured. With the small shape the outcomes of nearly all completions have been
seen by then, so it is the environment that is timed. With 256 environments of the default shape
each step ends 5 episodes and asks the reward about 3 completions that nobody has seen: there the
reward is timed, which no environment can make faster. `reward_bound` shows those figures.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from benchmarks.table import Row, print_table

NUM_ENVS = 256
NUM_PAIRS = 15
SCALAR_STEPS = 5_000
VECTOR_STEPS = 500
SYNC_STEPS = 10
NUM_WARM_UP = 25_000
UNIT = "steps/s"
SHAPES: dict[str, dict[str, Any]] = {
    "small": {
        "prompts": [{"source": "arithmetic", "config": {"digits": 1}}],
        "split": "all",
        "tokenizer": "chars:0123456789+=",
        "max_new_tokens": 3,
    },
    "default": {},
}
ENV_ID = "textgym:TextGen-v0"
CART_POLE = "CartPole-v1"


def run() -> list[Row]:
    """Return the rows in which the environment is what is timed."""
    rows = [_scalar(shape, config) for shape, config in SHAPES.items()]
    return rows + _vector("small", SHAPES["small"])


def reward_bound() -> list[Row]:
    """Return the rows in which judging new completions is what is timed."""
    return _vector("default", SHAPES["default"])


def _scalar(shape: str, config: dict[str, Any]) -> Row:
    ours, peer = gymnasium.make(ENV_ID, **config), gymnasium.make(CART_POLE)
    speeds = _paired(_scalar_steps(ours, SCALAR_STEPS), _scalar_steps(peer, SCALAR_STEPS))
    ours.close()
    return Row(f"{shape} scalar env / CartPole-v1", *speeds, UNIT, target=1.2)


def _vector(shape: str, config: dict[str, Any]) -> list[Row]:
    ours = gymnasium.make_vec(ENV_ID, num_envs=NUM_ENVS, **config)
    cart_pole = gymnasium.make_vec(
        CART_POLE, num_envs=NUM_ENVS, vectorization_mode="vector_entry_point"
    )
    sync = SyncVectorEnv(
        [lambda: gymnasium.make(ENV_ID, **config)] * NUM_ENVS,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    play = _vector_steps(ours, VECTOR_STEPS)
    for _ in range(NUM_WARM_UP // VECTOR_STEPS if shape == "small" else 2):
        play()
    name = f"{shape} native env x{NUM_ENVS}"
    rows = [
        Row(f"{name} / CartPole native", *_paired(play, _vector_steps(cart_pole, VECTOR_STEPS)),
            UNIT, target=1.0),
        Row(f"{name} / SyncVectorEnv", *_paired(play, _vector_steps(sync, SYNC_STEPS)),
            UNIT, target=25.0),
    ]  # fmt: skip
    ours.close()
    sync.close()
    return rows


def _scalar_steps(env: gymnasium.Env[Any, Any], num_steps: int) -> Callable[[], float]:
    """Return a function that plays a chunk and returns its steps per second."""
    rng = np.random.default_rng(0)
    env.reset(seed=0)

    def play() -> float:
        actions = rng.integers(env.action_space.n, size=num_steps)  # type: ignore[attr-defined]
        started = time.perf_counter()
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return num_steps / (time.perf_counter() - started)

    return play


def _vector_steps(env: Any, num_steps: int) -> Callable[[], float]:
    rng = np.random.default_rng(0)
    env.reset(seed=0)

    def play() -> float:
        actions = rng.integers(env.single_action_space.n, size=(num_steps, NUM_ENVS))
        started = time.perf_counter()
        for row in actions:
            env.step(row)
        return NUM_ENVS * num_steps / (time.perf_counter() - started)

    return play


def _paired(ours: Callable[[], float], peer: Callable[[], float]) -> tuple[float, float]:
    """Return the medians of both, measured in turns."""
    ours(), peer()
    pairs = [(ours(), peer()) for _ in range(NUM_PAIRS)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


if __name__ == "__main__":
    print_table([*run(), *reward_bound()])
