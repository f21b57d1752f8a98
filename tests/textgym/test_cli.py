from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

import textgym
import textgym.cli.doctor
import textgym.cli.main
from textgym.cli.main import main
from textgym.cli.score import Scorer
from textgym.plugins import PluginManager
from textgym.prompt_files import write_prompts

REWARD = """
def exact(sample):
    last = sample.completion.strip().rpartition("\\n")[2]
    return float(last.replace(",", "") == f"A: {sample.prompt.target}".replace(",", ""))
"""

Result = tuple[int, str, str]


@pytest.fixture
def textgym_command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    def run(*arguments: object) -> Result:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def reward(tmp_path: Path) -> str:
    path = tmp_path / "rewards.py"
    path.write_text(REWARD)
    return f"{path}:exact"


@pytest.fixture
def command_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], None]]:
    """Return a function that installs a command whose module has the given source."""
    points: list[EntryPoint] = []
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(textgym.cli.main, "entry_points", lambda group: points)

    def install(name: str, source: str) -> None:
        module = f"command_module_{len(points)}_{name}"
        (tmp_path / f"{module}.py").write_text(source)
        points.append(EntryPoint(name, f"{module}:command", textgym.cli.main.GROUP))

    yield install
    for name in [name for name in sys.modules if name.startswith("command_module_")]:
        del sys.modules[name]


ECHO = """
from textgym import ConfigError
from textgym.cli.command import Command

def configure(parser):
    parser.add_argument("--code", type=int, default=0)
    parser.add_argument("--fail")

def run(arguments):
    if arguments.fail == "interrupt":
        raise KeyboardInterrupt
    if arguments.fail == "torch":
        import stable_baselines3
    if arguments.fail == "bug":
        import no_such_module_anywhere
    if arguments.fail:
        raise ConfigError(arguments.fail)
    return arguments.code

command = Command("say it again", configure, run)
"""


def write_jsonl(path: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines))
    return path


def run_process(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


# the command line itself


def test_help_lists_every_command_and_imports_none(
    textgym_command: Callable[..., Result], command_module: Callable[[str, str], None]
) -> None:
    command_module("train", "raise SystemExit('must not be imported')")
    command_module("sing", "raise SystemExit('must not be imported')")
    code, out, _ = textgym_command()
    assert code == 0
    for name in ("plugins", "doctor", "score", "train", "sing"):
        assert f"\n    {name} " in out


def test_help_does_not_import_torch() -> None:
    program = (
        "import sys; from textgym.cli.main import main; main([]);"
        "print([m for m in ('torch', 'transformers', 'yaml', 'rich') if m in sys.modules])"
    )
    finished = run_process(sys.executable, "-c", program)
    assert finished.stdout.endswith("[]\n"), finished


def test_python_m_and_version() -> None:
    finished = run_process(sys.executable, "-m", "textgym", "--version")
    assert (finished.returncode, finished.stdout) == (0, f"textgym {textgym.__version__}\n")


def test_unknown_command_names_the_nearest(textgym_command: Callable[..., Result]) -> None:
    code, out, err = textgym_command("plugns")
    assert (code, out) == (2, "")
    assert err.startswith("error: no command 'plugns'. Did you mean 'plugins'? Commands: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bogus"], "unrecognized arguments: --bogus. See `textgym --help`."),
        (["score"], "the following arguments are required: file. See `textgym score --help`."),
        (["score", "a", "b"], "unexpected argument 'b'. See `textgym score --help`."),
        (["plugins", "--jsn"], "unexpected argument '--jsn'. Did you mean '--json'? See "),
        (
            ["score", "a", "--outptu=b"],
            "unexpected argument '--outptu=b'. Did you mean '--output'?",
        ),
        (["score", "a", "--workers", "0"], "argument --workers: '0' is not a whole number above 0"),
        (["score", "a", "--workers", "x"], "argument --workers: 'x' is not a whole number above 0"),
        (["score", "a", "--reward"], "argument --reward: expected one argument"),
    ],
)
def test_usage_error_is_one_line(
    textgym_command: Callable[..., Result], arguments: list[str], message: str
) -> None:
    code, out, err = textgym_command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


