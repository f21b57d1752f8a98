"""The five hooks of a textgym plugin. Hooks register; plain calls score.

A plugin is a module, named by an entry point of the group `textgym`, whose functions carry
`@textgym.hookimpl`.
"""

from __future__ import annotations

import pluggy
from gymnasium.envs.registration import EnvSpec

from textgym.benchmark import Benchmark
from textgym.prompt_source import PromptSource
from textgym.reward import Reward
from textgym.tool import Tool

hookspec = pluggy.HookspecMarker("textgym")
hookimpl = pluggy.HookimplMarker("textgym")


@hookspec
def textgym_rewards() -> list[type[Reward]]:
    """Return the reward classes of this plugin."""
    raise NotImplementedError


@hookspec
def textgym_prompt_sources() -> list[type[PromptSource]]:
    """Return the prompt source classes of this plugin."""
    raise NotImplementedError


@hookspec
def textgym_benchmarks() -> list[Benchmark]:
    """Return the benchmarks of this plugin."""
    raise NotImplementedError


@hookspec
def textgym_environments() -> list[EnvSpec]:
    """Return Gymnasium specs with string entry points; the manager registers them."""
    raise NotImplementedError


@hookspec
def textgym_tools() -> list[type[Tool]]:
    """Return the tool classes of this plugin."""
    raise NotImplementedError
