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
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

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
    did_you_mean,
)
from textgym.prompt_source import PromptSource
from textgym.reward import Reward

GROUP = "textgym"
HOOK_NAMES = tuple(name for name in vars(hookspecs) if name.startswith("textgym_"))

T = TypeVar("T")


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


@dataclass(frozen=True)
class Contribution:
    """Something a plugin offers by name, and the plugin that offers it."""

    value: Any
    plugin: Plugin


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
            broken = f"{type(error).__name__}: {error}"
            self.plugins.append(_replace(plugin, error=broken))
            warnings.warn(
                f"textgym plugin '{plugin.name}' ({plugin.title}, {entry_point.value}) cannot be "
                f"imported and is left out: {broken}",
                stacklevel=2,
            )
            return
        if self._pluggy.is_registered(module):
            raise PluginError(
                f"the module {entry_point.value} is registered twice, the second time as "
                f"'{plugin.name}' by {plugin.title}; uninstall one of the two distributions"
            )
        _check_hook_names(module, plugin)
        key = f"{plugin.distribution}:{plugin.name}"
        self._pluggy.register(module, name=key)
        hooks = tuple(name for name in HOOK_NAMES if hasattr(module, name))
        plugin = _replace(plugin, hooks=hooks)
        self.plugins.append(plugin)
        self._modules[key] = plugin

    def _collect(self) -> None:
        self._contribute("textgym_rewards", self.rewards, "reward", lambda r: r.name, Reward)
        self._contribute(
            "textgym_prompt_sources", self.prompt_sources, "prompt source", lambda s: s.name,
            PromptSource,
        )  # fmt: skip
        self._contribute(
            "textgym_benchmarks", self.benchmarks, "benchmark", lambda b: b.name, Benchmark
        )
        self._contribute(
            "textgym_environments", self.environments, "environment", lambda e: e.id, EnvSpec
        )
        for name, contribution in self.environments.items():
            _register_environment(name, contribution)

    def _contribute(
        self,
        hook: str,
        table: dict[str, Contribution],
        what: str,
        name_of: Callable[[Any], str],
        kind: type,
    ) -> None:
        for impl in getattr(self._pluggy.hook, hook).get_hookimpls():
            plugin = self._modules[impl.plugin_name]
            for value in impl.function() or ():
                is_kind = issubclass(value, kind) if isinstance(value, type) else False
                if not (is_kind or isinstance(value, kind)):
                    raise PluginError(
                        f"{hook} of plugin '{plugin.name}' ({plugin.title}) returned {value!r}; "
                        f"expected {what}s derived from {kind.__module__}.{kind.__qualname__}"
                    )
                name = name_of(value)
                if name in table:
                    raise PluginError(
                        f"two plugins offer the {what} '{name}': {table[name].plugin.title} and "
                        f"{plugin.title}. Uninstall one, or name those to load in TEXTGYM_PLUGINS."
                    )
                table[name] = Contribution(value, plugin)

    def reward_class(self, name: str) -> type[Reward]:
        """Return the class of a reward by name."""
        found = _lookup(name, self.rewards, "reward", UnknownRewardError)
        return found.value  # type: ignore[no-any-return]

    def prompt_source_class(self, name: str) -> type[PromptSource]:
        """Return the class of a prompt source by name."""
        found = _lookup(name, self.prompt_sources, "prompt source", UnknownPromptSourceError)
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


def _replace(plugin: Plugin, **changes: Any) -> Plugin:
    return Plugin(**{**plugin.__dict__, **changes})


def _check_hook_names(module: Any, plugin: Plugin) -> None:
    for name, value in vars(module).items():
        if hasattr(value, "textgym_impl") and name not in HOOK_NAMES:
            raise PluginError(
                f"plugin '{plugin.name}' ({plugin.title}) implements '{name}', which is no hook of "
                f"textgym.{did_you_mean(name, HOOK_NAMES)} The hooks are {', '.join(HOOK_NAMES)}."
            )


def _lookup(
    name: str, table: dict[str, Contribution], what: str, error: type[UnknownNameError]
) -> Contribution:
    if name in table:
        return table[name]
    installed = ", ".join(f"{known} ({c.plugin.title})" for known, c in sorted(table.items()))
    raise error(
        f"no {what} named '{name}'.{did_you_mean(name, table)} Installed: {installed or 'none'}. "
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