def test_command_of_another_distribution_runs(
    textgym_command: Callable[..., Result],
    command_module: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command_module("echo", ECHO)
    assert textgym_command("echo", "--code", 5)[0] == 5
    assert textgym_command("echo", "--fail", "no [red]good[/red]") == (
        2, "", "error: no [red]good[/red]\n",
    )  # fmt: skip
    assert textgym_command("echo", "--fail", "interrupt") == (130, "", "interrupted\n")
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    code, _, err = textgym_command("echo", "--fail", "torch")
    assert code == 2
    assert err.startswith("error: textgym echo needs the package 'stable-baselines3'")
    assert "pip install 'textgym[sb3]'" in err
    assert err.count("\n") == 1
    with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
        main(["echo", "--fail", "bug"])


def test_command_whose_import_needs_an_extra_is_one_line(
    textgym_command: Callable[..., Result],
    command_module: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command_module("echo", "import sb3_contrib.ppo_mask\n" + ECHO)
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    code, _, err = textgym_command("echo")
    assert code == 2
    assert "needs the package 'sb3-contrib'" in err


def test_entry_point_that_is_no_command_is_refused(
    textgym_command: Callable[..., Result], command_module: Callable[[str, str], None]
) -> None:
    command_module("odd", "command = print")
    code, _, err = textgym_command("odd")
    assert code == 2
    assert "expected a textgym.cli.command.Command" in err


@pytest.mark.parametrize("names", [("echo", "echo"), ("doctor",)])
def test_two_commands_of_one_name_are_refused(
    textgym_command: Callable[..., Result],
    command_module: Callable[[str, str], None],
    names: Sequence[str],
) -> None:
    for name in names:
        command_module(name, ECHO)
    code, _, err = textgym_command("plugins")
    assert code == 2
    assert f"adds the command '{names[-1]}', which" in err


def test_warning_is_one_line(
    textgym_command: Callable[..., Result], command_module: Callable[[str, str], None]
) -> None:
    command_module("echo", "import warnings; warnings.warn('mind the gap')\n" + ECHO)
    before = warnings.showwarning
    assert textgym_command("echo") == (0, "", "warning: mind the gap\n")
    assert warnings.showwarning is before


@pytest.mark.parametrize("arguments", [["plugins"], ["plugins", "--json"]])
def test_broken_pipe_is_quiet(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    finished = subprocess.run(
        [sys.executable, "-m", "textgym", *arguments],
        stdout=writer, stderr=subprocess.PIPE, timeout=120,
    )  # fmt: skip
    os.close(writer)
    assert (finished.returncode, finished.stderr) == (141, b"")


# plugins


def test_plugins_lists_what_plugins_offer(textgym_command: Callable[..., Result]) -> None:
    code, out, _ = textgym_command("plugins")
    assert code == 0
    for word in ("textgym-plugins", "textgym_prompt_sources", "arithmetic", "TextGen-v0"):
        assert word in out
    listed = json.loads(textgym_command("plugins", "--json")[1])
    assert listed["prompt_sources"]["arithmetic"] == "textgym-plugins"
    assert listed["environments"]["TextGen-v0"] == "textgym-envs"
    assert {p["status"] for p in listed["plugins"]} == {"loaded"}


def broken_manager() -> PluginManager:
    with pytest.warns(UserWarning, match="cannot be imported"):
        return PluginManager(found=[EntryPoint("broken", "no_such_plugin[0]", "textgym")])


def test_plugins_and_doctor_show_a_broken_plugin(
    textgym_command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = broken_manager()
    monkeypatch.setattr("textgym.cli.plugins.plugin_manager", lambda: manager)
    monkeypatch.setattr("textgym.cli.doctor.plugin_manager", lambda: manager)
    code, out, _ = textgym_command("plugins")
    assert code == 0
    assert "left out: " in out
    assert "Rewards: none" in out
    code, out, _ = textgym_command("doctor")
    assert code == 1
    assert "fault: plugin 'broken'" in out


# doctor


def test_doctor_reports_this_machine(textgym_command: Callable[..., Result]) -> None:
    code, out, _ = textgym_command("doctor", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["faults"] == []
    assert found["textgym"] == textgym.__version__
    assert found["cores"] >= 1
    assert 0 < found["memory_gib"] < 100_000
    assert "TextGen-v0" in found["environments"]
    packages = {p["package"]: p for p in found["packages"]}
    assert packages["numpy"]["version"]
    assert packages["numpy"]["extra"] == ""
    assert packages["torch"]["extra"] == "agents"
    assert textgym_command("doctor")[1].rstrip().endswith("Nothing is broken.")


def test_doctor_names_missing_packages(
    textgym_command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = textgym.cli.doctor.version_of
    missing = ("math-verify", "pluggy")
    monkeypatch.setattr(
        textgym.cli.doctor, "version_of", lambda name: None if name in missing else found(name)
    )
    code, out, _ = textgym_command("doctor")
    assert code == 1
    assert "missing: pip install 'textgym[math]'" in out
    assert "fault: the package 'pluggy' is missing" in out
    assert out.count("fault: ") == 1


@pytest.mark.parametrize(
    ("script", "finding"),
    [
        ("exit 0", "works"),
        ("echo 'setting up uid map:' >&2\necho 'denied' >&2\nexit 1",
         "bwrap cannot make a sandbox: setting up uid map: denied"),
        ("exit 3", "bwrap cannot make a sandbox: exit code 3"),
        ("exec sleep 60", "bwrap does not finish within"),
        (None, "bwrap is not installed"),
    ],
)  # fmt: skip
def test_doctor_tries_the_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, finding: str
) -> None:
    if script is not None:
        (tmp_path / "bwrap").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bwrap").chmod(0o755)
    rest = "" if script is None else f":{os.environ['PATH']}"
    monkeypatch.setenv("PATH", f"{tmp_path}{rest}")
    monkeypatch.setattr(textgym.cli.doctor, "_SANDBOX_SECONDS", 0.5)
    assert textgym.cli.doctor.examine_sandbox().startswith(finding)


# score


def solutions(target: int, **solutions: tuple[int, bool]) -> dict[str, object]:
    row: dict[str, object] = {"question": "How many?", "ground_truth": f"so\nA: {target}"}
    for model, (answer, verdict) in solutions.items():
        row[model] = {"is_correct": verdict, "solution": f"well\nA: {answer}"}
    return row


def summary_of(run: Callable[..., Result], *arguments: object) -> dict[str, Any]:
    code, out, _ = run("score", *arguments, "--json")
    assert code == 0
    return dict(json.loads(out))


def test_score_model_solutions(
    textgym_command: Callable[..., Result], tmp_path: Path, reward: str
) -> None:
    path = write_jsonl(
        tmp_path / "solutions.jsonl",
        solutions(18, small=(18, True), large=(17, False)),
        solutions(3, small=(3, False), large=(3, True)),
        "{broken",
        {"question": "q", "ground_truth": "so 4", "small": {"solution": "s"}},
        {"question": "q", "ground_truth": "A: 4", "small": {"solution": 4}},
    )
    output = tmp_path / "scores.jsonl"
    summary = summary_of(textgym_command, path, "--reward", reward, "--output", output)
    assert (summary["samples"], summary["done"], summary["mean"]) == (4, 4, 0.75)
    assert summary["outcomes"] == {"scored": 4}
    assert (summary["judged"], summary["agreement"]) == (4, 0.75)
    (wrong,) = summary["disagreements"]
    assert (wrong["line"], wrong["name"], wrong["value"]) == (2, "small", 1.0)
    assert [problem.partition(": ")[0] for problem in summary["problems"]] == [
        f"{path}:{line}" for line in (3, 4, 5)
    ]
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(r["line"], r["name"], r["value"]) for r in records] == [
        (1, "small", 1.0), (1, "large", 0.0), (2, "small", 1.0), (2, "large", 1.0),
    ]  # fmt: skip
    code, out, _ = textgym_command("score", path, "--reward", reward)
    assert code == 0
    assert "3/4 = 75.00%" in out
    assert "2 usable, 3 malformed" in out
    assert "line 2, small" in out


def test_score_lists_of_responses(
    textgym_command: Callable[..., Result], tmp_path: Path, reward: str
) -> None:
    path = write_jsonl(
        tmp_path / "responses.jsonl",
        {"question": "q", "target": "4", "responses": ["A: 4", "A: 5"], "correct": [True, True]},
        {"question": "q", "target": "4", "responses": ["A: 4"]},
        {"question": "q", "target": "4", "responses": ["A: 4"], "correct": [True, True]},
        {"question": "q", "target": "4", "responses": ["A: 4"], "correct": [1]},
    )
    summary = summary_of(textgym_command, path, "--reward", reward)
    assert (summary["samples"], summary["mean"]) == (3, 2 / 3)
    assert (summary["judged"], summary["agreement"]) == (2, 0.5)
    assert len(summary["problems"]) == 2


def test_score_native_and_flat_rows(
    textgym_command: Callable[..., Result], tmp_path: Path, reward: str
) -> None:
    prompt = textgym.Prompt(id="p", messages="q", target="4", reward="math")
    path = write_jsonl(
        tmp_path / "rows.jsonl",
        {"prompt": prompt.model_dump(mode="json"), "completion": "A: 4"},
        {"prompt": "q", "completion": "A: 4", "target": "4", "reward": 0.3, "extra": []},
        {"question": "q", "response": "A: 4", "answer": "4", "is_correct": False},
        {"messages": [{"role": "user", "content": "q"}], "output": "A: 4", "target": "5"},
        {"prompt": {"id": "p"}, "completion": "A: 4"},
        {"prompt": "q", "target": "4"},
        {"completion": "A: 4", "target": "4"},
        {"prompt": "q", "completion": None, "target": "4"},
    )
    summary = summary_of(textgym_command, path, "--reward", reward)
    assert (summary["samples"], summary["mean"], summary["agreement"]) == (4, 0.75, 0.0)
    fields = [problem.split("'")[1] for problem in summary["problems"]]
    assert fields == ["messages", "completion", "messages", "completion"]


def test_score_fields_can_be_named(
    textgym_command: Callable[..., Result], tmp_path: Path, reward: str
) -> None:
    row = {"question": "q", "text": "A: 4", "gold": "4", "completion": "no", "target": "no"}
    path = write_jsonl(tmp_path / "rows.jsonl", row, {"question": "q", "text": "A: 4"})
    arguments = ("--completion-field", "text", "--target-field", "gold", "--reward", reward)
    summary = summary_of(textgym_command, path, *arguments)
    assert (summary["samples"], summary["mean"]) == (1, 1.0)
    assert "field 'gold': missing" in summary["problems"][0]


def test_score_counts_failures_apart_from_the_mean(
    textgym_command: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "picky.py").write_text(
        "def picky(sample):\n"
        "    if sample.completion == 'bad':\n        raise ValueError('bad')\n"
        "    return 1.0\n"
    )
    rows = [{"prompt": "q", "completion": c, "correct": True} for c in ("ok", "bad", "ok")]
    path = write_jsonl(tmp_path / "rows.jsonl", *rows)
    summary = summary_of(textgym_command, path, "--reward", f"{tmp_path / 'picky.py'}:picky")
    assert summary["outcomes"] == {"scored": 2, "failed/raised": 1}
    assert summary["mean"] == 1.0
    assert summary["agreement"] == pytest.approx(2 / 3)
    assert summary["disagreements"][0]["value"] is None


def test_score_after_an_interrupt_reports_what_was_scored(
    textgym_command: Callable[..., Result],
    tmp_path: Path,
    reward: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [{"prompt": "q", "completion": "A: 4", "target": "4"}] * 100
    path = write_jsonl(tmp_path / "rows.jsonl", *rows)
    score_batch, calls = Scorer.score_batch, []

    def interrupted(self: Scorer, samples: Any) -> Any:
        calls.append(samples)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return score_batch(self, samples)

    monkeypatch.setattr(Scorer, "score_batch", interrupted)
    output = tmp_path / "scores.jsonl"
    code, out, err = textgym_command("score", path, "--reward", reward, "--output", output)
    assert (code, err) == (130, "interrupted\n")
    done = len(calls[0])
    assert f"{done} of 100" in out
    assert len(output.read_text().splitlines()) == done


def test_score_in_a_worker_ends_with_an_interrupt(tmp_path: Path) -> None:
    """The signal finds the command waiting for a reward that hangs."""
    (tmp_path / "slow.py").write_text(
        "import pathlib, time\n"
        "def slow(sample):\n"
        f"    pathlib.Path({str(tmp_path)!r}, 'started').touch()\n"
        "    time.sleep(60)\n"
    )
    path = write_jsonl(tmp_path / "rows.jsonl", {"prompt": "q", "completion": "c"})
    process = subprocess.Popen(
        [sys.executable, "-m", "textgym", "score", path, "--reward", f"{tmp_path}/slow.py:slow"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "interrupted\n")
    assert "0 of 1" in out


def test_score_without_reward_uses_what_the_prompts_name(
    textgym_command: Callable[..., Result], tmp_path: Path
) -> None:
    rows = [{"prompt": "q", "completion": "c", "reward": name} for name in ("nope", "nope")]
    code, _, err = textgym_command("score", write_jsonl(tmp_path / "rows.jsonl", *rows))
    assert code == 2
    assert "no reward named 'nope'" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reward", "maht"], "no reward named 'maht'"),
        (["--set", "a=1"], "--set has no effect without --reward"),
        (["--reward", "{reward}", "--set", "a"], "--set a: expected FIELD=VALUE"),
        (
            ["--reward", "{reward}", "--output", "/no/such/dir/x"],
            "--output /no/such/dir/x: No such",
        ),
        ([], "names no reward"),
    ],
)
def test_score_errors_are_one_message(
    textgym_command: Callable[..., Result],
    tmp_path: Path,
    reward: str,
    arguments: list[str],
    message: str,
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", {"prompt": "q", "completion": "c"})
    code, out, err = textgym_command("score", path, *(a.format(reward=reward) for a in arguments))
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err


@pytest.mark.parametrize(("name", "message"), [("none", "No such file"), (".", "Is a directory")])
def test_score_of_what_is_no_file_is_one_message(
    textgym_command: Callable[..., Result], tmp_path: Path, reward: str, name: str, message: str
) -> None:
    path = tmp_path / name
    code, out, err = textgym_command("score", path, "--reward", reward)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {path}: cannot be read: {message}")


def test_score_refuses_a_file_of_prompts(
    textgym_command: Callable[..., Result], tmp_path: Path, reward: str
) -> None:
    path = tmp_path / "prompts.jsonl"
    write_prompts(path, [textgym.Prompt(id="1", messages="q")])
    code, _, err = textgym_command("score", path, "--reward", reward)
    assert code == 2
    assert "holds no usable sample: 1 malformed line" in err
    assert "field 'completion': missing; a line needs one of completion, response, output" in err


@pytest.mark.parametrize(
    ("name", "samples"),
    [("gsm8k_model_solutions.jsonl", 2640), ("qwen_math_responses.jsonl", 400)],
)
def test_score_reads_real_files_as_they_are(
    textgym_command: Callable[..., Result],
    shared_data: Callable[[str], Path],
    reward: str,
    name: str,
    samples: int,
) -> None:
    summary = summary_of(textgym_command, shared_data(name), "--reward", reward)
    assert (summary["samples"], summary["judged"], summary["problems"]) == (samples, samples, [])
    if name.startswith("gsm8k"):
        assert summary["agreement"] == 1.0  # those solutions end in `A: N`, which `exact` reads
