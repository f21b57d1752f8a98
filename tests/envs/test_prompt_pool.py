from __future__ import annotations

import json
import pickle
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textgym import ConfigError, Prompt, PromptError, UnknownPromptSourceError
from textgym.prompt_files import write_prompts
from textgym_envs.prompt_pool import PromptPool, PromptStream

SMALL: dict[str, Any] = {"source": "arithmetic", "config": {"below": 20}}


def write_rows(path: Path, count: int, *, start: int = 0) -> Path:
    rows = [
        json.dumps({"question": f"q{i}", "target": str(i)}) for i in range(start, start + count)
    ]
    path.write_text("\n".join(rows))
    return path


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> PromptPool:
    path = write_rows(tmp_path_factory.mktemp("mixed") / "rows.jsonl", 50)
    return PromptPool([{**SMALL, "weight": 9}, str(path)], split="all")


@given(
    pairs=st.lists(
        st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**40)), min_size=1, max_size=20
    )
)
def test_draw_array_equals_draw(mixed: PromptPool, pairs: list[tuple[int, int]]) -> None:
    keys = np.array([key for key, _ in pairs], dtype=np.uint64)
    episodes = np.array([episode for _, episode in pairs], dtype=np.int64)
    for pool in (mixed, PromptPool(SMALL)):
        drawn = pool.draw_array(keys, episodes)
        assert drawn.dtype == np.int64
        assert drawn.tolist() == [pool.draw(key, episode) for key, episode in pairs]


def test_draw_is_fixed_for_ever() -> None:
    # part of every saved run: a change here changes what `--resume` continues with
    pool = PromptPool("arithmetic")
    assert [pool.draw(2**63 + 7, episode) for episode in range(4)] == [3162, 476, 8245, 2623]


def test_draw_follows_the_weights_and_is_uniform_within_a_source(mixed: PromptPool) -> None:
    keys = np.full(100_000, 5, dtype=np.uint64)
    drawn = mixed.draw_array(keys, np.arange(100_000))
    assert (drawn < 400).mean() == pytest.approx(0.9, abs=0.005)  # standard error 0.001
    counts = np.bincount(drawn[drawn >= 400] - 400, minlength=50)
    expected = counts.sum() / 50
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 85.4  # 0.999 quantile with 49 degrees of freedom


def test_neighbouring_keys_draw_independently() -> None:
    pool = PromptPool("arithmetic")
    episodes = np.arange(5_000)
    first, second = (pool.draw_array(np.full(5_000, k, np.uint64), episodes) for k in (1, 2))
    # over 8,997 prompts two independent streams agree about 0.6 times, shifted ones 4,999 times
    assert (first == second).sum() < 10
    assert (first[1:] == second[:-1]).sum() < 10


def test_splits_draw_from_independent_streams() -> None:
    train, everything = PromptPool(SMALL, evaluation_share=0), PromptPool(SMALL, split="all")
    assert len(train) == len(everything) == 400
    drawn = [[pool.draw(1, e) for e in range(1_000)] for pool in (train, everything)]
    assert sum(a == b for a, b in zip(*drawn, strict=True)) < 20


def test_splits_part_the_prompts() -> None:
    pools = {s: PromptPool("arithmetic", split=s) for s in ("train", "evaluation", "all")}
    ids = {s: {p.prompt(i).id for i in range(len(p))} for s, p in pools.items()}
    assert ids["train"] | ids["evaluation"] == ids["all"]
    assert not ids["train"] & ids["evaluation"]
    assert len(ids["evaluation"]) == pytest.approx(1_000, abs=120)  # four standard errors


def test_split_keeps_duplicates_together_and_appended_lines_move_nothing(tmp_path: Path) -> None:
    prompts = [Prompt(id=f"{i}", messages=f"q{i % 100}") for i in range(300)]
    path = tmp_path / "a.jsonl"

    def evaluation() -> set[str]:
        pool = PromptPool(str(path), split="evaluation", evaluation_share=0.3)
        return {pool.prompt(i).text for i in range(len(pool))}

    write_prompts(path, prompts)
    train = PromptPool(str(path), evaluation_share=0.3)
    before = evaluation()
    assert before
    assert not before & {train.prompt(i).text for i in range(len(train))}
    write_prompts(path, [*prompts, *(Prompt(id=f"n{i}", messages=f"n{i}") for i in range(50))])
    after = evaluation()
    assert {text for text in after if text.startswith("q")} == before
    assert len(after) > len(before)


@pytest.mark.parametrize(
    ("split", "share", "message"),
    [
        ("evaluation", 0.0, "holds out none of the 400 prompts of arithmetic. Raise it"),
        ("train", 1.0, "holds out all of the 400 prompts of arithmetic. Lower it"),
    ],
)
def test_an_empty_split_is_an_error_when_it_is_asked_for(
    split: Any, share: float, message: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PromptError, match=message):
            PromptPool(SMALL, split=split, evaluation_share=share)


