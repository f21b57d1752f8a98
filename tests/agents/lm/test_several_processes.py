"""Several processes do what one does: the same losses and weights, one run directory, one voice."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from safetensors.torch import load_file

from textgym.errors import UnknownNameError
from textgym_agents.cli.launch_config import FOLDER, launch_config

SERVER = """
import json, os, sys
import torch
import textgym_agents.cli.language_models
import textgym_agents.lm.trainer
import textgym_agents.lm.offline.run
from textgym.cli.main import main
from textgym.plugins import plugin_manager

torch.set_num_threads(1)
plugin_manager()
textgym_agents.lm.trainer.plot_run = lambda run: None  # takes longer than the rest of such a run
textgym_agents.lm.offline.run.plot_tuning_run = lambda run, kind: None
for line in sys.stdin:
    job = json.loads(line)
    pids = []
    for rank in range(job["size"]):
        pid = os.fork()
        if pid:
            pids.append(pid)
            continue
        descriptor = os.open(job["log"] + str(rank), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.environ |= job["environment"] | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        code = 1
        try:
            exec(job["code"].get(str(rank), ""))
            code = main(job["arguments"]) if job["arguments"] else 0
        except SystemExit as error:
            code = error.code
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    print(json.dumps(pids), flush=True)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    print(json.dumps(codes), flush=True)
os._exit(0)
"""
CONFIG: dict[str, Any] = {
    "iterations": 3,
    "checkpoint_every": 2,
    "env": {"prompts": "arithmetic", "reward": "math"},
    "cold_start": {"steps": 12, "batch_size": 7},
    "rollout": {"num_episodes": 24, "num_envs": 6, "max_new_tokens": 4, "max_length": 24},
    "ppo": {
        "batch_size": 7,
        "update_epochs": 2,
        "micro_batch_tokens": 40,
        "optimizer": {"learning_rate": 1e-3, "schedule": "linear"},
        "kl_penalty": {"beta": 0.1, "adaptive": True, "horizon_sequences": 50},
        "kl_stop": {"target": 0.05, "statistic": "k3", "min_tokens": 20},
    },
    "evaluation": {"every": 2, "num_episodes": 5},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {
        "iterations": 2,
        "cold_start": None,
        "rollout": CONFIG["rollout"] | {"num_episodes": 8, "num_envs": 4},
        "policy": {"mode": {"kind": "lora", "rank": 2}},
        "ppo": CONFIG["ppo"] | {
            "whiten_over": "minibatch", "aggregation": "seq_mean_token_mean", "batch_size": 1,
        },
    },
}  # fmt: skip


class Outcome(NamedTuple):
    """How the processes of a job ended."""

    codes: list[int]
    logs: list[str]

    @property
    def text(self) -> str:
        return "\n---\n".join(self.logs)


class Runner:
    """Runs `textgym` as a launcher would, forked from a process that has imported everything."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )

    def run(
        self,
        *arguments: str | Path,
        size: int = 2,
        code: Mapping[int, str] | None = None,
        stop: tuple[int, signal.Signals] | None = None,
        when: Callable[[], bool] = lambda: True,
        environment: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Run a command; once `when` holds, send a signal to the process of a rank.

        Args:
            arguments: of `textgym`; none runs `code` alone.
            size: how many processes.
            code: run before the command, by rank.
            stop: rank and signal.
            when: the moment of the signal.
            environment: more variables.
        """
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        launched = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
        job = {
            "arguments": [str(a) for a in arguments],
            "size": size,
            "log": str(self.log),
            "code": {str(rank): text for rank, text in (code or {}).items()},
            "environment": launched | dict(environment or {}),
        }
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        pids = json.loads(self._server.stdout.readline())
        if stop is not None:
            deadline = time.monotonic() + 120
            while not when():
                assert time.monotonic() < deadline
                time.sleep(0.002)
            os.kill(pids[stop[0]], stop[1])
        codes = json.loads(self._server.stdout.readline())
        return Outcome(codes, [Path(f"{self.log}{rank}").read_text() for rank in range(size)])

    def train(self, *arguments: str | Path, size: int = 2) -> Outcome:
        """Run `textgym train`, which must succeed."""
        outcome = self.run("train", *arguments, size=size)
        assert outcome.codes == [0] * size, outcome.text
        return outcome

    def close(self) -> None:
        """End the server."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(timeout=60)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    runner = Runner(tmp_path_factory.mktemp("runner"))
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A configuration file per variant."""
    folder = tmp_path_factory.mktemp("configs")
    for name, changes in VARIANTS.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(CONFIG | changes))
    return {name: folder / f"{name}.yaml" for name in VARIANTS}


@pytest.fixture(scope="module")
def one(runner: Runner, configs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run `full` in one process."""
    run = tmp_path_factory.mktemp("one") / "run"
    runner.train(configs["full"], "--run", run, size=1)
    return run


def rows_of(run: Path, *phases: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["phase"] in phases]


def assert_near(run: Path, other: Path) -> None:
    """Compare losses, gradients and greedy answers of two runs, to 1e-5, and the last weights."""
    pairs = zip(rows_of(run, "cold_start", "ppo"), rows_of(other, "cold_start", "ppo"), strict=True)
    num_compared = 0
    for row, wanted in pairs:
        measured = {k: v for k, v in wanted.items() if isinstance(v, float) and k[:5] != "time/"}
        assert {k: row[k] for k in measured} == pytest.approx(measured, rel=1e-4, abs=1e-5)
        num_compared += len(measured)
    assert num_compared > 40
    greedy = [
        [row["evaluation/greedy_length"] for row in rows_of(r, "evaluation")] for r in (run, other)
    ]
    assert greedy[0] == pytest.approx(greedy[1])
    folders = [sorted((r / "checkpoints").glob("iteration-*"))[-1] for r in (run, other)]
    assert folders[0].name == folders[1].name
    for path in folders[0].rglob("*.safetensors"):
        first, second = load_file(path), load_file(folders[1] / path.relative_to(folders[0]))
        for name, tensor in first.items():
            # Where a gradient is 0 but for rounding, as that of a key bias, Adam makes steps of it.
            apart = (tensor - second[name]).norm() / second[name].norm().clamp(min=1e-2)
            assert float(apart) < 1e-3, name


def num_updates(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_text().count('"phase": "ppo"') if path.exists() else 0


def test_two_processes_learn_what_one_learns(
    runner: Runner, configs: dict[str, Path], tmp_path: Path
) -> None:
    """With minibatches of a single row, of which one process has none."""
    alone, run = tmp_path / "alone", tmp_path / "run"
    runner.train(configs["lora"], "--run", alone, size=1)
    outcome = runner.train(configs["lora"], "--run", run)
    assert_near(run, alone)
    assert outcome.logs[1] == ""
    assert "held-out prompts" in outcome.logs[0]
    assert len(list((run / "tensorboard").iterdir())) == 1


def test_accelerate_launch(configs: dict[str, Path], one: Path, tmp_path: Path) -> None:
    """The whole way, from the shipped file of the launcher; minibatches do not divide evenly."""
    run = tmp_path / "run"
    done = subprocess.run(
        [
            sys.executable, "-m", "accelerate.commands.launch",
            "--config_file", FOLDER / "ddp.yaml", "--main_process_port", "0",
            "-m", "textgym", "train", configs["full"], "--run", run,
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("held-out prompts") == 2  # the note and the table, from one process
    assert_near(run, one)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ddp", "MULTI_GPU"), ("fsdp", "FSDP"), ("deepspeed-zero2", "DEEPSPEED"),
        ("deepspeed-zero3", "DEEPSPEED"),
    ],
)  # fmt: skip
def test_a_launch_configuration_is_one(
    name: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    assert launch_config.run(Namespace(name=name)) == 0
    path = capsys.readouterr().out.strip()
    assert load_config_from_file(path).distributed_type == kind
    assert launch_config.run(Namespace(name=None)) == 0
    assert f"\n{name} " in "\n" + capsys.readouterr().out
    with pytest.raises(UnknownNameError, match="Did you mean 'ddp'"):
        launch_config.run(Namespace(name="dpp"))


def test_a_run_goes_on_in_another_number_of_processes(
    runner: Runner, configs: dict[str, Path], one: Path, tmp_path: Path
) -> None:
    """The signal reaches one process; all of them stop at the same iteration."""
    run = tmp_path / "run"
    outcome = runner.run(
        "train", configs["full"], "--run", run,
        stop=(1, signal.SIGINT), when=lambda: num_updates(run) >= 1,
    )  # fmt: skip
    assert outcome.codes == [130, 130], outcome.text
    assert f"--resume {run}" in outcome.logs[0].replace("\n", "")
    assert outcome.logs[1] == ""
    assert 1 <= num_updates(run) < 3
    runner.train("--resume", run, size=3)
    assert_near(run, one)


def test_a_process_that_dies_ends_the_others_and_costs_nothing(
    runner: Runner, configs: dict[str, Path], one: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    outcome = runner.run(
        "train", configs["full"], "--run", run,
        stop=(1, signal.SIGKILL), when=lambda: num_updates(run) >= 1,
    )  # fmt: skip
    assert outcome.codes == [2, -signal.SIGKILL], outcome.text
    assert "error: another process has ended or cannot be reached" in outcome.logs[0]
    assert "Traceback" not in outcome.text
    runner.train("--resume", run)
    assert_near(run, one)


TUNING = """
import argparse
from textgym_agents.cli.offline import {kind} as command
parser = argparse.ArgumentParser()
command.configure(parser)
try:
    code = command.run(parser.parse_args({arguments}))
except KeyboardInterrupt:
    code = 130
raise SystemExit(code)
"""
FAILING = """
import textgym_agents.lm.collection as collection
from textgym.errors import RewardError
def collect_parts(*_, **__):
    raise RewardError("no reward today")
collection.collect_parts = collect_parts
"""


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_in_one_process_is_told_once_and_ends_all(
    runner: Runner, configs: dict[str, Path], tmp_path: Path, rank: int
) -> None:
    run = tmp_path / "run"
    arguments = ("train", configs["full"], "--run", run, "--set", "cold_start=null")
    outcome = runner.run(*arguments, code={rank: FAILING})
    assert outcome.codes == [2, 2], outcome.text
    assert outcome.logs[1] == ""
    said = "process 1 failed: RewardError: no reward today" if rank else "no reward today"
    assert outcome.logs[0].count("error:") == 1
    assert outcome.logs[0].rstrip().endswith(f"error: {said}")


MISTAKES = {
    "a typo": (["--set", "ppo.gama=1"], {}, "no field 'ppo.gama'"),
    "a rollout that cannot be divided": (
        ["--preset", "seed", "--set", "rollout.num_episodes=5", "--set", "rollout.num_envs=5"], {},
        "rollout.num_episodes (5) cannot be divided among 2 processes",
    ),
    "too few prompts": (
        ["--set", "evaluation.num_episodes=1"], {}, "1 held-out prompts are too few for 2",
    ),
    "groups that cannot be divided": (
        ["--preset", "grpo", "--set", "rollout.num_episodes=8", "--set", "ppo.batch_size=8"], {},
        "rollout.num_episodes (8, in groups of 8) cannot be divided among 2 processes",
    ),
    "an engine of one process": (
        ["--engine", "vllm-server", "--url", "http://127.0.0.1:9"], {},
        "engine.kind: 'vllm_server' mirrors the policy of one process, and there are 2",
    ),
    "an agent of one process": (
        ["--agent", "q_learning", "--env", "Taxi-v4"], {}, "these agents use one process",
    ),
    "sharded weights": (
        [], {"ACCELERATE_USE_FSDP": "true"}, "`textgym train` keeps the whole policy in each",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_once(runner: Runner, tmp_path: Path, mistake: str) -> None:
    arguments, environment, said = MISTAKES[mistake]
    outcome = runner.run("train", *arguments, "--run", tmp_path / "run", environment=environment)
    assert outcome.codes == [2, 2], outcome.text
    assert outcome.logs[1] == ""
    assert outcome.logs[0].count("error:") == 1
    assert said in outcome.logs[0]
    assert not (tmp_path / "run" / "config.yaml").exists()


UNITS = """
import textgym_agents.processes as module
from textgym_agents.processes import PeerError, launched
from textgym_agents.lm.trainer import check_equal
from torch.nn import Parameter

module.BUCKET_BYTES = 20
with launched() as processes:
    rank = processes.rank
    assert processes.size == 3
    assert processes.gather("abc"[rank]) == ["a", "b", "c"]
    assert processes.any(rank == 2) and not processes.any(False)
    assert processes.from_main(lambda: rank + 7) == 7
    x = torch.tensor([1.0, rank])
    assert processes.sum(x).tolist() == [3.0, 3.0] and x.tolist() == [1.0, rank]

    parameters = [Parameter(torch.zeros(shape)) for shape in ((2, 3), (4,), (), (5,))]
    frozen = Parameter(torch.zeros(2), requires_grad=False)
    doubled = Parameter(torch.zeros(3, dtype=torch.float64))
    for i, p in enumerate(parameters[:3]):
        p.grad = torch.full_like(p, 10.0**i * (rank + 1)) if i != rank else None
    doubled.grad = torch.full_like(doubled, 0.5)
    processes.sum_gradients([*parameters, frozen, doubled])
    wanted = (5.0, 40.0, 300.0)
    for p, total in zip(parameters[:3], wanted):
        assert torch.equal(p.grad, torch.full_like(p, total)), p.grad
    assert parameters[3].grad is None and frozen.grad is None
    assert doubled.grad.tolist() == [1.5] * 3

    try:
        with processes.together():
            if rank == 1:
                raise ValueError("no")
    except ValueError:
        assert rank == 1
    except PeerError as error:
        assert rank != 1 and str(error) == "process 1 failed: ValueError: no"
    else:
        raise AssertionError

    class Network:
        value_head = torch.nn.Linear(1, 1)
        def trainable(self):
            return [Parameter(torch.ones(2) + (1e-7 if rank == drifted else 0))]

    drifted = None
    torch.nn.init.zeros_(Network.value_head.weight), torch.nn.init.zeros_(Network.value_head.bias)
    check_equal(Network(), processes)
    drifted = 2
    try:
        check_equal(Network(), processes)
    except PeerError as error:
        assert "no longer equal" in str(error)
    else:
        raise AssertionError
"""


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_tuning_in_two_processes_is_that_of_one_and_goes_on(
    runner: Runner, tmp_path: Path, kind: str
) -> None:
    """Where the rows fill the steps; for the last one of a pass TRL would repeat rows."""

    def tune(*arguments: str, size: int = 2, **options: Any) -> Outcome:
        code = TUNING.format(kind=kind, arguments=list(arguments))
        return runner.run(size=size, code=dict.fromkeys(range(size), code), **options)

    rows = [
        {"prompt": f"{a}+{b}=", "completion": str(a + b), "chosen": str(a + b), "rejected": "no"}
        for a, b in itertools.product(range(6), repeat=2)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = [
        "--data", str(tmp_path / "rows.jsonl"), "--set", "epochs=2", "--set", "batch_size=6",
        "--set", "micro_batch_size=3", "--set", "env.kwargs.evaluation_share=0",
    ]  # fmt: skip
    alone, run = tmp_path / "alone", tmp_path / "run"
    outcome = tune(*given, "--run", str(alone), size=1)
    assert outcome.codes == [0], outcome.text
    outcome = tune(
        *given, "--run", str(run), stop=(1, signal.SIGINT),
        when=lambda: (run / "metrics.jsonl").exists() and len(rows_of(run, kind)) >= 2,
    )  # fmt: skip
    assert outcome.codes == [130, 130], outcome.text
    assert outcome.logs[1] == ""
    assert f"textgym {kind} --resume" in " ".join(outcome.logs[0].split())
    num_steps = len(rows_of(alone, kind))
    assert 2 <= len(rows_of(run, kind)) < num_steps
    outcome = tune("--resume", str(run))
    assert outcome.codes == [0, 0], outcome.text
    for row, wanted in zip(rows_of(run, kind), rows_of(alone, kind), strict=True):
        for name in ("loss", "grad_norm", "learning_rate"):
            key = f"{kind}/{name}"
            assert row[key] == pytest.approx(wanted[key], abs=1e-5, rel=1e-4)


ESTIMATORS: dict[str, dict[str, Any]] = {
    "best and worst": {
        "rollout": {"keep_ends": 1, "overlong": {"penalty": 0.5, "buffer": 1}},
        "ppo": {
            "estimator": {"kind": "gae", "group_reward": True, "value_on": "all"},
            "kl_penalty": {
                "beta": 0.1, "adaptive": True, "entropy_floor": True, "horizon_sequences": 20,
            },
        },
    },
    "grpo": {"ppo": {"estimator": {"kind": "grpo"}, "correction": {"kind": "token_tis"}}},
    "dr_grpo": {"ppo": {"estimator": {"kind": "dr_grpo"}, "kl_penalty": {"beta": 0.1}}},
    "dapo": {
        "policy": {"mode": {"kind": "last_k", "k": 1}},
        "rollout": {"drop_equal": True},
        "ppo": {"estimator": {"kind": "dapo"}},
    },
    "rloo": {
        "rollout": {"drop_equal": True, "parts_in_flight": 2},
        "ppo": {"estimator": {"kind": "rloo"}, "update_epochs": 2, "kl_penalty": {"beta": 0.1}},
    },
    "reinforce": {"ppo": {"estimator": {"kind": "reinforce"}}},
    "reinforce, others": {"ppo": {"estimator": {"kind": "reinforce", "baseline": "others"}}},
    "reinforce_pp": {
        "ppo": {"estimator": {"kind": "reinforce_pp"}, "kl_penalty": {"beta": 0.1}},
    },
}  # fmt: skip
ESTIMATING = """
from pathlib import Path
import pytest
from textgym_agents.lm.build import build_agent
from textgym_agents.lm.config import TrainConfig
from textgym_agents.lm.trainer import Trainer
from textgym_agents.processes import ONE, launched
from textgym_agents.run.directory import RunDirectory
from textgym_agents.run.progress import SilentProgress

def config_of(changes):
    start = {
        "iterations": 2,
        "env": {"id": "textgym:ToyTwoTurn-v0"},
        "policy": {"legal_ids": [15, 16, 17, 18, 19, 20]},
        "rollout": {"num_episodes": 24, "num_envs": 6, "samples_per_prompt": 3,
                    "max_new_tokens": 1, "max_length": 8},
        "ppo": {"batch_size": 9, "micro_batch_tokens": 16,
                "optimizer": {"learning_rate": 1e-2, "eps": 1e-2}},  # a small one magnifies noise
        "evaluation": {"num_episodes": 3},
    }
    return TrainConfig.model_validate(
        {k: {**v, **changes.get(k, {})} if isinstance(v, dict) else v for k, v in start.items()}
    )

def comparable(rollout):
    return [
        (t.ids, t.rewards, t.group, t.is_dropped, t.is_selected, t.length_penalty)
        for t in rollout.transcripts
    ]

with launched() as processes:
    num_drawn = 0
    for name, changes in CHANGES.items():
        done = {}
        for some in (ONE, processes):
            agent = build_agent(config_of(changes), processes=some)
            assert agent.network.packs
            trainer = Trainer(agent, RunDirectory(Path("none")), SilentProgress())
            agent.start_reference()
            steps = []
            for iteration in range(2):
                rollout = trainer.collector.collect(iteration)
                metrics = agent.update(rollout, iteration=iteration, progress=0.0)
                steps.append((comparable(rollout), metrics))
            trainer.close()
            done[some] = steps, agent
        (alone, one), (shared, agent) = done.values()
        for (rollout, metrics), (other, found) in zip(alone, shared, strict=True):
            assert rollout == other, name
            assert found == pytest.approx(metrics, abs=1e-5, nan_ok=True), name
            num_drawn += len(rollout) > 24
            assert metrics["ppo/grad_norm"] > 1e-3, name
        assert agent.baseline.means == one.baseline.means, name
        assert agent.entropy_floor.first == pytest.approx(one.entropy_floor.first, abs=1e-5)
        for p, q in zip(agent.network.parameters(), one.network.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=0, atol=1e-5)
    assert num_drawn >= 2  # groups of equal scores, in whose place others were drawn
print("equal")
"""


def test_groups_are_compared_whole_by_every_estimator(runner: Runner) -> None:
    """Rollouts, losses and baselines of two processes are those of one, replacements included."""
    code = f"CHANGES = {ESTIMATORS!r}\n{ESTIMATING}"
    outcome = runner.run(code=dict.fromkeys(range(2), code))
    assert outcome.codes == [0, 0], outcome.text
    assert [log.splitlines()[-1] for log in outcome.logs] == ["equal", "equal"]


def test_what_processes_share(runner: Runner) -> None:
    outcome = runner.run(size=3, code=dict.fromkeys(range(3), UNITS))
    assert outcome.codes == [0, 0, 0], outcome.text
