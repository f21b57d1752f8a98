"""QueryRewrite-v0 against a real HTTP server: what a query earns, what a broken server costs."""

from __future__ import annotations

import pickle
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import textgym
import textgym.testing
from textgym.errors import ConfigError
from textgym_envs.query_rewrite import QueryRewriteEnv, QueryRewriteVectorEnv

Reply = Callable[[str], str | int | bytes]
PROMPTS = [{"source": "arithmetic", "config": {"below": 10, "text": "sum of {expression}"}}]
CALCULATIONS: dict[str, Any] = {"prompts": PROMPTS, "reward": "exact", "split": "all"}


def calculate(query: str) -> str:
    """Return the value of an expression; what is none is answered at length."""
    terms = query.split("+")
    return str(sum(map(int, terms))) if all(t.isdigit() for t in terms) else "what do you mean"


class Generator:
    """A model behind an endpoint that is the function `reply` of a query."""

    def __init__(self, endpoint: Any) -> None:
        self.endpoint = endpoint
        self.reply: Reply = calculate
        endpoint.reply = lambda body: self.reply(body["messages"][-1]["content"])

    @property
    def queries(self) -> list[str]:
        return [body["messages"][-1]["content"] for body in self.endpoint.bodies]

    def downstream(self, **more: Any) -> dict[str, Any]:
        """Return the configuration that names this endpoint."""
        retry = {"max_retries": 0, "timeout": 5.0}
        named = {"kind": "endpoint", "url": self.endpoint.url, "model": "m", "retry": retry}
        return {**named, **more}


@pytest.fixture
def generator(endpoint: Any) -> Generator:
    """A local endpoint that calculates; set its `reply`."""
    return Generator(endpoint)


def make(generator: Generator, **arguments: Any) -> QueryRewriteEnv:
    given = {"downstream": generator.downstream(), **CALCULATIONS, **arguments}
    env = gymnasium.make("textgym:QueryRewrite-v0", **given).unwrapped
    assert isinstance(env, QueryRewriteEnv)
    return env


def play(env: QueryRewriteEnv, action: str, prompt: int = 34) -> tuple[float, dict[str, Any]]:
    """Return reward and info of an episode; prompt 34 is 4+3."""
    observation, _ = env.reset(seed=0, options={"prompt_index": prompt})
    assert observation == f"sum of {prompt % 10}+{prompt // 10}"
    observation, reward, terminated, truncated, info = env.step(action)
    assert (observation, terminated, truncated) == ("", True, False)
    return reward, info


def test_a_query_earns_what_its_answer_scores(generator: Generator) -> None:
    env = make(generator)
    reward, info = play(env, " 4+3\n")
    assert (reward, info["score"], info["is_success"], info["label"]) == (1.0, 1.0, True, "correct")
    assert (info["completion"], info["answer"], info["extracted"]) == (" 4+3\n", "7", "7")
    assert info["reward_parts"] == {"exact": 1.0, "rewritten_query": 1.0}
    reward, info = play(env, "4+4")
    assert (reward, info["is_success"], info["answer"]) == (0.0, False, "8")
    reward, info = play(env, "<think>4+4?</think>4+3")
    assert (reward, generator.queries) == (1.0, ["4+3", "4+4", "4+3"])


def test_the_request_is_what_the_configuration_says(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOWNSTREAM_KEY", "secret-of-the-test")
    downstream = generator.downstream(
        system="Be brief.", temperature=0.5, max_tokens=32, api_key_env="DOWNSTREAM_KEY"
    )
    env = make(generator, downstream=downstream)
    play(env, "4+3")
    assert generator.endpoint.bodies == [
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "4+3"},
            ],
            "max_tokens": 32,
            "temperature": 0.5,
        }
    ]
    assert generator.endpoint.requests == [("/v1/chat/completions", "Bearer secret-of-the-test")]
    assert b"secret-of-the-test" not in pickle.dumps(env)


def test_improvement_takes_the_original_query_off(generator: Generator) -> None:
    env = make(generator, improvement=True)
    reward, info = play(env, "4+3")
    assert (reward, info["score"]) == (1.0, 1.0)
    assert info["reward_parts"] == {"exact": 1.0, "rewritten_query": 1.0, "original_query": 0.0}
    reward, info = play(env, "nonsense")
    assert (reward, info["is_success"]) == (0.0, False)
    asked = ["4+3", "nonsense", "sum of 4+3"]
    assert sorted(generator.queries) == asked  # the original query once


@pytest.mark.parametrize(
    ("original", "rewritten", "reward", "is_success"),
    [("7", "8", -1.0, False), ("7", "7", 0.0, True), ("8", "8", 0.0, False)],
)
def test_success_is_that_of_the_answer_whatever_it_adds(
    generator: Generator, original: str, rewritten: str, reward: float, is_success: bool
) -> None:
    generator.reply = lambda query: original if query.startswith("sum") else rewritten
    earned, info = play(make(generator, improvement=True), "4+3")
    assert (earned, info["is_success"]) == (reward, is_success)


