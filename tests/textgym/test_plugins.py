"""The plugin manager: what it finds, what it refuses, and whom it blames."""

from __future__ import annotations

import re
from collections.abc import Callable

import gymnasium
import pytest

import textgym
from textgym.errors import PluginError, UnknownNameError, UnknownRewardError
from textgym.plugins import HOOK_NAMES, PluginManager

Install = Callable[..., None]
Load = Callable[..., PluginManager]

REWARD = """
    from typing import ClassVar
    import textgym

    class Mine(textgym.Reward):
        name: ClassVar[str] = "{name}"

    @textgym.hookimpl
    def textgym_rewards():
        return [Mine]
"""


def test_hook_names_are_the_five_hooks() -> None:
    assert set(HOOK_NAMES) == {
        "textgym_rewards", "textgym_prompt_sources", "textgym_benchmarks", "textgym_environments",
        "textgym_tools",
    }  # fmt: skip


def test_load_lists_plugins_with_version_and_hooks(install: Install, load: Load) -> None:
    install("textgym-one", REWARD.format(name="one"), version="1.2")
    install("textgym-none", "")

    none, one = load().plugins

    assert (one.name, one.title, one.hooks) == ("one", "textgym-one 1.2", ("textgym_rewards",))
    assert (none.title, none.hooks, none.error) == ("textgym-none 0.1.0", (), None)


def test_load_collects_every_kind_of_contribution(install: Install, load: Load) -> None:
    install(
        "textgym-all",
        """
        from typing import ClassVar
        import textgym
        from gymnasium.envs.registration import EnvSpec

        class Mine(textgym.Reward):
            name: ClassVar[str] = "mine"

        class Source(textgym.PromptSource):
            name: ClassVar[str] = "source"

        @textgym.hookimpl
        def textgym_rewards():
            return [Mine]

        @textgym.hookimpl
        def textgym_prompt_sources():
            return (Source,)

        @textgym.hookimpl
        def textgym_benchmarks():
            return [textgym.Benchmark(name="bench", prompts="source", reward="mine")]

        @textgym.hookimpl
        def textgym_environments():
            return [EnvSpec("FromPlugin-v0", entry_point="textgym_all:Env")]

        class Greet(textgym.Tool):
            name: ClassVar[str] = "greet"
            description: ClassVar[str] = "Say hello."
            arguments: ClassVar[type[textgym.ToolArguments]] = textgym.ToolArguments

        @textgym.hookimpl
        def textgym_tools():
            return [Greet]
        """,
    )
    manager = load()
    try:
        assert manager.reward_class("mine").__name__ == "Mine"
        assert manager.prompt_source_class("source").__name__ == "Source"
        assert manager.benchmark("bench").reward == "mine"
        assert manager.tool_class("greet").description == "Say hello."
        assert gymnasium.spec("FromPlugin-v0").entry_point == "textgym_all:Env"
        assert manager.plugins[0].hooks == HOOK_NAMES
    finally:
        gymnasium.registry.pop("FromPlugin-v0", None)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (
            "import nowhere_to_be_found",
            "ModuleNotFoundError: No module named 'nowhere_to_be_found'",
        ),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def broken(:", "SyntaxError"),
        (
            "import textgym\n@textgym.hookimpl\ndef textgym_rewards():\n    raise OSError('off')",
            "textgym_rewards raised: OSError: off",
        ),
    ],
)
def test_load_leaves_a_broken_plugin_out(
    install: Install, load: Load, source: str, error: str
) -> None:
    install("textgym-broken", source)
    install("textgym-sound", REWARD.format(name="sound"))

    with pytest.warns(UserWarning, match=r"'broken' \(textgym-broken 0\.1\.0\) is left out"):
        manager = load()

    broken, sound = manager.plugins
    assert broken.error is not None
    assert error in broken.error
    assert sound.error is None
    assert list(manager.rewards) == ["sound"]


def test_load_leaves_all_of_a_broken_plugin_out(install: Install, load: Load) -> None:
    install(
        "textgym-half",
        REWARD.format(name="half")
        + "\n    @textgym.hookimpl\n    def textgym_benchmarks():\n        raise OSError('x')\n",
    )
    with pytest.warns(UserWarning, match="textgym_benchmarks raised: OSError: x"):
        assert load().rewards == {}


def test_load_two_plugins_with_one_name_names_both(install: Install, load: Load) -> None:
    install("textgym-first", REWARD.format(name="same"), version="1.0")
    install("textgym-second", REWARD.format(name="same"), version="2.0")

    message = "two plugins offer the reward 'same': textgym-first 1.0 and textgym-second 2.0"
    with pytest.raises(PluginError, match=re.escape(message)):
        load()
    assert list(load("first").rewards) == ["same"]


