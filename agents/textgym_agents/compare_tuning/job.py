"""One run of a comparison in its own process: `python -m textgym_agents.compare_tuning.job JOB`.

The peak memory of a process is that of all it has ever done, so no two runs share one. What every
mode loads sooner or later is loaded before the memory is first looked at.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib.figure  # noqa: F401  # loaded before the memory is looked at, as all of these
import peft  # noqa: F401
import torch
from transformers.utils import logging as transformers_logging

from textgym.errors import TextGymError
from textgym_agents.compare_tuning.jobs import RESULT_FILE, START, Job, TuningResult
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.build import build_agent
from textgym_agents.lm.cold_start import ColdStart, make_demonstrator
from textgym_agents.lm.envs import make_envs
from textgym_agents.lm.modes import count_parameters
from textgym_agents.lm.trainer import learn
from textgym_agents.memory.process import peak_bytes, resident_bytes
from textgym_agents.run.directory import RunDirectory, rows_of, write_atomically


def do_job(job: Job) -> TuningResult:
    """Do a run, or what is left of it."""
    start_bytes = resident_bytes()
    if job.name == START:
        _do_start(job)
        return TuningResult(config=job.config, status="done")
    run = RunDirectory(job.run_path)
    checkpoint = run.latest_checkpoint()
    agent = build_agent(job.config, checkpoint=checkpoint)
    learn(agent, run.path, resume_from=checkpoint)
    return _measured(job, agent, run, start_bytes)


def _do_start(job: Job) -> None:
    """Do the cold start of a configuration and keep the policy that it leaves."""
    config, cold_start = job.config, job.config.cold_start
    assert cold_start is not None
    agent = build_agent(config)
    envs = make_envs(config.env, 1)
    steps = ColdStart(
        agent.network,
        cold_start,
        make_demonstrator(cold_start, getattr(envs.unwrapped, "pool", None)),
        seed=config.seed,
        max_length=config.rollout.max_length,
    )
    for number in range(cold_start.steps):
        steps.step(number)
    envs.close()
    agent.save(job.policy_path)


def _measured(job: Job, agent: PPOAgent, run: RunDirectory, start_bytes: int) -> TuningResult:
    rows = run.read_metrics()
    updates, evaluations = rows_of(rows, "ppo"), rows_of(rows, "evaluation")
    trained = [*agent.network.trainable(), *agent.network.value_head.parameters()]
    is_gpu = agent.network.device.type == "cuda"
    return TuningResult(
        config=job.config,
        status="done",
        num_parameters=count_parameters(agent.network.lm),
        num_trainable=sum(p.numel() for p in agent.network.trainable()),
        tuned_bytes=sum(p.numel() * p.element_size() for p in trained),
        start_bytes=0 if is_gpu else start_bytes,
        peak_bytes=torch.cuda.max_memory_allocated() if is_gpu else peak_bytes(),
        rollout_seconds=median(row["time/rollout_seconds"] for row in updates),
        update_seconds=median(row["time/update_seconds"] for row in updates),
        rewards=tuple(
            (row["iteration"], row["rollout/reward"])
            for row in updates
            if row["rollout/reward"] is not None
        ),
        before=_evaluation(evaluations[0]),
        after=_evaluation(evaluations[-1]),
    )


def _evaluation(row: dict[str, Any]) -> dict[str, float | None]:
    return {k: v for k, v in row.items() if k.startswith("evaluation/")}


def main(path: Path) -> int:
    """Do the job of a file and write its result beside it, whatever comes of it."""
    transformers_logging.disable_progress_bar()
    job = Job.model_validate_json(path.read_text(encoding="utf-8"))
    try:
        result = do_job(job)
    except KeyboardInterrupt:
        return 130
    except TextGymError as error:
        result = TuningResult(config=job.config, status="failed", error=str(error))
    except Exception as error:  # an environment's or a reward's own: the others go on
        reason = f"{type(error).__name__}: {error}"
        result = TuningResult(config=job.config, status="failed", error=reason)
    write_atomically(job.path / RESULT_FILE, result.model_dump_json(indent=2))
    return int(result.status == "failed")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