def test_a_difference_is_clipped(generator: Generator) -> None:
    generator.reply = lambda query: "x" * (50 if query == "long" else 10)
    env = make(generator, improvement=True, reward="length")
    assert play(env, "long")[0] == 1.0
    assert play(env, "same")[0] == 0.0


@pytest.mark.parametrize(
    ("action", "why"),
    [
        ("", "the query is empty"),
        (" \n", "the query is empty"),
        ("<think>4+3", "the query is empty"),
        ("<think>4+3</think> ", "the query is empty"),
        ("4+3" + "0" * 10, "the query has 13 characters; max_query_characters is 12"),
        (textgym.Completion("4+3", finish_reason="length"), "the query was cut off"),
    ],
)
@pytest.mark.parametrize("improvement", [False, True])
def test_a_query_that_is_none_costs_the_penalty(
    generator: Generator, action: str, why: str, improvement: bool
) -> None:
    env = make(generator, max_query_characters=12, improvement=improvement)
    reward, info = play(env, action)
    assert (reward, info["score"], info["status"]) == (-0.2, -0.2, "scored")
    assert (info["label"], info["is_success"], info["answer"]) == ("invalid", False, "")
    assert why in info["reason"]
    assert generator.endpoint.bodies == []


def test_a_cut_off_query_can_be_answered_too(generator: Generator) -> None:
    env = make(generator, score_length_cut=True)
    assert play(env, textgym.Completion("4+3", finish_reason="length"))[0] == 1.0


def test_an_aborted_generation_has_failed(generator: Generator) -> None:
    reward, info = play(make(generator), textgym.Completion("4+3", finish_reason="abort"))
    assert (reward, info["status"]) == (0.0, "failed")
    assert generator.endpoint.bodies == []


@pytest.mark.parametrize(
    ("reply", "kind"),
    [(500, "unavailable"), (404, "unavailable"), (504, "timeout"), (b"<html>", "unavailable"),
     (b'{"choices": []}', "unavailable")],
)  # fmt: skip
def test_a_broken_server_fails_the_sample_and_no_later_one(
    generator: Generator, reply: int | bytes, kind: str
) -> None:
    env = make(generator, improvement=True)
    generator.reply = lambda query: reply
    reward, info = play(env, "4+3")
    assert (reward, info["status"], info["is_success"]) == (0.0, "failed", False)
    assert np.isnan(info["score"])
    assert info["verifier_error"].startswith(f"{kind}: downstream: http://127.0.0.1")
    generator.reply = calculate
    reward, info = play(env, "4+3")
    assert (reward, info["status"], info["verifier_error"]) == (1.0, "scored", "")


def test_a_failed_original_query_fails_its_samples_alone(generator: Generator) -> None:
    generator.reply = lambda query: 500 if query == "sum of 4+3" else calculate(query)
    env = make(generator, improvement=True)
    reward, info = play(env, "4+3")
    assert (reward, info["status"]) == (0.0, "failed")
    assert "original query: downstream:" in info["verifier_error"]
    assert info["reward_parts"]["rewritten_query"] == 1.0
    assert play(env, "5+3", prompt=35)[0] == 1.0


def test_an_answer_that_cannot_be_judged_abstains(generator: Generator) -> None:
    generator.reply = lambda query: "7?"  # which the reward `exact` does not judge
    _, info = play(make(generator), "4+3")
    assert (info["status"], info["answer"]) == ("abstained", "7?")


def test_nobody_listens(generator: Generator) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    downstream = generator.downstream(url=url)
    env = QueryRewriteEnv(downstream=downstream, **CALCULATIONS)
    _, info = play(env, "4+3")
    assert info["status"] == "failed"
    assert info["verifier_error"].startswith("unavailable: downstream: ")


def test_a_server_that_is_too_slow_is_a_timeout(generator: Generator) -> None:
    release = threading.Event()

    def wait(query: str) -> str:
        release.wait(10)
        return "7"

    generator.reply = wait
    env = make(generator, downstream=generator.downstream(retry={"max_retries": 0, "timeout": 0.1}))
    _, info = play(env, "4+3")
    release.set()
    assert info["verifier_error"].startswith("timeout: downstream: ")


ACTIONS = ("0+0", "1+1", "", "5+3", "what?", "7+2", "boom")


def assert_same(ours: Any, theirs: Any) -> None:
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_same(ours[key], theirs[key])
    elif isinstance(ours, tuple):
        for each in zip(ours, theirs, strict=True):
            assert_same(*each)
    elif isinstance(ours, np.ndarray) and ours.dtype != object:
        np.testing.assert_array_equal(ours, theirs)
    else:
        assert list(ours) == list(theirs)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_the_vector_environment_equals_the_scalar_one(
    generator: Generator, mode: AutoresetMode
) -> None:
    generator.reply = lambda query: 500 if query == "boom" else calculate(query)
    config = {"downstream": generator.downstream(), "improvement": True, **CALCULATIONS}
    native = QueryRewriteVectorEnv(4, autoreset_mode=mode, **config)
    sync = SyncVectorEnv([lambda: QueryRewriteEnv(**config)] * 4, autoreset_mode=mode)
    assert_same(native.reset(seed=3), sync.reset(seed=3))
    for step in range(6):
        actions = tuple(ACTIONS[(step + i) % len(ACTIONS)] for i in range(4))
        assert_same(native.step(actions), sync.step(actions))
        if mode is AutoresetMode.DISABLED:
            assert_same(native.reset(), sync.reset())
    native.close()
    sync.close()


