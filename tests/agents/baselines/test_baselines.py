"""The comparison as a command: what it runs, what it writes, what it does with what fails."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textgym.errors import ConfigError, UnknownNameError
from textgym_agents.agent_files import AGENTS
from textgym_agents.baselines import suites
from textgym_agents.baselines.command import baselines
from textgym_agents.baselines.jobs import (
    Job,
    RunResult,
    exact_return,
    make_jobs,
    read_result,
    run_job,
    run_jobs,
)
from textgym_agents.baselines.random_agent import RandomAgent
from textgym_agents.baselines.report import as_markdown, find_scale
from textgym_agents.baselines.suites import (
    TASKS,
    Task,
    chosen_agents,
    settings_for,
    task_of,
    tasks_of,
)
from textgym_agents.run.agent_run import AgentRunConfig, make_agent

TOY = "textgym:ToyTwoTurn-v0"
Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def call(*arguments: str) -> int:
        parser = argparse.ArgumentParser()
        baselines.configure(parser)
        given = [*arguments, "--out", str(tmp_path / "out"), "--jobs", "1"]
        return baselines.run(parser.parse_args(given))

    return call


def make_result(agent: str, seed: int, score: float | None, **more: Any) -> RunResult:
    config = AgentRunConfig(agent=agent, env=TOY, seed=seed, total_steps=100)
    status = "failed" if score is None else "done"
    return RunResult(config=config, status=status, score=score, num_episodes=50, **more)


def test_comparison_writes_table_page_and_plot_and_goes_on_where_it_was(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (
        "--suite", "text", "--envs", "ToyTwoTurn-v0", "--agents",
        "random,value_iteration,q_learning", "--seeds", "2", "--budget", "3000",
    )  # fmt: skip
    assert run(*command) == 0
    out = tmp_path / "out"
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["agent"], r["seed"], r["status"]) for r in rows] == [
        (agent, seed, "done")
        for seed in "01"
        for agent in ("random", "value_iteration", "q_learning")
    ]
    exact = {r["agent"]: float(r["exact"] or "nan") for r in rows}
    assert exact["value_iteration"] == pytest.approx(0.875, abs=1e-12)  # 0.75 * 1 + 0.25 * 0.5
    assert exact["q_learning"] <= 0.875 + 1e-12
    page = (out / "results.md").read_text()
    assert "| value_iteration | 2 | 0.875 [0.875, 0.875] | 1.000 |" in page
    assert (out / "ToyTwoTurn-v0.png").stat().st_size > 10_000

    done = next((out / "runs" / "ToyTwoTurn-v0" / "q_learning").glob("*/result.json"))
    lost = out / "runs" / "ToyTwoTurn-v0" / "random" / "seed-001" / "result.json"
    before, table = done.stat().st_mtime_ns, (out / "results.csv").read_text()
    lost.unlink()
    assert run(*command) == 0
    assert done.stat().st_mtime_ns == before
    assert lost.exists()
    without_times = [[r[k] for k in ("agent", "score", "exact")] for r in rows]
    with (out / "results.csv").open() as file:
        again = [[r[k] for k in ("agent", "score", "exact")] for r in csv.DictReader(file)]
    assert again == without_times, table
    capsys.readouterr()


def test_another_budget_is_another_run(tmp_path: Path) -> None:
    task = tasks_of("text", envs=["ToyTwoTurn-v0"])[0]
    jobs = [make_jobs([task], ["random"], num_seeds=1, budget=n, out=tmp_path)[0] for n in (10, 20)]
    run_job(jobs[0])
    assert read_result(jobs[0]) is not None
    assert read_result(jobs[1]) is None


class Dying(RandomAgent):
    """Ends its process while it learns."""

    name = "dying"

    def learn(self, *args: Any, **kwargs: Any) -> None:
        import os

        os._exit(3)


class Raising(RandomAgent):
    """Raises while it learns."""

    name = "raising"

    def learn(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no luck today")


def test_failed_runs_are_shown_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(AGENTS, "raising", f"{__name__}:Raising")
    task = Task(env=TOY, suite="text", budget=100, agents={"random": {}, "raising": {}})
    job = make_jobs([task], ["raising"], num_seeds=1, budget=None, out=tmp_path)[0]
    monkeypatch.setattr("textgym_agents.run.agent_run.agent_class", lambda name: Raising)
    run_job(job)
    result = read_result(job)
    assert result is not None
    assert (result.status, result.error) == ("failed", "RuntimeError: no luck today")
    good = make_result("random", 0, 0.02)
    page = as_markdown([task], [good, result], {"ToyTwoTurn-v0": find_scale(task, [good])})
    assert "| raising | 1, 1 failed | failed |" in page
    assert "Failed: raising, seed 0: RuntimeError: no luck today" in page

    monkeypatch.undo()  # the agent exists no more: another failure, so it was tried again
    found: list[RunResult] = []
    run_jobs([job], num_workers=1, time_limit=60, on_result=lambda _, r: found.append(r))
    assert "no agent named 'raising'" in found[-1].error


def test_a_run_that_takes_too_long_fails_alone(tmp_path: Path) -> None:
    task = Task(env=TOY, suite="text", budget=50_000_000, agents={"q_learning": {}, "random": {}})
    jobs = make_jobs([task], ["q_learning", "random"], num_seeds=1, budget=None, out=tmp_path)
    found: dict[str, RunResult] = {}
    run_jobs(
        jobs, num_workers=1, time_limit=5.0,
        on_result=lambda job, r: found.update({job.config.agent: r}),
    )  # fmt: skip
    assert found["q_learning"].error.startswith("timeout: ")
    assert found["random"].status == "done"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--budget", "-5"), "--budget is -5; it must be a positive integer"),
        (("--seeds", "0"), "--seeds is 0; it must be a positive integer"),
        (("--suite", "clasic"), "no suite named 'clasic'. Did you mean 'classic'?"),
        (("--agents", "q_lerning"), "no task here is for 'q_lerning'. Did you mean 'q_learning'?"),
        (("--envs", "CartPol-v1"), "no task 'CartPol-v1'. Did you mean 'CartPole-v1'?"),
    ],
)
def test_wrong_arguments(run: Run, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=message.replace("?", r"\?")):
        run(*arguments)


def test_every_task_has_settings_that_its_agents_take() -> None:
    for task in TASKS:
        for agent, settings in task.agents.items():
            assert make_agent(agent, settings).config is not None
    assert chosen_agents(TASKS, []) == list(
        dict.fromkeys(agent for task in TASKS for agent in task.agents)
    )
    assert settings_for("ppo", "CartPole-v1") == suites.TASKS[0].agents["ppo"]
    assert settings_for("ppo", "Nowhere-v0") == {}
    assert task_of("Taxi-v3") == task_of("Taxi-v4") == tasks_of("classic", envs=["Taxi-v4"])[0]
    assert task_of("textgym:ToyText-v0") == task_of("ToyText-v0") != task_of("Nowhere-v0")


def test_ours_and_theirs_have_the_same_numbers() -> None:
    names = {
        "num_steps": "n_steps", "batch_size": "batch_size", "update_epochs": "n_epochs",
        "gamma": "gamma", "gae_lambda": "gae_lambda", "entropy_coef": "ent_coef",
    }  # fmt: skip
    pairs = [task.agents for task in TASKS if "sb3:ppo" in task.agents]
    assert len(pairs) >= 4
    for agents in pairs:
        ours, theirs = agents["ppo"], agents["sb3:ppo"]
        settings: Any = theirs["settings"]
        assert ours["num_envs"] == theirs["num_envs"]
        assert {b: ours[a] for a, b in names.items()} == {b: settings[b] for b in names.values()}


def test_job_and_result_survive_json(tmp_path: Path) -> None:
    job = Job(config=make_result("ppo", 3, 1.0).config, path=tmp_path)
    assert Job.model_validate_json(job.model_dump_json()) == job
    result = make_result("ppo", 3, 1.0, curve=((10, 0.5), (20, 1.0)), train_seconds=2.0)
    assert RunResult.model_validate(json.loads(result.model_dump_json())) == result
    assert result.steps_per_second == 10.0


def test_random_agent_survives_saving(tmp_path: Path) -> None:
    agent = RandomAgent()
    with pytest.raises(ConfigError, match="no action space yet"):
        agent.act(None)
    agent.learn(TOY, total_steps=1)
    agent.save(tmp_path)
    again = RandomAgent.load(tmp_path)
    assert {again.act(None) for _ in range(200)} == set(range(7))


@pytest.mark.parametrize(
    ("agent", "share"), [("value_iteration", 1.0), ("q_learning", 0.99), ("ppo", 0.97)]
)
def test_agents_reach_their_share_of_the_optimum(agent: str, share: float) -> None:
    task = tasks_of("text", envs=["ToyTextSmall-v0"])[0]
    learner = make_agent(agent, task.agents[agent])
    learner.learn(task.env, total_steps=task.budget, seed=0)
    config = AgentRunConfig(agent=agent, env=task.env)
    found = exact_return(learner, config)
    assert found is not None
    assert share <= found <= 1.0 + 1e-9
