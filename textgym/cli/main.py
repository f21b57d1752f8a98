"""`textgym`: finds the sub-command, runs it, and turns what goes wrong into one line.

Only the sub-command that is called is imported, so `--help` costs what `import textgym` costs. The
commands of other distributions come from the entry-point group `textgym.commands`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import NoReturn

from textgym.cli.command import GROUP, Command
from textgym.errors import ConfigError, PluginError, TextGymError, UnknownNameError, did_you_mean

FAILED, INTERRUPTED, BROKEN_PIPE = 2, 130, 141

_OWN = {
    "plugins": "list plugins and what they offer; check a reward",
    "new-plugin": "write a small distribution with a reward, ready to install",
    "doctor": "say what this machine has and what is missing",
    "score": "score a file of completions with a reward",
    "rescore": "score kept answers again, with another reward",
    "compare": "compare two evaluations by paired tests",
    "serve": "serve rewards, the sandbox or a reference model on HTTP",
}
_KNOWN_HELP = {
    "train": "train a policy on an environment",
    "evaluate": "measure a run or a model on held-out prompts or suites",
    "sft": "fine-tune a language model on demonstrations",
    "dpo": "tune a language model on preference pairs",
    "report": "write the page of a run, or of several side by side",
    "view": "look into a run in the terminal",
    "recipe": "run a published recipe, stage after stage",
    "plan": "predict the memory of a run, and what fits",
    "compare-tuning": "train full, last layers and LoRA side by side",
    "launch-config": "print the path of a configuration for `accelerate launch`",
    "baselines": "compare agents over seeds, ours and those of Stable-Baselines3",
    "reward-model": "train a reward model on preference pairs, or measure one",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    0 is success, 1 a finding of the command itself (`textgym doctor`), 2 an error of usage or
    configuration, 130 an interrupt, 141 a reader that went away.
    """
    with _one_line_warnings():
        try:
            code = _run(list(sys.argv[1:] if arguments is None else arguments))
            sys.stdout.flush()
            return code
        except TextGymError as error:
            print(f"error: {error}", file=sys.stderr)
            return FAILED
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return INTERRUPTED
        except BrokenPipeError:
            # the interpreter flushes stdout once more on exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return BROKEN_PIPE


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all errors of the command line are."""

    def error(self, message: str) -> NoReturn:
        """Raise what `main` prints."""
        raise ConfigError(f"{message}. See `{self.prog} --help`.")

    def refuse(self, unknown: str) -> NoReturn:
        """Say that there is no such argument, and which one it may have been."""
        options = re.findall(r"--[a-z-]+", self.format_usage())
        hint = did_you_mean(unknown.partition("=")[0], options)
        raise ConfigError(f"unexpected argument '{unknown}'.{hint} See `{self.prog} --help`.")


def _run(arguments: list[str]) -> int:
    external = _external_commands()
    name = next((a for a in arguments if not a.startswith("-")), None)
    parser = _Parser(
        prog="textgym", description="Text generation as Gymnasium environments, rewards as plugins."
    )
    parser.add_argument("--version", action="version", version=f"textgym {_version()}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    helps = {**_OWN, **{n: _KNOWN_HELP.get(n, f"from {_title(e)}") for n, e in external.items()}}
    if name is not None and name not in helps:
        raise UnknownNameError(
            f"no command '{name}'.{did_you_mean(name, helps)} Commands: {', '.join(helps)}."
        )
    for known, text in helps.items():
        if known != name:
            subparsers.add_parser(known, help=text)
    if name is None:
        parser.parse_args(arguments)
        parser.print_help()
        return 0
    with _named_extras(f"textgym {name}"):
        command = _load(name, external)
        own = subparsers.add_parser(
            name, help=helps[name], description=command.help, allow_abbrev=False
        )
        command.configure(own)
        namespace, unknown = parser.parse_known_args(arguments)
        if unknown:
            own.refuse(unknown[0])
        return command.run(namespace)


def _external_commands() -> dict[str, EntryPoint]:
    """Return the commands of other distributions.

    Raises:
        PluginError: a name that two distributions use, or that textgym itself uses.
    """
    found: dict[str, EntryPoint] = {}
    for entry_point in sorted(entry_points(group=GROUP), key=lambda e: (e.name, e.value)):
        name = entry_point.name
        if name in _OWN or name in found:
            owner = "textgym" if name in _OWN else _title(found[name])
            raise PluginError(
                f"{_title(entry_point)} adds the command '{name}', which {owner} has already; "
                "uninstall one of them"
            )
        found[name] = entry_point
    return found


def _load(name: str, external: dict[str, EntryPoint]) -> Command:
    if name in _OWN:
        loaded = importlib.import_module(f"textgym.cli.{name.replace('-', '_')}").COMMAND
    else:
        loaded = external[name].load()
    if not isinstance(loaded, Command):
        raise PluginError(
            f"the command '{name}' of {_title(external[name])} ({external[name].value}) is "
            f"{loaded!r}; expected a textgym.cli.command.Command"
        )
    return loaded


def _title(entry_point: EntryPoint) -> str:
    dist = entry_point.dist
    return f"{dist.name} {dist.version}" if dist is not None else entry_point.value


def _version() -> str:
    import textgym

    return textgym.__version__


@contextmanager
def _named_extras(purpose: str) -> Iterator[None]:
    """Turn a module that belongs to an extra and is not installed into one line."""
    try:
        yield
    except ModuleNotFoundError as error:
        from textgym.extras import missing_extra

        named = missing_extra(error, purpose)
        if named is None:
            raise
        raise named from None


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Print a warning as `warning: ...`; the source line means nothing to a user of commands."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(
            f"warning: {message}", file=sys.stderr
        )
        yield