def test_a_source_without_prompts_in_the_split_is_left_out_with_a_warning(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "one.jsonl", 1)
    with pytest.warns(UserWarning, match=r"has no prompt of .*one\.jsonl"):
        pool = PromptPool([SMALL, str(path)], split="evaluation", evaluation_share=0.02)
    assert all(pool.prompt(pool.draw(1, e)).reward == "math" for e in range(100))


def test_prompt_covers_every_source_in_order(mixed: PromptPool) -> None:
    assert len(mixed) == 450
    assert [mixed.prompt(i).text for i in (0, 399, 400, 449)] == ["0+0=", "19+19=", "q0", "q49"]
    for index in (-1, 450):
        with pytest.raises(IndexError, match=f"prompt {index} of a pool of 450"):
            mixed.prompt(index)


def test_render_uses_template_and_system(tmp_path: Path) -> None:
    pool = PromptPool(SMALL, split="all", template="chatml", system="Add.")
    assert pool.render(0, 1, 1) == (
        "<|im_start|>system\nAdd.<|im_end|>\n<|im_start|>user\n0+0=<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    own = [{"role": "system", "content": "Mine."}, {"role": "user", "content": "q"}]
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"messages": own}))
    pool = PromptPool(str(path), split="all", system="Not mine.")
    assert pool.render(0, 1, 1) == "Mine.\n\nq"


def test_think_share_is_met_and_constant_within_a_draw() -> None:
    pool = PromptPool("arithmetic", template="qwen3", think_share=0.05)
    draws = [(pool.draw(3, e), 3, e) for e in range(20_000)]
    thinks = [pool.thinks(*draw) for draw in draws]
    assert np.mean(thinks) == pytest.approx(0.05, abs=0.006)  # four standard errors
    assert thinks == [pool.thinks(*draw) for draw in draws]
    for draw, think in zip(draws[:200], thinks, strict=False):
        assert pool.render(*draw).endswith("</think>\n\n") != think
    by_episode = Counter(pool.thinks(7, 3, e) for e in range(2_000))
    assert 0 < by_episode[True] < by_episode[False]


@pytest.mark.parametrize(("share", "expected"), [(0.0, False), (1.0, True), (None, True)])
def test_think_share_at_its_ends(share: float | None, expected: bool) -> None:
    pool = PromptPool(SMALL, template="qwen3", think_share=share)
    assert {pool.thinks(i, 1, i) for i in range(200)} == {expected}


def test_stream_resumes_exactly(mixed: PromptPool) -> None:
    stream = PromptStream(mixed, seed=3)
    for _ in range(7):
        next(stream)
    state = json.loads(json.dumps(stream.state()))
    rest = [next(stream) for _ in range(20)]
    resumed = PromptStream.from_state(mixed, state)
    assert [next(resumed) for _ in range(20)] == rest
    assert rest[0].prompt == mixed.prompt(rest[0].index)
    other = PromptStream(mixed, seed=4)
    assert [next(other) for _ in range(20)] != rest