def test_the_queries_of_a_step_are_answered_at_the_same_time(generator: Generator) -> None:
    together = threading.Barrier(4)

    def meet(query: str) -> str:
        together.wait(10)  # breaks, and is a 500, where fewer than four are asked at once
        return calculate(query)

    generator.reply = meet
    downstream = generator.downstream(concurrency=4)
    env = QueryRewriteVectorEnv(4, downstream=downstream, **CALCULATIONS)
    env.reset(seed=0, options={"prompt_index": 34})
    _, rewards, _, _, infos = env.step(("4+3", "4+4", "3+4", "7"))
    assert rewards.tolist() == [1.0, 0.0, 1.0, 1.0]
    assert infos["final_info"]["answer"].tolist() == ["7", "8", "7", "7"]


def test_token_mode_asks_when_a_query_is_finished(generator: Generator) -> None:
    env = make(
        generator, action_mode="token", tokenizer="chars:0123456789+ sumof", max_new_tokens=4
    )
    end = env.action_space.n - 1
    results = []
    for _ in range(2):
        env.reset(seed=0, options={"prompt_index": 34})
        results = [env.step(token) for token in (4, 10, 3, end)]
    assert [reward for _, reward, *_ in results] == [0.0, 0.0, 0.0, 1.0]
    assert results[-1][-1]["answer"] == "7"
    assert generator.queries == ["4+3", "4+3"]  # an endpoint need not answer twice alike
    env.reset(seed=0)
    reward = [env.step(token)[1] for token in (4, 4, 4, 4)][-1]
    assert (reward, len(generator.queries)) == (-0.2, 2)


@pytest.mark.parametrize("action_mode", ["text", "token"])
def test_it_passes_the_checkers(generator: Generator, action_mode: str) -> None:
    env = make(generator, action_mode=action_mode, max_new_tokens=4)
    check_env(env)
    textgym.testing.check_env(lambda: make(generator, action_mode=action_mode, max_new_tokens=4))


def test_a_pickle_goes_on(generator: Generator) -> None:
    env = make(generator, improvement=True)
    env.reset(seed=5)
    copy = pickle.loads(pickle.dumps(env))
    assert copy.step("1+1")[1] == env.step("1+1")[1]
    assert copy.reset()[0] == env.reset()[0]


DOWNSTREAM = """
def reverse(queries):
    return [query[::-1] for query in queries]

def forget(queries):
    return []

def refuse(queries):
    raise RuntimeError("no model is loaded")

def number(queries):
    return 7
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "downstream.py"
    path.write_text(DOWNSTREAM)
    return path


def test_a_function_can_answer(module: Path) -> None:
    downstream = {"kind": "function", "function": f"{module}:reverse"}
    env = QueryRewriteEnv(downstream=downstream, **CALCULATIONS)
    assert play(env, "7")[0] == 1.0
    assert play(env, "12")[1]["answer"] == "21"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("forget", "wrong_length: downstream: .*forget gave 0 texts for 1 queries"),
        ("refuse", "raised: downstream: .*refuse raised RuntimeError: no model is loaded"),
        ("number", "wrong_type: downstream: .*number returned int; expected a list of texts"),
    ],
)
def test_a_function_that_misbehaves_costs_failed_samples(
    module: Path, name: str, error: str
) -> None:
    downstream = {"kind": "function", "function": f"{module}:{name}"}
    _, info = play(QueryRewriteEnv(downstream=downstream, **CALCULATIONS), "7")
    assert info["status"] == "failed"
    assert re.fullmatch(error, info["verifier_error"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "QueryRewrite-v0 cannot be made:\n  the field 'downstream' is missing"),
        ({"downstream": {"kind": "endpoint", "url": "x"}}, "'downstream.*url' is 'x'"),
        ({"downstream": {"kind": "function", "function": "os:sytem"}}, "no function 'sytem'"),
        ({"downstream": {"kind": "model"}}, "'kind'"),
        ({"penalty": -1}, "'penalty' is -1"),
        ({"improvment": True}, "Did you mean 'improvement'"),
    ],
)
def test_configuration_errors(arguments: dict[str, Any], message: str) -> None:
    downstream = {"kind": "function", "function": "builtins:list"}
    given = {"downstream": downstream, **arguments} if "improvement" in message else arguments
    with pytest.raises(ConfigError, match=message):
        QueryRewriteEnv(**given)
