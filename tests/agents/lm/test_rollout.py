"""Episodes as they are collected: what is an action, what is left out, what is counted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

from textgym_agents.core.buffer import MemoryBuffer
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.config import EnvConfig, PolicyConfig, RolloutConfig, TrainConfig
from textgym_agents.lm.engine import Generation, TransformersEngine
from textgym_agents.lm.envs import make_envs
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.rollout import collect
from textgym_agents.lm.transcript import Rollout, Transcript

MakePolicy = Callable[..., PolicyValueNetwork]
TOY = "textgym:ToyTwoTurn-v0"
END = 6
LIMITS = RolloutConfig(num_episodes=64, num_envs=64, max_new_tokens=1, max_length=16)
REWARDS = '''
import os, time

def checked(sample):
    """Fails in every way on the completions that say so."""
    first = sample.completion[:1]
    if first == "0":
        raise RuntimeError("the verifier broke")
    if first == "1":
        return float("nan")
    if first == "2":
        os._exit(1)
    return 0.25

def hangs(sample):
    while sample.completion.startswith("0"):
        time.sleep(0.01)
    return 0.25
'''


class Scripted:
    """An engine that says what it is told, in order."""

    def __init__(self, said: Sequence[Sequence[int]]) -> None:
        self.said = iter(said)
        self.prompts: list[list[int]] = []
        self.policy_version = 0

    def sync(self, policy_version: int) -> dict[str, float]:
        self.policy_version = policy_version
        return {}

    def close(self) -> None:
        """Do nothing."""

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: Sequence[int],
        temperature: float,
        generator: torch.Generator,
    ) -> list[Generation]:
        self.prompts += [list(p) for p in prompts]
        ids = [list(next(self.said)) for _ in prompts]
        return [
            Generation(x, [-1.0 - k for k in range(len(x))], "stop" if x[-1] == END else "length")
            for x in ids
        ]


def play(
    network: PolicyValueNetwork,
    env: EnvConfig,
    config: RolloutConfig = LIMITS,
    *,
    engine: Any = None,
    seed: int = 0,
    num_envs: int | None = None,
    options: dict[str, Any] | None = None,
) -> Rollout:
    envs = make_envs(env, num_envs or config.num_envs)
    try:
        return collect(
            envs,
            engine or TransformersEngine(network),
            network,
            config,
            seed=seed,
            generator=torch.Generator().manual_seed(seed),
            options=options,
        )
    finally:
        envs.close()


def test_messages_of_the_environment_are_not_actions(tiny_policy: PolicyValueNetwork) -> None:
    engine = Scripted([[3], [4], [1], [2]])
    rollout = play(
        tiny_policy, EnvConfig(id=TOY), engine=engine, num_envs=2,
        options={"prompt_index": np.array([0, 1])},
    )  # fmt: skip
    for transcript, prompt, first in zip(rollout.transcripts, (9, 10), (3, 4), strict=True):
        ids, mask = transcript.ids, transcript.is_action
        assert ids[:2] == [prompt, first]
        assert ids[2] in (7, 8)
        assert len(ids) == 4
        assert mask == [False, True, False, True]
        assert transcript.logprobs == [0.0, -1.0, 0.0, -1.0]
        assert transcript.rewards[:3] == [0.0, 0.0, 0.0]
        assert transcript.terminated
        assert len(transcript.completions) == 2
    assert engine.prompts[2:] == [t.ids[:3] for t in rollout.transcripts]
    table = {(0, 7): 1, (0, 8): 2, (1, 7): 2, (1, 8): 0}  # what turn 2 should say
    for transcript, prompt in zip(rollout.transcripts, (0, 1), strict=True):
        right = table[prompt, transcript.ids[2]] == transcript.ids[3]
        best = 1.0 if transcript.ids[2] == 7 else 0.5
        assert sum(transcript.rewards) == (best if right else 0.0)


def test_steps_of_a_score_land_on_their_tokens(
    tiny_policy: PolicyValueNetwork, prompt_file: Path, tmp_path: Path
) -> None:
    rewards = tmp_path / "steps.py"
    rewards.write_text(
        "import textgym\n"
        "def by_step(sample):\n"
        "    at = sample.completion.index('4') + 1\n"
        "    return textgym.Score.of_steps([textgym.Step(0.5, at), textgym.Step(0.25, 1, 'tokens'),"
        " textgym.Step(-1.0)])\n"
    )
    engine = Scripted([[3, 4, 5, END], [4, 3, 3, 3]])
    limits = RolloutConfig(num_episodes=2, num_envs=2, max_new_tokens=4, max_length=32)
    env = text_env(prompt_file, f"{rewards}:by_step")
    env = env.model_copy(update={"kwargs": {**env.kwargs, "score_length_cut": True}})
    first, second = play(tiny_policy, env, limits, engine=engine).transcripts
    assert first.rewards[-4:] == [0.25, 0.5, 0.0, -1.0]
    assert second.rewards[-4:] == [0.75, 0.0, 0.0, -1.0]
    assert sum(first.rewards) == first.record()["reward"] == -0.25
    assert first.record()["reward_steps"][0] == {
        "value": 0.5, "stop": 2, "unit": "characters", "reason": "",
    }  # fmt: skip


def test_ids_and_logprobs_are_the_sampled_ones(make_policy: MakePolicy) -> None:
    network = make_policy(config=PolicyConfig(legal_ids=tuple(range(7))))
    rollout = play(network, EnvConfig(id=TOY))
    turns = [len(t.completions) for t in rollout.transcripts]
    assert set(turns) == {1, 2}
    buffer = MemoryBuffer()
    for transcript in rollout.scored():
        buffer.add(transcript.episode())
    batch = buffer.batch
    assert batch.action_mask.sum(dim=1).tolist() == turns
    with torch.no_grad():
        scores = network.evaluate(batch).logprobs
    for i, each in enumerate(buffer.episodes):
        assert each.engine_logprobs is not None
        n = len(each.input_ids)
        torch.testing.assert_close(scores[i, :n], each.engine_logprobs, atol=2e-5, rtol=0)
        assert (each.engine_logprobs != 0).tolist() == each.action_mask.tolist()


def test_the_same_seed_gives_the_same_rollout(tiny_policy: PolicyValueNetwork) -> None:
    first, second, other = (play(tiny_policy, EnvConfig(id=TOY), seed=s) for s in (5, 5, 6))
    assert [t.ids for t in first.transcripts] == [t.ids for t in second.transcripts]
    assert [t.ids for t in first.transcripts] != [t.ids for t in other.transcripts]


@pytest.fixture
def reward_file(tmp_path: Path) -> Path:
    path = tmp_path / "rewards.py"
    path.write_text(REWARDS)
    return path


@pytest.fixture
def prompt_file(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    rows = [f'{{"prompt": "{"AB"[i % 2] * (1 + i)}", "target": "3"}}' for i in range(8)]
    path.write_text("\n".join(rows) + "\n")
    return path


def text_env(prompts: Path, reward: str) -> EnvConfig:
    kwargs = {"split": "all"}
    return EnvConfig(prompts=str(prompts), reward=reward, kwargs=kwargs)


def test_failed_samples_are_counted_and_not_trained_on(
    make_policy: MakePolicy, prompt_file: Path, reward_file: Path
) -> None:
    network = make_policy(head_std=0.0)
    said = [[i, END] for i in (0, 1, 2, 3, 4, 5, 0, 3)]
    env = text_env(prompt_file, f"{reward_file}:checked")
    options = {"prompt_index": np.arange(8)}
    config = RolloutConfig(num_episodes=8, num_envs=8, max_new_tokens=2, max_length=16)
    rollout = play(network, env, config, engine=Scripted(said), options=options)
    failed = [t.failure for t in rollout.transcripts]
    assert failed == ["raised", "not_finite", "crashed", None, None, None, "raised", None]
    metrics = rollout.metrics()
    assert metrics["rollout/num_failed"] == 4
    assert metrics["rollout/failed/raised"] == 2
    assert metrics["rollout/failed/not_finite"] == metrics["rollout/failed/crashed"] == 1
    assert metrics["rollout/num_scored"] == 4
    assert metrics["rollout/reward"] == 0.25  # a failure that counted as 0 would lower it
    assert metrics["rollout/reward_std"] == 0.0
    records = [t.record() for t in rollout.transcripts]
    assert [r["reward"] for r in records] == [None, None, None, 0.25, 0.25, 0.25, None, 0.25]
    assert all(r["failure"] for r in records[:3])
    agent = PPOAgent(network, TrainConfig(rollout=config))
    before = [p.clone() for p in network.parameters()]
    trained = agent.update(rollout, iteration=0, progress=0.0)
    # V = 0, so the targets of the two tokens are 0.25 and gamma * lambda * 0.25
    assert trained["ppo/return"] == pytest.approx(0.25 * (1 + 0.99 * 0.95) / 2)
    assert any(not torch.equal(p, q) for p, q in zip(before, network.parameters(), strict=True))


def test_a_reward_that_hangs_costs_its_own_sample(
    tiny_policy: PolicyValueNetwork, prompt_file: Path, reward_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from textgym.function_reward import FunctionReward

    monkeypatch.setattr(FunctionReward, "time_limit", 0.5)
    env = text_env(prompt_file, f"{reward_file}:hangs")
    config = RolloutConfig(num_episodes=3, num_envs=3, max_new_tokens=2, max_length=16)
    engine = Scripted([[3, END], [0, END], [4, END]])
    options = {"prompt_index": np.arange(3)}
    rollout = play(tiny_policy, env, config, engine=engine, options=options)
    assert [t.failure for t in rollout.transcripts] == [None, "timeout", None]


def test_a_rollout_without_a_score_changes_nothing(
    tiny_policy: PolicyValueNetwork, prompt_file: Path, reward_file: Path
) -> None:
    config = RolloutConfig(num_episodes=4, num_envs=4, max_new_tokens=2, max_length=16)
    env = text_env(prompt_file, f"{reward_file}:checked")
    rollout = play(tiny_policy, env, config, engine=Scripted([[0, END]] * 4))
    before = [p.clone() for p in tiny_policy.parameters()]
    agent = PPOAgent(tiny_policy, TrainConfig(rollout=config))
    assert agent.update(rollout, iteration=0, progress=0.0) == {"ppo/skipped_updates": 1.0}
    assert all(torch.equal(p, q) for p, q in zip(before, tiny_policy.parameters(), strict=True))
    assert math.isnan(rollout.metrics()["rollout/reward"])


def test_prompts_without_room_are_counted(
    tiny_policy: PolicyValueNetwork, prompt_file: Path, reward_file: Path
) -> None:
    """Prompt i has i + 1 tokens; with 5 in all, prompts 4 to 7 leave no room for one more."""
    config = RolloutConfig(num_episodes=8, num_envs=8, max_new_tokens=3, max_length=5)
    env = text_env(prompt_file, f"{reward_file}:checked")
    options = {"prompt_index": np.arange(8)}
    engine = Scripted([[3, END]] * 4)
    rollout = play(tiny_policy, env, config, engine=engine, options=options)
    assert [t.failure for t in rollout.transcripts] == [None] * 4 + ["too_long"] * 4
    metrics = rollout.metrics()
    assert metrics["rollout/failed/too_long"] == 4
    assert metrics["rollout/num_scored"] == 4
    assert len(engine.prompts) == 4


def test_prompt_and_response_stay_within_the_limit(
    make_policy: MakePolicy, prompt_file: Path, reward_file: Path
) -> None:
    network = make_policy(config=PolicyConfig(legal_ids=(3, 4, 5)))  # never ends by itself
    config = RolloutConfig(num_episodes=8, num_envs=8, max_new_tokens=3, max_length=7)
    options = {"prompt_index": np.arange(8)}
    env = text_env(prompt_file, f"{reward_file}:checked")
    rollout = play(network, env, config, options=options)
    lengths = [(len(t.ids), sum(t.is_action)) for t in rollout.transcripts]
    assert lengths == [(4, 3), (5, 3), (6, 3), (7, 3), (7, 2), (7, 1), (7, 0), (8, 0)]
    assert rollout.metrics()["rollout/cut_share"] == 1.0


class Chat(gymnasium.Env[str, str]):
    """A third party's environment without a vector environment: `steps` turns of `3`, else over."""

    def __init__(self, *, action_mode: str, steps: int = 3, reward: float = 1.0) -> None:
        assert action_mode == "text"
        self.observation_space = self.action_space = spaces.Text(
            10, min_length=0, charset="345x9AB"
        )
        self.steps, self.reward, self.turn = steps, reward, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.turn = 0
        return "AB", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.turn += 1
        is_over = action != "3" or self.turn == self.steps
        return "xx", self.reward * self.turn, is_over and action == "3", action == "4", {}


