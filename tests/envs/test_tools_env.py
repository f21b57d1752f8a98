"""TextGenTools-v0: the protocol of calls, what is answered, what fails, its vector environment."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import textgym
import textgym.testing
from textgym import ConfigError, Tool, ToolArguments, ToolError, ToolUnavailableError
from textgym.errors import UnknownToolError
from textgym.plugins import Contribution, Plugin
from textgym_envs.tools.calls import Call, read_plain, read_tagged
from textgym_envs.tools.env import ToolsEnv
from textgym_envs.tools.vector import ToolsVectorEnv

SUMS: dict[str, Any] = {
    "prompts": [{"source": "arithmetic", "config": {"below": 10}}],
    "reward": "exact",
    "split": "all",
}
SUM = 34  # 4+3


class Text(ToolArguments):
    text: str
    times: int = 1


class Echo(Tool):
    """Repeats a text; certain texts break it."""

    name: ClassVar[str] = "echo"
    description: ClassVar[str] = "Repeat a text."
    arguments: ClassVar[type[Text]] = Text

    def call(self, arguments: Text, prompt: textgym.Prompt) -> str:
        match arguments.text:
            case "hang":
                time.sleep(5)
            case "raise":
                raise RuntimeError("out of order")
            case "number":
                return 3  # type: ignore[return-value]  # a mistake of its author
            case "refuse":
                raise ToolError("no")
            case "down":
                raise ToolUnavailableError("the service is down")
        return arguments.text * arguments.times


class Memory(Tool):
    """Says what it was told before."""

    name: ClassVar[str] = "memory"
    description: ClassVar[str] = "Remember a text."
    arguments: ClassVar[type[Text]] = Text
    closed: ClassVar[list[int]] = []

    def open(self, prompt: textgym.Prompt, earlier: Sequence[Text] = ()) -> _Memory:
        return _Memory([each.text for each in earlier])


class _Memory:
    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def call(self, arguments: Text) -> str:
        self._texts.append(arguments.text)
        return " ".join(self._texts)

    def close(self) -> None:
        Memory.closed.append(len(self._texts))


@pytest.fixture(autouse=True)
def _tools(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = Plugin("tools", "textgym-tools", "0.1.0")
    offered = {tool.name: Contribution(tool, plugin) for tool in (Echo, Memory)}
    known = textgym.plugin_manager().tools
    monkeypatch.setattr(textgym.plugin_manager(), "tools", {**known, **offered})


def make(**arguments: Any) -> ToolsEnv:
    env = gymnasium.make("textgym:TextGenTools-v0", **{**SUMS, **arguments}).unwrapped
    assert isinstance(env, ToolsEnv)
    return env


def tagged(name: str, **arguments: Any) -> str:
    body = json.dumps({"name": name, "arguments": arguments})
    return f"<tool_call>\n{body}\n</tool_call>"


def begin(env: ToolsEnv, prompt: int = SUM) -> str:
    observation, _ = env.reset(seed=0, options={"prompt_index": prompt})
    return str(observation)


def test_a_call_is_answered_and_an_answer_is_scored() -> None:
    env = make(describe_tools=False)
    assert begin(env) == "4+3="
    observation, reward, terminated, truncated, info = env.step("calculator: 4+3")
    assert (observation, reward, terminated, truncated, info) == ("\n7\n", 0.0, False, False, {})
    observation, reward, terminated, truncated, info = env.step("7")
    assert (observation, reward, terminated, truncated) == ("", 1.0, True, False)
    assert (info["completion"], info["is_success"], info["num_turns"]) == ("7", True, 2)
    assert (info["tool_calls"], info["tool_errors"]) == (1, 0)
    assert info["n_completion_tokens"] == len("calculator: 4+3") + 1
    assert info["dialogue"] == [
        {"role": "assistant", "content": "calculator: 4+3"},
        {"role": "tool", "content": "7"},
        {"role": "assistant", "content": "7"},
    ]
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("7")


def test_the_reward_sees_the_dialogue_and_the_last_completion() -> None:
    seen: list[textgym.Sample] = textgym.plugin_manager().rewards["exact"].value.scored
    env = make(describe_tools=False)
    begin(env)
    env.step("calculator: 4+3")
    seen.clear()
    env.step(textgym.Completion("7", token_ids=(7, 95)))
    (sample,) = seen
    assert (sample.completion, sample.token_ids) == ("7", (7, 95))
    assert [turn.role for turn in sample.turns] == ["assistant", "tool", "assistant"]


def test_qwen_form_shows_tools_and_answers_in_turns() -> None:
    env = make(template="chatml", tools=["echo", "calculator"], system="Be brief.")
    observation = begin(env)
    assert observation.startswith("<|im_start|>system\nBe brief.\n\n# Tools\n\nYou may call one or")
    assert '\n<tools>\n{"type": "function", "function": {"name": "echo", "desc' in observation
    assert '{"name": <function-name>, "arguments": <args-json-object>}' in observation
    assert observation.endswith("<|im_start|>user\n4+3=<|im_end|>\n<|im_start|>assistant\n")
    calls = tagged("echo", text="a<|im_end|>") + "\n" + tagged("calculator", expression="1+1")
    observation = env.step(calls)[0]
    assert observation == (
        "\n<|im_start|>user\n<tool_response>\na<| im_end |>\n</tool_response>"
        "\n<tool_response>\n2\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
    cut = textgym.Completion(tagged("echo", text="b"), finish_reason="stop_string")
    assert env.step(cut)[0].startswith("<|im_end|>\n<|im_start|>user\n<tool_resp")


def test_thoughts_are_no_calls_and_the_switch_is_kept() -> None:
    env = make(template="qwen3", think_share=0.0)
    assert begin(env).endswith("<think>\n\n</think>\n\n")
    call = tagged("calculator", expression="1+1")
    observation, _, terminated, _, _ = env.step(f"<think>{call}</think>{call}")
    assert observation.count("<tool_response>") == 1
    assert observation.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert not terminated
    assert env.step(f"<think>{call}</think>7")[2]


def test_plain_form_describes_tools() -> None:
    assert begin(make(tools=["calculator", "echo"])) == (
        "To use a tool, end with a line such as one of these:\n"
        "calculator: expression (Evaluate an arithmetic expression exactly.)\n"
        "echo: text, times (Repeat a text.)\n\n4+3="
    )


@pytest.mark.parametrize(
    ("completion", "error"),
    [
        ("<tool_call>", "<tool_call> is not closed"),
        ("<tool_call></tool_call>", "not JSON: Expecting value at character 0"),
        ("<tool_call>{'name': 1}</tool_call>", "not JSON"),
        ("<tool_call>[1]</tool_call>", "the call has no name"),
        ('<tool_call>{"name": 3}</tool_call>', "the call has no name"),
        ('<tool_call>{"name": "echo", "arguments": [1]}</tool_call>', "'arguments' is no object"),
        (tagged("ecko", text="a"), "no tool 'ecko'. Did you mean 'echo'? Tools: calculator, echo"),
        (tagged("echo"), "echo: the field 'text' is missing"),
        (tagged("echo", text="a", time=1), "no field 'time'. Did you mean 'times'"),
        (tagged("echo", text=3), "'text' is 3: Input should be a valid string"),
        (tagged("echo", text="refuse"), "Error: no\n"),
        (tagged("echo", text="x" * 9000), "characters; at most 8000"),
        (f"<tool_call>{'[' * 5000}</tool_call>", "nested too deeply"),
        (f'<tool_call>{{"name": "echo", "arguments": {"9" * 5000}}}</tool_call>', "too long"),
        (tagged("calculator", expression="1/0"), "Error: division by zero"),
    ],
)
def test_a_malformed_call_is_answered(completion: str, error: str) -> None:
    env = make(template="chatml", tools=["calculator", "echo"])
    begin(env)
    observation, reward, terminated, _, info = env.step(completion)
    assert error in observation
    assert (reward, terminated, info) == (0.0, False, {})
    assert env.step("7")[1] == 1.0


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("calculator:", "Error: the argument is missing"),
        ("so\ncalculator:  1+1 ", "2"),
        ('calculator: {"expression": "1+1"}', "2"),
        ("echo: a", "a"),
        ('echo: {"text": "ab", "times": 2}', "abab"),
        ("echo: {not json", "{not json"),
        ("echo: two\nlines", "two\nlines"),
    ],
)
def test_plain_calls(completion: str, answer: str) -> None:
    env = make(tools=["calculator", "echo"])
    begin(env)
    assert env.step(completion)[0].startswith(f"\n{answer}")


@pytest.mark.parametrize("completion", ["7", "The calculator: 7", "calculator", "ekko: 7", ""])
def test_what_is_no_call_is_an_answer(completion: str) -> None:
    env = make()
    begin(env)
    _, reward, terminated, _, info = env.step(completion)
    assert (reward, terminated) == (float(completion == "7"), True)
    assert (info["completion"], info["tool_calls"]) == (completion, 0)


def test_limits_of_calls_turns_and_answers() -> None:
    tools = [{"tool": "echo", "config": {"max_calls": 2, "output_characters": 5}}]
    env = make(tools=tools, max_turns=4)
    begin(env)
    assert env.step("echo: abcdefgh")[0] == "\nabcde\n[cut: 8 characters in all]\n"
    assert env.step("echo: b")[0] == "\nb\n"
    assert "Error: echo was called 2" not in env.step("echo: c")[0]  # cut to 5 characters
    observation, reward, terminated, truncated, info = env.step("echo: d")
    assert (observation, reward, terminated, truncated) == ("", 0.0, True, False)
    assert (info["finish_reason"], info["tool_calls"], info["num_turns"]) == ("length", 2, 4)
    env = make(tools=tools, max_turns=1, length_cutoff="truncate")
    begin(env)
    assert env.step("echo: d")[2:4] == (False, True)


def test_a_turn_has_few_calls() -> None:
    env = make(template="chatml", tools=[{"tool": "echo", "config": {"max_calls": 100}}])
    begin(env)
    observation = env.step(tagged("echo", text="a") * 50)[0]
    assert observation.count("<tool_response>") == 9
    assert "Error: a turn has at most 8 calls" in observation


def test_a_completion_that_is_cut_off_calls_nothing() -> None:
    env = make()
    begin(env)
    cut = textgym.Completion("calculator: 4+3", finish_reason="length")
    _, reward, terminated, _, info = env.step(cut)
    assert (reward, terminated, info["finish_reason"]) == (0.0, True, "length")
    begin(env)
    _, _, _, _, info = env.step(textgym.Completion("", finish_reason="abort"))
    assert (info["status"], info["verifier_error"][:11]) == ("failed", "unavailable")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("raise", "raised: tool 'echo' raised RuntimeError: out of order"),
        ("number", "wrong_type: tool 'echo' returned int; expected text"),
        ("down", "unavailable: tool 'echo': the service is down"),
    ],
)
def test_a_broken_tool_fails_the_episode(text: str, error: str) -> None:
    env = make(tools=["echo"])
    begin(env)
    observation, reward, terminated, _, info = env.step(f"echo: {text}")
    assert (observation, reward, terminated) == ("", 0.0, True)
    assert (info["status"], info["verifier_error"], info["is_success"]) == ("failed", error, False)
    assert np.isnan(info["score"])
    begin(env)
    assert env.step("7")[1] == 1.0


def test_a_tool_that_hangs_is_left_behind() -> None:
    env = make(tools=[{"tool": "echo", "config": {"seconds": 0.2}}])
    begin(env)
    started = time.monotonic()
    assert "Error: echo passed its time limit of 0.2 s" in env.step("echo: hang")[0]
    assert "Error: echo did not come back" in env.step("echo: a")[0]
    assert time.monotonic() - started < 3
    begin(env)
    assert env.step("echo: a")[0] == "\na\n"


def test_a_session_lasts_for_an_episode() -> None:
    env = make(tools=["memory"])
    begin(env)
    assert [env.step(f"memory: {word}")[0] for word in "ab"] == ["\na\n", "\na b\n"]
    Memory.closed.clear()
    state, copy = env.get_state(), pickle.loads(pickle.dumps(env))
    begin(env)
    assert Memory.closed == [2]
    assert env.step("memory: c")[0] == "\nc\n"
    for resumed in (copy, env):
        resumed.set_state(state)
        assert resumed.get_state() == state
        assert resumed.step("memory: c")[0] == "\na b c\n"
        assert resumed.step("7")[4]["tool_calls"] == 3


def test_configuration_mistakes_are_named() -> None:
    with pytest.raises(UnknownToolError, match=r"no tool named 'calculatr'\. Did you mean 'calcul"):
        make(tools=["calculatr"])
    with pytest.raises(ConfigError, match=r"tools\[1\]: 'echo' is there twice"):
        make(tools=["echo", {"tool": "echo"}])
    with pytest.raises(ConfigError, match=r"tools\[0\]: no field 'conf'"):
        make(tools=[{"tool": "echo", "conf": {}}])
    with pytest.raises(ConfigError, match="tool 'echo': 'max_calls' is 0"):
        make(tools=[{"tool": "echo", "config": {"max_calls": 0}}])
    with pytest.raises(ConfigError, match="action_mode"):
        make(action_mode="token")


def test_without_tools_it_is_one_turn() -> None:
    env = make(tools=[])
    assert begin(env) == "4+3="
    assert env.step("calculator: 4+3")[1:3] == (0.0, True)


def test_environment_keeps_gymnasiums_rules() -> None:
    check_env(make(), skip_render_check=True)
    textgym.testing.check_env(lambda: make(tools=["calculator", "echo"]))


WORDS = (
    "7", "calculator: 4+3", "echo: a", "memory: x", "echo: raise", "echo: refuse", "calculator: (",
    "11", "!", "?", "",
)  # fmt: skip


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_vector_environment_equals_the_scalar_one(mode: AutoresetMode) -> None:
    arguments = {**SUMS, "tools": ["calculator", "echo", "memory"], "max_turns": 3}
    native = ToolsVectorEnv(5, autoreset_mode=mode, **arguments)
    scalar = SyncVectorEnv([lambda: ToolsEnv(**arguments)] * 5, autoreset_mode=mode)
    rng = np.random.default_rng(0)
    assert equal(native.reset(seed=3), scalar.reset(seed=3))
    over = np.zeros(5, dtype=bool)
    for _ in range(60):
        actions = [WORDS[i] for i in rng.integers(len(WORDS), size=5)]
        ours, theirs = native.step(actions), scalar.step(actions)
        assert equal(ours, theirs)
        over = ours[2] | ours[3]
        if mode is AutoresetMode.DISABLED and over.any():
            options = {"reset_mask": over}
            assert equal(native.reset(options=dict(options)), scalar.reset(options=options))


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray) and a.dtype == object:
        return equal(a.tolist(), b.tolist())
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
    return type(a) is type(b) and a == b


def test_vector_environment_goes_on_from_a_pickle() -> None:
    env = ToolsVectorEnv(2, tools=["memory"], autoreset_mode="disabled", **SUMS)
    env.reset(seed=0)
    env.step(["memory: a", "7"])
    copy = pickle.loads(pickle.dumps(env))
    assert copy.get_state() == env.get_state()
    for each in (env, copy):
        observations, *_ = each.step(["memory: b", ""])
        assert observations == ("\na b\n", "")
        assert [len(turns) for turns in (s.turns for s in each.get_state())] == [4, 1]
        each.close()


def test_calls_of_a_step_are_served_side_by_side() -> None:
    class Slow(Echo):
        name: ClassVar[str] = "slow"

        def call(self, arguments: Text, prompt: textgym.Prompt) -> str:
            time.sleep(0.3)
            return "done"

    plugin = Plugin("tools", "textgym-tools", "0.1.0")
    textgym.plugin_manager().tools["slow"] = Contribution(Slow, plugin)
    env = ToolsVectorEnv(8, tools=["slow"], **SUMS)
    env.reset(seed=0)
    started = time.monotonic()
    observations, *_ = env.step(["slow: a"] * 8)
    assert observations == ("\ndone\n",) * 8
    assert time.monotonic() - started < 1.5  # one after another it would be 2.4 s
    env.close()


def test_demonstrations_call_the_tool() -> None:
    pool = make(describe_tools=False, prompts=[{"source": "arithmetic", "config": {}}]).pool
    right, wrong = pool.dialogues(pool.draw(1, 2))  # type: ignore[attr-defined]  # with tools
    prompt = pool.prompt(pool.draw(1, 2))
    assert right == ((f"calculator: {prompt.id}", f"\n{prompt.target}\n", prompt.target),)
    assert [len(dialogue) for dialogue in wrong] == [3, 1, 1, 1]
    assert all(dialogue[-1] != prompt.target for dialogue in wrong)
    assert wrong[0][0] != right[0][0]
    assert wrong[0][1].strip() == wrong[0][2]
    none = make(tools=[], prompts="arithmetic").pool
    assert none.dialogues(0) == ((), ())  # type: ignore[attr-defined]


def test_completions_of_any_shape_are_read() -> None:
    assert read_tagged("no call", most_characters=9) == []
    assert read_plain("a: b", (), most_characters=9) == []
    assert read_tagged('<tool_call>{"name":"a"}</tool_call>', most_characters=99) == [Call("a", {})]
    as_text = '<tool_call>{"name": "a", "arguments": "{\\"b\\": 1}"}</tool_call>'
    assert read_tagged(as_text, most_characters=99) == [Call("a", {"b": 1})]
