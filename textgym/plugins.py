"""Find plugins by entry point, load each under a guard, and look their contributions up by name.

pluggy carries the hooks, but the loading is our own: `load_setuptools_entrypoints` stops the host
at the first broken plugin and silently skips a second distribution that reuses a name. Plugins are
loaded on first use, not by `import textgym`: a plugin imports textgym itself, and a half-imported
plugin has no hooks yet.

`TEXTGYM_PLUGINS` limits what is loaded: `auto` (all, the default), `none`, or a comma-separated
list of entry-point or distribution names.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

import gymnasium
import pluggy
from gymnasium.envs.registration import EnvSpec

from textgym import hookspecs
from textgym.benchmark import Benchmark
from textgym.errors import (
    PluginError,
    UnknownNameError,
    UnknownPromptSourceError,
    UnknownRewardError,
    UnknownToolError,
    did_you_mean,
)
from textgym.prompt_source import PromptSource
from textgym.reward import Reward
from textgym.tool import Tool

GROUP = "textgym"
HOOK_NAMES = tuple(name for name in vars(hookspecs) if name.startswith("textgym_"))


@dataclass(frozen=True)
class Plugin:
    """One entry point of the group `textgym`, loaded or not."""

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...] = ()
    error: str | None = None
    """Why the plugin was left out; None if it is in use."""

    @property
    def title(self) -> str:
        """Distribution and version, as messages name a plugin."""
        return f"{self.distribution} {self.version}"

    @property
    def key(self) -> str:
        """What tells this entry point from all others."""
        return f"{self.distribution}:{self.name}"


@dataclass(frozen=True)
class Contribution:
    """Something a plugin offers by name, and the plugin that offers it."""

    value: Any
    plugin: Plugin


class _Kind(NamedTuple):
    """One kind of contribution: its hook, where it is kept, and what a hook must return."""

    hook: str
    table: str
    what: str
    base: type
    as_class: bool
    name_field: str = "name"

    def read(self, values: object, plugin: Plugin) -> Iterable[object]:
        """Return what a hook returned, if it is a list of the right things."""
        if values is None:
            return ()
        expected = f"a list of {'classes derived from' if self.as_class else 'instances of'}"
        wrong: object = values
        if isinstance(values, list | tuple):
            misfits = [value for value in values if not self._fits(value)]
            if not misfits:
                return values
            wrong = misfits[0]
        raise PluginError(
            f"{self.hook} of plugin '{plugin.name}' ({plugin.title}) returned {wrong!r}; expected "
            f"{expected} {self.base.__module__}.{self.base.__qualname__}"
        )

    def _fits(self, value: object) -> bool:
        if self.as_class:
            return isinstance(value, type) and issubclass(value, self.base)
        return isinstance(value, self.base)

    def name_of(self, value: object, plugin: Plugin) -> str:
        """Return the name that a contribution goes by."""
        name = getattr(value, self.name_field, None)
        if not isinstance(name, str) or not name:
            raise PluginError(
                f"the {self.what} {value!r} of plugin '{plugin.name}' ({plugin.title}) has no "
                f'{self.name_field}; set `{self.name_field}: ClassVar[str] = "..."`'
            )
        return name


_KINDS = (
    _Kind("textgym_rewards", "rewards", "reward", Reward, True),
    _Kind("textgym_prompt_sources", "prompt_sources", "prompt source", PromptSource, True),
    _Kind("textgym_benchmarks", "benchmarks", "benchmark", Benchmark, False),
    _Kind("textgym_environments", "environments", "environment", EnvSpec, False, "id"),
    _Kind("textgym_tools", "tools", "tool", Tool, True),
)


class _HookError(Exception):
    """A hook of a plugin raised."""

    def __init__(self, hook: str, cause: Exception) -> None:
        super().__init__(hook)
        self.hook = hook
        self.cause = cause


@dataclass
class PluginManager:
    """The plugins of one set of entry points and what they contribute.

    Args:
        found: the entry points to load; those of the installed distributions by default.
        select: the meaning of `TEXTGYM_PLUGINS`: `auto`, `none` or names separated by commas.

    Raises:
        PluginError: two plugins offer the same name, or a plugin misspells a hook.
    """

    found: Iterable[EntryPoint] | None = None
    select: str | None = None
    plugins: list[Plugin] = field(default_factory=list, init=False)
    rewards: dict[str, Contribution] = field(default_factory=dict, init=False)
    prompt_sources: dict[str, Contribution] = field(default_factory=dict, init=False)
    benchmarks: dict[str, Contribution] = field(default_factory=dict, init=False)
    environments: dict[str, Contribution] = field(default_factory=dict, init=False)
    tools: dict[str, Contribution] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._pluggy = pluggy.PluginManager(GROUP)
        self._pluggy.add_hookspecs(hookspecs)
        self._modules: dict[str, Plugin] = {}
        found = entry_points(group=GROUP) if self.found is None else self.found
        select = os.environ.get("TEXTGYM_PLUGINS", "auto") if self.select is None else self.select
        for entry_point in _selected(sorted(found, key=lambda e: (e.name, e.value)), select):
            self._load(entry_point)
        self._collect()

    def _load(self, entry_point: EntryPoint) -> None:
        plugin = _describe(entry_point)
        try:
            module = entry_point.load()
        except BaseException as error:  # a plugin may even call sys.exit() while it is imported
            if isinstance(error, KeyboardInterrupt):
                raise
            self._leave_out(plugin, f"{entry_point.value} cannot be imported", error)
            return
        if self._pluggy.is_registered(module):
            raise PluginError(
                f"the module {entry_point.value} is registered twice, the second time as "
                f"'{plugin.name}' by {plugin.title}; uninstall one of the two distributions"
            )
        _check_hook_names(module, plugin)
        hooks = tuple(name for name in HOOK_NAMES if _is_hook(getattr(module, name, None)))
        plugin = replace(plugin, hooks=hooks)
        try:
            self._pluggy.register(module, name=plugin.key)
        except pluggy.PluginValidationError as error:
            raise PluginError(
                f"a hook of plugin '{plugin.name}' ({plugin.title}) has the wrong arguments: "
                f"{error}"
            ) from None
        self._modules[plugin.key] = plugin

    def _leave_out(self, plugin: Plugin, what: str, error: BaseException) -> None:
        reason = f"{what}: {type(error).__name__}: {error}"
        self.plugins.append(replace(plugin, error=reason))
        warnings.warn(
            f"the textgym plugin '{plugin.name}' ({plugin.title}) is left out: {reason}",
            stacklevel=2,
        )

    def _collect(self) -> None:
        for key, plugin in self._modules.items():
            try:
                offers = self._call_hooks(key)
            except _HookError as error:
                self._leave_out(plugin, f"{error.hook} raised", error.cause)
                continue
            self.plugins.append(plugin)
            for kind, values in offers:
                for value in kind.read(values, plugin):
                    self._contribute(kind, value, plugin)
        self.plugins.sort(key=lambda plugin: plugin.key)
        for name, contribution in self.environments.items():
            _register_environment(name, contribution)

    def _call_hooks(self, key: str) -> list[tuple[_Kind, object]]:
        """Return what the hooks of one plugin return."""
        offers: list[tuple[_Kind, object]] = []
        for kind in _KINDS:
            for implementation in getattr(self._pluggy.hook, kind.hook).get_hookimpls():
                if implementation.plugin_name == key:
                    try:
                        offers.append((kind, implementation.function()))
                    except Exception as error:  # a plugin may raise anything
                        raise _HookError(kind.hook, error) from error
        return offers

    def _contribute(self, kind: _Kind, value: Any, plugin: Plugin) -> None:
        table: dict[str, Contribution] = getattr(self, kind.table)
        name = kind.name_of(value, plugin)
        if name in table:
            raise PluginError(
                f"two plugins offer the {kind.what} '{name}': {table[name].plugin.title} and "
                f"{plugin.title}. Uninstall one, or name those to load in TEXTGYM_PLUGINS."
            )
        table[name] = Contribution(value, plugin)

    def reward_class(self, name: str, *, place: str = "") -> type[Reward]:
        """Return the class of a reward by name; an error says at which `place` it was named."""
        found = _lookup(name, self.rewards, "reward", UnknownRewardError, place)
        return found.value  # type: ignore[no-any-return]

    def prompt_source_class(self, name: str) -> type[PromptSource]:
        """Return the class of a prompt source by name."""
        found = _lookup(name, self.prompt_sources, "prompt source", UnknownPromptSourceError)
        return found.value  # type: ignore[no-any-return]

    def tool_class(self, name: str) -> type[Tool]:
        """Return the class of a tool by name."""
        found = _lookup(name, self.tools, "tool", UnknownToolError)
        return found.value  # type: ignore[no-any-return]

    def benchmark(self, name: str) -> Benchmark:
        """Return a benchmark by name."""
        found = _lookup(name, self.benchmarks, "benchmark", UnknownNameError)
        return found.value  # type: ignore[no-any-return]

    def plugin_of(self, reward: Reward) -> Plugin | None:
        """Return the plugin that offers this reward, or None for one that no plugin offers."""
        found = self.rewards.get(getattr(type(reward), "name", ""))
        return found.plugin if found is not None and found.value is type(reward) else None


@functools.cache
def plugin_manager() -> PluginManager:
    """Return the manager of the installed plugins, loaded on the first call in each process."""
    return PluginManager()


def _selected(found: Iterable[EntryPoint], select: str) -> list[EntryPoint]:
    if select == "auto":
        return list(found)
    names = set() if select == "none" else {name.strip() for name in select.split(",")}
    chosen = [e for e in found if names & {e.name, _describe(e).distribution}]
    missing = names - {n for e in chosen for n in (e.name, _describe(e).distribution)}
    if missing:
        raise PluginError(
            f"TEXTGYM_PLUGINS names {', '.join(sorted(missing))}, which no installed distribution "
            "offers; `textgym plugins` lists what is installed"
        )
    return chosen


def _describe(entry_point: EntryPoint) -> Plugin:
    dist = entry_point.dist
    if dist is None:
        return Plugin(entry_point.name, "unknown distribution", "0")
    return Plugin(entry_point.name, dist.name, dist.version)


def _is_hook(value: object) -> bool:
    return hasattr(value, "textgym_impl")


def _check_hook_names(module: Any, plugin: Plugin) -> None:
    for name, value in vars(module).items():
        if _is_hook(value) and name not in HOOK_NAMES:
            raise PluginError(
                f"plugin '{plugin.name}' ({plugin.title}) implements '{name}', which is no hook of "
                f"textgym.{did_you_mean(name, HOOK_NAMES)} The hooks are {', '.join(HOOK_NAMES)}."
            )


def _lookup(
    name: str,
    table: dict[str, Contribution],
    what: str,
    error: type[UnknownNameError],
    place: str = "",
) -> Contribution:
    if name in table:
        return table[name]
    installed = ", ".join(f"{known} ({c.plugin.title})" for known, c in sorted(table.items()))
    where = f" ({place})" if place else ""
    raise error(
        f"no {what} named '{name}'{where}.{did_you_mean(name, table)}\n"
        f"  Installed: {installed or 'none'}. "
        "`textgym plugins` lists every plugin, also those that could not be loaded."
    )


def _register_environment(name: str, contribution: Contribution) -> None:
    spec: EnvSpec = contribution.value
    known = gymnasium.registry.get(name)
    if known is None:
        gymnasium.registry[name] = spec
    elif known.entry_point != spec.entry_point:
        raise PluginError(
            f"the environment '{name}' of {contribution.plugin.title} is registered already, for "
            f"{known.entry_point}; choose another id"
        )