def test_stream_refuses_other_prompts(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", 40)
    state = PromptStream(PromptPool(str(path)), seed=1).state()
    PromptStream.from_state(PromptPool(str(path)), state)
    write_rows(path, 41)
    with pytest.raises(ConfigError, match="the prompts changed since the stream was saved"):
        PromptStream.from_state(PromptPool(str(path)), state)


def test_fingerprint_tells_every_setting(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", 40)
    base: dict[str, Any] = {"sources": [SMALL, str(path)], "template": "qwen3"}
    pools = [
        base,
        base | {"sources": [{**SMALL, "weight": 2}, str(path)]},
        base | {"sources": [str(path), SMALL]},
        base | {"sources": [SMALL | {"config": {"below": 21}}, str(path)]},
        base | {"split": "all"},
        base | {"evaluation_share": 0.2},
        base | {"system": "s"},
        base | {"think_share": 0.5},
        base | {"template": "chatml"},
    ]
    assert len({PromptPool(**pool).fingerprint for pool in pools}) == len(pools)
    assert PromptPool(**base).fingerprint == PromptPool(**base).fingerprint
    before = PromptPool(**base).fingerprint
    path.write_text(path.read_text().replace('"target": "7"', '"target": "8"'))
    assert PromptPool(**base).fingerprint != before


def test_problems_are_kept_and_warned_of_once(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", 40)
    path.write_text("?\n" * 7 + path.read_text())
    with pytest.warns(UserWarning, match="7 malformed lines") as caught:
        pool = PromptPool(str(path))
    assert len(caught) == 1
    assert "and 2 more" in str(caught[0].message)
    assert [p.line for p in pool.problems] == [1, 2, 3, 4, 5, 6, 7]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(PromptPool(str(path), split="evaluation").problems) == 7


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sources": "arithmetik"}, UnknownPromptSourceError, "Did you mean 'arithmetic'"),
        ({"sources": "no.jsonl"}, PromptError, r"no\.jsonl: cannot be read"),
        ({"sources": []}, ConfigError, "sources is empty"),
        ({"sources": [{"sorce": "x"}]}, ConfigError, r"sources\[0\]:.*Did you mean 'source'"),
        ({"sources": ["arithmetic", 3]}, ConfigError, r"sources\[1\]"),
        ({"sources": {"source": "arithmetic", "weight": 0}}, ConfigError, "'weight' is 0"),
        ({"sources": SMALL | {"weight": float("nan")}}, ConfigError, "'weight' is nan"),
        (
            {"sources": {"source": "arithmetic", "config": {"digts": 1}}},
            ConfigError,
            "prompt source 'arithmetic': no field 'digts'. Did you mean 'digits'",
        ),
        ({"sources": {"source": "a.jsonl", "config": {"x": 1}}}, ConfigError, "is a file"),
        ({"sources": SMALL, "split": "test"}, ConfigError, "split='test'; expected one of train"),
        ({"sources": SMALL, "evaluation_share": 1.5}, ConfigError, "evaluation_share=1.5"),
        ({"sources": SMALL, "template": "qwen"}, ConfigError, "Did you mean 'qwen3'"),
        ({"sources": SMALL, "think_share": 0.5}, ConfigError, "template='plain' cannot"),
        (
            {"sources": SMALL, "think_share": 0.055, "template": "qwen3"},
            ConfigError,
            "not a whole percentage",
        ),
        ({"sources": SMALL, "think_share": 2, "template": "qwen3"}, ConfigError, "think_share=2"),
    ],
)
def test_configuration_errors(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PromptPool(**arguments)


def test_pool_pickles_with_the_same_draws(mixed: PromptPool) -> None:
    copy = pickle.loads(pickle.dumps(mixed))
    assert copy.fingerprint == mixed.fingerprint
    assert [copy.draw(1, e) for e in range(100)] == [mixed.draw(1, e) for e in range(100)]


def test_a_million_prompts_build_in_well_under_a_second() -> None:
    start = time.process_time()
    pool = PromptPool({"source": "arithmetic", "config": {"digits": 3}}, split="all")
    train = PromptPool({"source": "arithmetic", "config": {"digits": 3}})
    pool.render(pool.draw(1, 1), 1, 1)
    assert time.process_time() - start < 1.0
    assert len(pool) == 1_000_000
    assert len(train) == pytest.approx(900_000, abs=2_000)


def test_pool_loads_gsm8k_as_it_is(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("gsm8k_train.jsonl")
    train, evaluation = PromptPool(path), PromptPool(path, split="evaluation")
    assert len(train) + len(evaluation) == 2_000
    assert len(evaluation) == pytest.approx(200, abs=60)
    mix = PromptPool([{**SMALL, "weight": 9}, path], template="qwen3", think_share=0.05)
    texts = [mix.render(mix.draw(1, e), 1, e) for e in range(2_000)]
    assert np.mean(["=<|im_end|>" in t for t in texts]) == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize(
    ("weights", "number", "counts"),
    [
        ((1, 1), 10, (5, 5)),
        ((9, 1), 20, (18, 2)),
        ((1, 9), 100, (50, 50)),  # of the second there are no more
        ((1, 1), 3, (2, 1)),
        ((1, 1), 10_000, (400, 50)),
    ],
)
def test_spread_takes_of_each_source_what_its_weight_asks_for(
    tmp_path: Path, weights: tuple[int, int], number: int, counts: tuple[int, int]
) -> None:
    path = write_rows(tmp_path / "rows.jsonl", 50)
    sources = [{**SMALL, "weight": weights[0]}, {"source": str(path), "weight": weights[1]}]
    pool = PromptPool(sources, split="all")
    chosen = pool.spread(number, np.random.default_rng(0))
    assert len(set(chosen)) == len(chosen) == sum(counts)
    first = [index for index in chosen if index < 400]
    assert (len(first), len(chosen) - len(first)) == counts
    assert first == sorted(first)
    if weights == (1, 1) and number == 10:  # in turn
        assert [index < 400 for index in chosen] == [True, False] * 5
    assert chosen == pool.spread(number, np.random.default_rng(0))
    assert chosen != pool.spread(number, np.random.default_rng(1)) or number == 10_000


def test_demonstrations_come_from_the_source_of_the_prompt(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", 50)
    pool = PromptPool([{"source": "tiny_code", "config": {"below": 4}}, str(path)], split="all")
    for index in (0, 35, len(pool) - 1):
        shown, prompt = pool.demonstrations(index), pool.prompt(index)
        if prompt.reward == "code":
            assert shown.right[0].startswith("return x")
            assert len(shown.wrong) == 4
        else:
            assert shown == ((prompt.target,), ())
    with pytest.raises(IndexError, match="of a pool of"):
        pool.demonstrations(len(pool))


def test_a_target_that_is_no_text_is_not_demonstrated(tmp_path: Path) -> None:
    prompts = [
        Prompt(id="a", messages="a", target=3),
        Prompt(id="b", messages="b", target=["x"]),
        Prompt(id="c", messages="c"),
    ]
    write_prompts(tmp_path / "p.jsonl", prompts)
    pool = PromptPool(str(tmp_path / "p.jsonl"), split="all")
    assert [pool.demonstrations(i).right for i in range(3)] == [("3",), (), ()]
