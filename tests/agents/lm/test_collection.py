"""Groups of samples of one prompt: what they share, who is dropped, replaced and selected (T16)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from textgym_agents.lm.collection import Collector, group_metrics, mark_samples
from textgym_agents.lm.config import EnvConfig, OverlongConfig, PolicyConfig, RolloutConfig
from textgym_agents.lm.engine import TransformersEngine
from textgym_agents.lm.envs import make_envs
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.transcript import Rollout, Transcript

MakePolicy = Callable[..., PolicyValueNetwork]
MakeEnvs = Callable[[EnvConfig, int], Any]
NAN = math.nan


@pytest.fixture
def speaker(make_policy: MakePolicy) -> PolicyValueNetwork:
    """A policy that says `0` or `1`."""
    return make_policy(config=PolicyConfig(legal_ids=(0, 1)))


@pytest.fixture
def env(tmp_path: Path) -> EnvConfig:
    """Ten prompts, rendered with and without thinking; nobody says the target of every third."""
    rows = [{"prompt": f"AB{i}", "target": "5" if i % 3 == 0 else "1"} for i in range(10)]
    (tmp_path / "prompts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    kwargs = {
        "split": "all", "template": "qwen3", "think_share": 0.5, "score_length_cut": True,
    }  # fmt: skip
    return EnvConfig(prompts=str(tmp_path / "prompts.jsonl"), reward="exact_match", kwargs=kwargs)


def sync_envs(config: EnvConfig, num_envs: int) -> Any:
    """Make what an environment without a vector environment of its own is played in."""
    import textgym  # noqa: F401  # registers the environment

    settings = {**config.kwargs, "prompts": config.prompts, "reward": config.reward}
    return SyncVectorEnv(
        [lambda: gymnasium.make("TextGen-v0", action_mode="text", **settings)] * num_envs,
        autoreset_mode=AutoresetMode.DISABLED,
    )


def limits(**values: Any) -> RolloutConfig:
    start = {"num_episodes": 24, "num_envs": 24, "max_new_tokens": 1, "max_length": 200}
    return RolloutConfig(**{**start, **values})


def collected(
    network: PolicyValueNetwork,
    env: EnvConfig,
    config: RolloutConfig,
    *,
    iteration: int = 0,
    seed: int = 0,
    make: MakeEnvs = make_envs,
) -> Rollout:
    envs = make(env, config.num_rows)
    try:
        collector = Collector([envs], TransformersEngine(network), network, config, seed=seed)
        return collector.collect(iteration)
    finally:
        envs.close()


def groups_of(rollout: Rollout) -> list[list[Transcript]]:
    size = rollout.group_size
    return [rollout.transcripts[i : i + size] for i in range(0, len(rollout.transcripts), size)]


def comparable(rollout: Rollout) -> list[Any]:
    return [
        (t.prompt, t.ids, t.rewards, t.logprobs, t.group, t.is_dropped, t.is_selected, t.failure)
        for t in rollout.transcripts
    ]


def test_a_group_has_one_prompt_rendered_alike(speaker: PolicyValueNetwork, env: EnvConfig) -> None:
    rollout = collected(speaker, env, limits(samples_per_prompt=4))
    groups = groups_of(rollout)
    assert len(groups) == 6
    for number, group in enumerate(groups):
        assert len({t.prompt for t in group}) == 1
        assert {t.group for t in group} == {number}
    assert any(len({tuple(t.ids) for t in group}) > 1 for group in groups)
    prompts = [group[0].prompt for group in groups]
    assert len({"</think>" in prompt for prompt in prompts}) == 2
    assert len(set(prompts)) > 3


def test_a_group_meets_one_move_of_chance(make_policy: MakePolicy) -> None:
    """The answer of the environment in turn 2 is fixed by the seed too."""
    network = make_policy(config=PolicyConfig(legal_ids=(3, 4, 5)))
    toy = EnvConfig(id="textgym:ToyTwoTurn-v0")
    config = limits(samples_per_prompt=8, num_episodes=64, num_envs=64, max_new_tokens=1)
    answers = []
    for group in groups_of(collected(network, toy, config)):
        said = {t.ids[2] for t in group if len(t.ids) > 2}
        assert len(said) <= 1
        answers += said
    assert set(answers) == {7, 8}


def test_group_g_has_the_prompt_of_row_g(speaker: PolicyValueNetwork, env: EnvConfig) -> None:
    """Fewer prompts, and not other ones, than without groups."""
    grouped = collected(speaker, env, limits(samples_per_prompt=4))
    alone = collected(speaker, env, limits())
    assert [g[0].prompt for g in groups_of(grouped)] == [t.prompt for t in alone.transcripts[:6]]
    assert alone.transcripts[0].group is None
    assert "group" not in alone.transcripts[0].record()


def test_parts_of_a_rollout_have_prompts_of_their_own(
    speaker: PolicyValueNetwork, env: EnvConfig
) -> None:
    rollout = collected(speaker, env, limits(samples_per_prompt=4, num_envs=8))
    assert len(rollout.transcripts) == 24
    assert [t.group for t in rollout.transcripts] == [i // 4 for i in range(24)]
    assert len({g[0].prompt for g in groups_of(rollout)}) > 2


@pytest.mark.parametrize(
    "values",
    [{"drop_equal": True, "num_envs": 8}, {"keep_ends": 1}],
    ids=str,
)
def test_an_environment_of_scalars_is_played_alike(
    speaker: PolicyValueNetwork, env: EnvConfig, values: dict[str, Any]
) -> None:
    config = limits(samples_per_prompt=4, **values)
    for iteration in range(2):
        native = collected(speaker, env, config, iteration=iteration)
        scalars = collected(speaker, env, config, iteration=iteration, make=sync_envs)
        assert comparable(native) == comparable(scalars)


def test_a_rollout_is_a_function_of_seed_and_iteration(
    speaker: PolicyValueNetwork, env: EnvConfig
) -> None:
    config = limits(samples_per_prompt=4, keep_ends=1)
    first, again, later, other = (
        comparable(collected(speaker, env, config, iteration=i, seed=s))
        for i, s in ((3, 0), (3, 0), (4, 0), (3, 1))
    )
    assert first == again
    assert first != later
    assert first != other


def check_dropped_groups_are_replaced(speaker: PolicyValueNetwork, env: EnvConfig) -> None:
    num_rounds = 0
    for iteration in range(5):
        config = limits(samples_per_prompt=4, drop_equal=True)
        rollout = collected(speaker, env, config, iteration=iteration)
        groups = groups_of(rollout)
        kept = 0
        for number, group in enumerate(groups):
            scores = {t.score for t in group}
            assert [t.is_dropped for t in group] == [len(scores) < 2] * 4
            assert [t.group for t in group] == [number] * 4
            kept += len(scores) > 1
        assert kept == 6 or len(groups) >= 6 + 4  # all slots are filled, or it was tried four times
        assert kept <= 6
        num_rounds += len(groups) > 6
        metrics = group_metrics(rollout)
        assert metrics["groups/num_drawn"] == len(groups)
        assert metrics["groups/kept_share"] == pytest.approx(kept / len(groups))
    assert num_rounds > 2


def test_dropped_groups_are_replaced_by_other_prompts(
    speaker: PolicyValueNetwork, env: EnvConfig
) -> None:
    """T16: all equal, for want of scores too; spec 4.14, dynamic sampling."""
    check_dropped_groups_are_replaced(speaker, env)


@pytest.mark.parametrize("replacements", [0, 2, 4])
def test_replacement_ends_after_so_many_draws(
    make_policy: MakePolicy, env: EnvConfig, replacements: int
) -> None:
    """A policy that says one thing only has no group whose scores differ."""
    network = make_policy(config=PolicyConfig(legal_ids=(1,)))
    config = limits(samples_per_prompt=4, drop_equal=True, replacements=replacements)
    rollout = collected(network, env, config)
    assert len(groups_of(rollout)) == 6 * (1 + replacements)
    assert all(t.is_dropped for t in rollout.transcripts)
    metrics = group_metrics(rollout)
    assert metrics["groups/kept_share"] == 0.0
    assert metrics["groups/equal_share"] == 1.0
    prompts = [g[0].prompt for g in groups_of(rollout)]
    assert replacements == 0 or prompts[:6] != prompts[6:12]


# Marks of finished samples -----------------------------------------------------------------------


def samples(scores: Sequence[float], lengths: Sequence[int] | None = None) -> list[Transcript]:
    """Return finished samples; a score of nan is a failure."""
    made = []
    for score, length in zip(scores, lengths or [2] * len(scores), strict=True):
        transcript = Transcript("A", [9])
        transcript.ids += [1] * length
        transcript.is_action += [True] * length
        transcript.logprobs += [-1.0] * length
        transcript.rewards += [0.0] * (length - 1) + [score]
        transcript.terminated = True
        transcript.failure = "raised" if math.isnan(score) else None
        made.append(transcript)
    return made


def marked(config: RolloutConfig, transcripts: list[Transcript], seed: int = 0) -> list[Transcript]:
    mark_samples(transcripts, config, torch.Generator().manual_seed(seed))
    return transcripts


def selected(transcripts: list[Transcript]) -> list[int]:
    return [i for i, t in enumerate(transcripts) if t.is_selected]


def test_the_ends_of_each_group_are_selected() -> None:
    config = limits(samples_per_prompt=6, keep_ends=2, num_episodes=12, num_envs=12)
    made = marked(config, samples([3, 1, NAN, 2, 5, 4, 0, 0, 0, 0, 1, NAN]))
    # 1 and 2 are the worst, 5 and 4 the best: not 3.
    assert selected(made)[:4] == [1, 3, 4, 5]
    assert 10 in selected(made)
    assert len(selected(made)) == 8
    assert not any(t.is_dropped for t in made)


def test_ties_are_broken_by_the_generator() -> None:
    config = limits(samples_per_prompt=6, keep_ends=1, num_episodes=6, num_envs=6)
    chosen = {
        tuple(selected(marked(config, samples([0, 0, 0, 1, 1, 1]), seed=s))) for s in range(40)
    }
    assert len(chosen) > 4
    assert all(low < 3 <= high for low, high in chosen)


def test_a_group_of_too_few_scores_is_dropped() -> None:
    """T16: fewer than 2k."""
    config = limits(samples_per_prompt=4, keep_ends=2, num_episodes=8, num_envs=8)
    made = marked(config, samples([1, 2, 3, NAN, 1, 2, 3, 4]))
    assert [t.is_dropped for t in made] == [True] * 4 + [False] * 4


LONG = limits(
    samples_per_prompt=4, num_episodes=4, num_envs=4, max_new_tokens=10,
    overlong=OverlongConfig(penalty=1.0, buffer=4),
)  # fmt: skip


def test_the_penalty_of_the_length_is_part_of_the_score() -> None:
    # Free up to 6 tokens, whole at 10.
    made = marked(LONG, samples([1, 1, 0, 0], [3, 8, 10, 7]))
    assert [t.length_penalty for t in made] == [0, -0.5, -1, -0.25]
    assert [t.score for t in made] == [1, 1, 0, 0]  # what the rewards gave
    episodes = [t.episode() for t in made]
    assert [float(e.rewards.sum()) for e in episodes] == [1, 0.5, -1, -0.25]
    assert episodes[2].rewards[-1] == -1
    assert made[2].record()["length_penalty"] == -1
    assert made[2].record()["reward"] == 0


def test_the_buffer_is_a_fifth_of_the_cap_by_default() -> None:
    config = LONG.model_copy(update={"overlong": OverlongConfig(penalty=1.0)})
    made = marked(config, samples([0, 0, 0, 0], [8, 9, 10, 11]))
    assert [t.length_penalty for t in made] == [0, -0.5, -1, -1]


def test_only_what_the_policy_sampled_counts_as_length() -> None:
    made = samples([0, 0, 0, 0], [8, 8, 8, 8])
    made[0].add_observation([7] * 50)
    assert [t.length_penalty for t in marked(LONG, made)] == [-0.5] * 4


def test_lengths_alone_keep_no_group() -> None:
    """All right or all wrong: normalised, a penalty of a few hundredths would be all there is."""
    config = LONG.model_copy(update={"drop_equal": True})
    made = marked(config, samples([0, 0, 0, 0], [3, 8, 9, 10]))
    assert all(t.is_dropped for t in made)
    assert not any(t.is_dropped for t in marked(config, samples([0, 0, 1, 0], [3, 8, 9, 10])))


def test_the_ends_are_those_of_the_penalised_scores() -> None:
    config = LONG.model_copy(update={"keep_ends": 1})
    made = marked(config, samples([1, 1, 0.5, 0.2], [3, 10, 3, 3]))
    assert selected(made) == [0, 1]  # 1, 0, 0.5, 0.2


def test_samples_that_were_cut_can_be_left_out() -> None:
    config = LONG.model_copy(update={"overlong": OverlongConfig(leave_out=True)})
    made = samples([1, 0, 0, 1])
    made[1].finish_reason = "length"
    made[2].terminated, made[2].truncated = False, True
    assert selected(marked(config, made)) == [0, 3]
    assert not any(t.is_dropped for t in made)
    for number, transcript in enumerate(made):
        transcript.group = 0
        assert transcript.record()["is_selected"] == (number in (0, 3))


def test_group_metrics_are_of_what_the_rewards_gave() -> None:
    config = LONG.model_copy(update={"drop_equal": True})
    rollout = Rollout(marked(config, samples([1, 0, 1, 0, 2, 2, NAN, 2], [10] * 8)), 4)
    metrics = group_metrics(rollout)
    assert metrics == {
        "groups/num_drawn": 2.0,
        "groups/kept_share": 0.5,
        "groups/equal_share": 0.5,
        "groups/score_std": 0.25,
    }
    assert group_metrics(Rollout(samples([1, 0]))) == {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"samples_per_prompt": 5}, r"must be multiples of samples_per_prompt \(5\)"),
        ({"samples_per_prompt": 4, "num_envs": 6}, "must be multiples"),
        ({"drop_equal": True}, "samples_per_prompt is 1; set it to 2 or more"),
        ({"keep_ends": 1}, "samples_per_prompt is 1"),
        ({"keep_ends": 3, "samples_per_prompt": 4}, "keep_ends is 3, .* at most half"),
        ({"overlong": {"buffer": 9}}, r"overlong.buffer \(9\) is larger than the cap \(1\)"),
        ({"overlong": {"cap": 0}}, "greater than 0"),
    ],
)
def test_sizes_that_do_not_fit_are_rejected(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        limits(**values)


# Mutants -----------------------------------------------------------------------------------------


def no_marks(transcripts: Any, config: Any, ties: Any) -> None:
    """Drop nothing."""


def drop_everything(transcripts: Any, config: Any, ties: Any) -> None:
    for transcript in transcripts:
        transcript.is_dropped = True


@pytest.mark.parametrize("mutant", [no_marks, drop_everything])
def test_mutant_is_caught(
    monkeypatch: pytest.MonkeyPatch,
    speaker: PolicyValueNetwork,
    env: EnvConfig,
    mutant: Callable[..., None],
) -> None:
    """T28."""
    monkeypatch.setattr("textgym_agents.lm.collection._choose", mutant)
    with pytest.raises(AssertionError):
        check_dropped_groups_are_replaced(speaker, env)
