"""`textgym plugins`: what is installed, what it offers, and what could not be loaded.

`textgym plugins check NAME` is in `textgym.cli.plugins_check`.
"""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Mapping

from textgym.cli import plugins_check
from textgym.cli.command import Command
from textgym.cli.output import console, print_json, table
from textgym.plugins import Contribution, PluginManager, plugin_manager


def configure(parser: ArgumentParser) -> None:
    """Add the arguments of `textgym plugins`."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action")
    check = actions.add_parser(
        "check", help=plugins_check.HELP, description=plugins_check.HELP, allow_abbrev=False
    )
    check.add_argument("--json", action="store_true", default=SUPPRESS, help="print JSON")
    plugins_check.configure(check)


def run(arguments: Namespace) -> int:
    """Print the plugins and their contributions, or what a check of one finds."""
    if arguments.action == "check":
        return plugins_check.run(arguments)
    manager = plugin_manager()
    if arguments.json:
        print_json(describe(manager))
        return 0
    out = console()
    rows = [
        (p.name, p.distribution, p.version, ", ".join(p.hooks), status(p.error))
        for p in manager.plugins
    ]
    out.print(table("Plugins", ("name", "distribution", "version", "hooks", "status"), rows))
    for title, contributions in _tables(manager).items():
        columns = [title.lower().removesuffix("s"), "plugin", "distribution"]
        offered = [[name, c.plugin.name, c.plugin.title] for name, c in contributions.items()]
        if title == "Benchmarks":
            columns.append("what it measures")
            for row in offered:
                row.append(contributions[row[0]].value.description)
        if offered:
            out.print(table(title, columns, sorted(offered)))
        else:
            out.print(f"{title}: none")
    return 0


def describe(manager: PluginManager) -> dict[str, object]:
    """Return the plugins and what they offer, ready for JSON."""
    plugins = [
        {
            "name": plugin.name,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "hooks": list(plugin.hooks),
            "status": status(plugin.error),
        }
        for plugin in manager.plugins
    ]
    offered = {
        title.lower().replace(" ", "_"): {n: c.plugin.name for n, c in sorted(table.items())}
        for title, table in _tables(manager).items()
    }
    return {"plugins": plugins, **offered}


def status(error: str | None) -> str:
    """Return how a plugin fares, in words."""
    return "loaded" if error is None else f"left out: {error}"


def _tables(manager: PluginManager) -> dict[str, Mapping[str, Contribution]]:
    return {
        "Rewards": manager.rewards,
        "Prompt sources": manager.prompt_sources,
        "Benchmarks": manager.benchmarks,
        "Environments": manager.environments,
        "Tools": manager.tools,
    }


COMMAND = Command("list plugins and what they offer, or check a reward", configure, run)
