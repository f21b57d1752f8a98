"""`textgym plugins check NAME`: hold installed rewards against the conformance kit."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from textgym.cli.output import console, print_json, table
from textgym.config import merge, parse_override
from textgym.errors import ConfigError, UnknownNameError, did_you_mean
from textgym.plugins import plugin_manager
from textgym.testing import REWARD_RULES, Report, examine_reward

HELP = "hold a reward, or all rewards of a plugin, against the conformance kit"


def configure(parser: ArgumentParser) -> None:
    """Add the arguments of `textgym plugins check`."""
    add = parser.add_argument
    add("name", help="a reward, a plugin or a distribution")
    add("--cases", type=Path, metavar="FILE", help="JSONL of cases; else those the reward ships")
    add("--set", dest="overrides", action="append", default=[], metavar="FIELD=VALUE",
        help="set a field of the reward; can be repeated")  # fmt: skip


def run(arguments: Namespace) -> int:
    """Print the findings by rule; the exit code is 1 if there are any."""
    names = _rewards_named(arguments.name)
    config: dict[str, Any] = {}
    for override in arguments.overrides:
        config = merge(config, parse_override(override))
    if len(names) > 1 and (arguments.cases or config):
        raise ConfigError(
            f"--cases and --set are for one reward; '{arguments.name}' offers {', '.join(names)}"
        )
    reports = [examine_reward(name, arguments.cases, config=config) for name in names]
    if arguments.json:
        print_json([asdict(report) for report in reports])
    else:
        for report in reports:
            _print(console(), report)
    return 1 if any(report.findings for report in reports) else 0


def _rewards_named(name: str) -> Sequence[str]:
    """Return the reward of this name, or the rewards of the plugin or distribution."""
    rewards = plugin_manager().rewards
    if name in rewards:
        return [name]
    owned = [r for r, c in rewards.items() if name in (c.plugin.name, c.plugin.distribution)]
    if not owned:
        owners = {n for c in rewards.values() for n in (c.plugin.name, c.plugin.distribution)}
        raise UnknownNameError(
            f"no reward, and no plugin with rewards, is named '{name}'."
            f"{did_you_mean(name, [*rewards, *owners])} Installed rewards: "
            f"{', '.join(sorted(rewards)) or 'none'}."
        )
    return sorted(owned)


def _print(out: Console, report: Report) -> None:
    counts = dict.fromkeys(REWARD_RULES, 0)
    for finding in report.findings:
        counts[finding.rule] += 1
    rows = [
        (rule, REWARD_RULES[rule], "kept" if not count else f"broken: {count}")
        for rule, count in counts.items()
    ]
    out.print(table(f"The reward '{report.reward}'", ("rule", "what holds", "verdict"), rows))
    for finding in report.findings:
        out.print(f"  - {finding}")
    verdict = f"{len(report.findings)} findings" if report.findings else "conforms"
    out.print(
        f"{report.reward}: {verdict} ({report.num_cases} cases, {report.num_samples} samples, "
        f"{report.seconds:.1f} s)"
    )