def test_load_one_entry_point_name_in_two_distributions(install: Install, load: Load) -> None:
    install("textgym-a", REWARD.format(name="a"), plugin="common")
    install("textgym-b", REWARD.format(name="b"), plugin="common")
    assert sorted(load().rewards) == ["a", "b"]


def test_load_misspelt_hook_names_the_nearest(install: Install, load: Load) -> None:
    install("textgym-typo", REWARD.format(name="x").replace("textgym_rewards", "textgym_reward"))
    with pytest.raises(
        PluginError,
        match=r"'typo' \(textgym-typo 0\.1\.0\) implements 'textgym_reward'.*"
        r"Did you mean 'textgym_rewards'\?",
    ):
        load()


def test_load_hook_with_arguments(install: Install, load: Load) -> None:
    install("textgym-args", REWARD.format(name="x").replace("_rewards()", "_rewards(config)"))
    with pytest.raises(PluginError, match=r"'args' .* has the wrong arguments: [^|]*config"):
        load()


@pytest.mark.parametrize(
    "returned",
    ["Mine", "[Mine()]", "'mine'", "[dict]", "{'mine': Mine}", "3", "(m for m in [Mine])"],
)
def test_load_hook_that_returns_the_wrong_thing(
    install: Install, load: Load, returned: str
) -> None:
    source = REWARD.format(name="mine").replace("return [Mine]", f"return {returned}")
    install("textgym-wrong", source)
    with pytest.raises(
        PluginError,
        match=r"textgym_rewards of plugin 'wrong' .* returned .*; expected a list of classes "
        r"derived from textgym\.reward\.Reward",
    ):
        load()


def test_load_reward_without_a_name(install: Install, load: Load) -> None:
    install("textgym-anon", REWARD.format(name="x").replace('name: ClassVar[str] = "x"', "pass"))
    with pytest.raises(PluginError, match=r"plugin 'anon' .* has no name; set `name: ClassVar"):
        load()


def test_load_hook_that_returns_none_contributes_nothing(install: Install, load: Load) -> None:
    install("textgym-nil", REWARD.format(name="x").replace("return [Mine]", "return None"))
    assert load().rewards == {}


def test_load_environment_id_that_is_taken(install: Install, load: Load) -> None:
    install(
        "textgym-clash",
        """
        import textgym
        from gymnasium.envs.registration import EnvSpec

        @textgym.hookimpl
        def textgym_environments():
            return [EnvSpec("TextGen-v0", entry_point="elsewhere:Env")]
        """,
    )
    with pytest.raises(PluginError, match=r"'TextGen-v0' of textgym-clash 0\.1\.0 is registered"):
        load()


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ("auto", ["a", "b"]),
        ("none", []),
        ("a", ["a"]),
        ("textgym-b", ["b"]),
        (" a , b ", ["a", "b"]),
    ],
)
def test_select_limits_what_is_loaded(
    install: Install, load: Load, select: str, expected: list[str]
) -> None:
    install("textgym-a", REWARD.format(name="a"))
    install("textgym-b", REWARD.format(name="b"))
    assert sorted(load(select).rewards) == expected


def test_select_unknown_name(install: Install, load: Load) -> None:
    install("textgym-a", REWARD.format(name="a"))
    with pytest.raises(PluginError, match="TEXTGYM_PLUGINS names c, which no installed"):
        load("a,c")


def test_select_comes_from_the_environment(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("textgym-a", "raise OSError('loaded although not selected')")
    monkeypatch.setenv("TEXTGYM_PLUGINS", "none")
    assert textgym.plugin_manager().plugins == []


def test_reward_class_unknown_name_says_where_and_what_is_near(
    install: Install, load: Load
) -> None:
    install("textgym-brevity", REWARD.format(name="brevity"))
    message = (
        "no reward named 'brevty' (rubric.rewards[1].reward). Did you mean 'brevity'?\n"
        "  Installed: brevity (textgym-brevity 0.1.0)."
    )
    with pytest.raises(UnknownRewardError, match=re.escape(message)):
        load().reward_class("brevty", place="rubric.rewards[1].reward")


def test_unknown_names_are_lookup_errors_that_print_plainly(load: Load) -> None:
    with pytest.raises(LookupError) as caught:
        load().benchmark("x")
    assert isinstance(caught.value, UnknownNameError)
    assert not isinstance(caught.value, KeyError)
    assert str(caught.value).startswith("no benchmark named 'x'.\n  Installed: none.")


def test_plugin_of_knows_only_rewards_of_plugins(install: Install, load: Load) -> None:
    install("textgym-brevity", REWARD.format(name="brevity"))
    manager = load()
    plugin = manager.plugin_of(manager.reward_class("brevity")())

    class Mine(textgym.Reward):
        name = "brevity"

    assert plugin is not None
    assert plugin.title == "textgym-brevity 0.1.0"
    assert manager.plugin_of(Mine()) is None