@pytest.fixture
def chat() -> Iterator[str]:
    gymnasium.register(
        "Chat-v0", entry_point=lambda **kwargs: Chat(**kwargs), disable_env_checker=True
    )
    yield "Chat-v0"
    del gymnasium.registry["Chat-v0"]


def test_a_scalar_environment_of_several_turns_is_played_to_its_ends(
    tiny_policy: PolicyValueNetwork, chat: str
) -> None:
    """One episode ends in turn 1, one is truncated in turn 2, one goes on to turn 3."""
    said = [[4, END], [3, END], [3, END], [4, END], [3, END], [3, END]]
    config = RolloutConfig(num_episodes=3, num_envs=3, max_new_tokens=2, max_length=64)
    engine = Scripted(said)
    rollout = play(tiny_policy, EnvConfig(id=chat), config, engine=engine)
    assert [t.completions for t in rollout.transcripts] == [["4"], ["3", "4"], ["3", "3", "3"]]
    assert [t.truncated for t in rollout.transcripts] == [True, True, False]
    assert [t.terminated for t in rollout.transcripts] == [False, False, True]
    assert [sum(t.rewards) for t in rollout.transcripts] == [1.0, 3.0, 6.0]
    third = rollout.transcripts[2]
    assert third.ids == [9, 10, 3, END, 7, 7, 3, END, 7, 7, 3, END]
    assert third.rewards == [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]


