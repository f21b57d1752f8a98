"""`textgym doctor`: what this machine has, what is missing, and what to do about it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TypedDict

import textgym
from textgym.cli.command import Command
from textgym.cli.output import console, print_json, table
from textgym.cli.plugins import status
from textgym.errors import PluginError
from textgym.extras import requirements, version_of
from textgym.plugins import plugin_manager

_SANDBOX_TRIAL = ("--ro-bind", "/", "/", "--unshare-all", "true")
_SANDBOX_SECONDS = 10.0


def configure(parser: ArgumentParser) -> None:
    """Add the arguments of `textgym doctor`."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(arguments: Namespace) -> int:
    """Print the findings; the exit code is 1 if something is broken, 0 if not.

    A missing extra, GPU or sandbox is no fault: not everybody needs it.
    """
    findings = examine()
    if arguments.json:
        print_json(findings)
    else:
        _print(findings)
    return 1 if findings["faults"] else 0


class Findings(TypedDict):
    """What `textgym doctor --json` prints."""

    python: str
    textgym: str
    platform: str
    cores: int
    memory_gib: float
    gpus: list[str]
    sandbox: str
    isolation: dict[str, str]
    packages: list[dict[str, str]]
    plugins: list[dict[str, str]]
    environments: list[str]
    faults: list[str]


def examine() -> Findings:
    """Return what was found, ready for JSON."""
    faults: list[str] = []
    packages = _packages(faults)
    plugins, environments = _plugins(faults)
    return {
        "python": platform.python_version(),
        "textgym": textgym.__version__,
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1,
        "memory_gib": _memory_gib(),
        "gpus": _gpus(faults),
        "sandbox": examine_sandbox(),
        "isolation": examine_isolation(),
        "packages": packages,
        "plugins": plugins,
        "environments": environments,
        "faults": faults,
    }


def examine_sandbox() -> str:
    """Return `works`, or why bubblewrap cannot run a program here."""
    program = shutil.which("bwrap")
    if program is None:
        return "bwrap is not installed; rewards that run code need it (package 'bubblewrap')"
    try:
        trial = subprocess.run(
            [program, *_SANDBOX_TRIAL],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SANDBOX_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"bwrap does not finish within {_SANDBOX_SECONDS:.0f} s"
    except OSError as error:
        return f"bwrap cannot be started: {error.strerror}"
    if trial.returncode == 0:
        return "works"
    reason = " ".join(trial.stderr.split()) or f"exit code {trial.returncode}"
    return f"bwrap cannot make a sandbox: {reason}"


def examine_isolation() -> dict[str, str]:
    """Return, by reward, what those that run programs say of the isolation they get here.

    Such a reward has a class method `isolation_report`, which tries it out.
    """
    try:
        rewards = plugin_manager().rewards
    except PluginError:
        return {}  # reported with the plugins
    reports = {
        name: getattr(offered.value, "isolation_report", None) for name, offered in rewards.items()
    }
    found: dict[str, str] = {}
    for name, report in sorted(reports.items()):
        if callable(report):
            try:
                found[name] = str(report())
            except Exception as error:  # a third party's
                found[name] = f"unknown: {type(error).__name__}: {error}"
    return found


def _packages(faults: list[str]) -> list[dict[str, str]]:
    packages: list[dict[str, str]] = []
    for extra, names in requirements().items():
        for name in names:
            version = version_of(name)
            packages.append({"package": name, "version": version or "", "extra": extra})
            if version is None and not extra:
                faults.append(f"the package '{name}' is missing; run: {_install(extra)}")
    return packages


def _plugins(faults: list[str]) -> tuple[list[dict[str, str]], list[str]]:
    try:
        manager = plugin_manager()
    except PluginError as error:
        faults.append(str(error))
        return [], []
    faults += [f"plugin '{p.name}' ({p.title}): {p.error}" for p in manager.plugins if p.error]
    plugins = [{"plugin": p.title, "status": status(p.error)} for p in manager.plugins]
    return plugins, sorted(manager.environments)


def _memory_gib() -> float:
    """Return the memory of the machine, or of the container where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # no such group, or "max"
        limit = total
    return round(min(total, limit) / 2**30, 1)


def _gpus(faults: list[str]) -> list[str]:
    if importlib.util.find_spec("torch") is None:
        return []
    try:
        import torch
    except (ImportError, OSError) as error:  # a library it needs does not fit this machine
        faults.append(f"torch is installed but cannot be imported: {error}")
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def _print(findings: Findings) -> None:
    out = console()
    machine = (
        ("textgym", findings["textgym"]),
        ("python", findings["python"]),
        ("platform", findings["platform"]),
        ("cores", findings["cores"]),
        ("memory", f"{findings['memory_gib']} GiB"),
        ("GPUs", ", ".join(findings["gpus"]) or "none that torch can use"),
        ("sandbox", findings["sandbox"]),
        *((f"isolation of '{name}'", said) for name, said in findings["isolation"].items()),
        ("environments", ", ".join(findings["environments"])),
    )
    out.print(table("Machine", ("what", "found"), machine))
    packages = [
        (p["package"], p["version"] or f"missing: {_install(p['extra'])}", p["extra"] or "(always)")
        for p in findings["packages"]
    ]
    out.print(table("Packages", ("package", "version", "extra"), packages))
    plugins = [(p["plugin"], p["status"]) for p in findings["plugins"]]
    out.print(table("Plugins", ("plugin", "status"), plugins))
    for fault in findings["faults"]:
        out.print(f"fault: {fault}")
    out.print("Something is broken." if findings["faults"] else "Nothing is broken.")


def _install(extra: str) -> str:
    return f"pip install 'textgym[{extra}]'" if extra else "pip install textgym"


COMMAND = Command("say what this machine has, what is missing and how to get it", configure, run)