def test_an_environment_that_is_not_native_runs_in_a_sync_vector_env(chat: str) -> None:
    envs = make_envs(EnvConfig(id=chat), 2)
    assert isinstance(envs.unwrapped, SyncVectorEnv)
    envs.close()


def test_a_conversation_that_fills_the_limit_ends_there(
    tiny_policy: PolicyValueNetwork, chat: str
) -> None:
    """The limit of length belongs to the task: the episode ends, and its rewards count."""
    config = RolloutConfig(num_episodes=1, num_envs=1, max_new_tokens=2, max_length=9)
    env = EnvConfig(id=chat, kwargs={"steps": 9})
    rollout = play(tiny_policy, env, config, engine=Scripted([[3, END]] * 9))
    (transcript,) = rollout.scored()
    assert len(transcript.completions) == 2
    assert transcript.terminated
    assert not transcript.truncated
    assert sum(transcript.rewards) == 3.0
    assert rollout.metrics()["rollout/cut_share"] == 1.0


@pytest.mark.parametrize("reward", [math.nan, math.inf])
def test_a_reward_that_is_not_finite_is_no_reward(
    tiny_policy: PolicyValueNetwork, chat: str, reward: float
) -> None:
    config = RolloutConfig(num_episodes=2, num_envs=2, max_new_tokens=2, max_length=64)
    env = EnvConfig(id=chat, kwargs={"reward": reward})
    rollout = play(tiny_policy, env, config, engine=Scripted([[4, END]] * 2))
    assert [t.failure for t in rollout.transcripts] == ["not_finite"] * 2
    assert not rollout.scored()
    assert rollout.metrics()["rollout/failed/not_finite"] == 2


def test_components_are_averaged_over_the_episodes_that_have_them() -> None:
    parts: list[dict[str, float | None]] = [
        {"code": 1.0, "text": 0.5, "rules": None},
        {"code": 0.0, "text": math.nan, "rules": None},
        {"code": None, "text": None, "rules": 0.25},
    ]
    rollout = Rollout([Transcript("?", [1], info={"reward_parts": each}) for each in parts])
    measured = {k: v for k, v in rollout.metrics().items() if k.startswith("rollout/parts/")}
    assert measured == {
        "rollout/parts/code": 0.5, "rollout/parts/text": 0.5, "rollout/parts/rules": 0.25
    }  # fmt: skip
