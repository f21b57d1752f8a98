"""A run whose losses are not finite stops; its weights stay, and the batch can be read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from textgym_agents.core.buffer import Batch
from textgym_agents.core.guard import NotFiniteError
from textgym_agents.lm.bad_batch import batch_records, spoilt_parameters
from textgym_agents.lm.build import build_agent
from textgym_agents.lm.config import TrainConfig
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.trainer import learn
from textgym_agents.run.directory import RunDirectory

CONFIG: dict[str, Any] = {
    "iterations": 9,
    "checkpoint_every": 1,
    "env": {"prompts": "arithmetic", "reward": "math"},
    "rollout": {"num_episodes": 4, "num_envs": 4, "max_new_tokens": 4, "max_length": 32},
    "ppo": {"update_epochs": 2, "optimizer": {"max_skipped_steps": 3}},
    "evaluation": {"num_episodes": 2},
}


def spoil(parameter: Tensor, *, after: int) -> None:
    """Make every gradient of a parameter nan after the first ones."""
    calls: list[int] = []

    def hook(gradient: Tensor) -> Tensor:
        calls.append(1)
        return gradient if len(calls) <= after else gradient * math.nan

    parameter.register_hook(hook)


def test_the_run_stops_and_names_the_batch(tmp_path: Path) -> None:
    agent = build_agent(TrainConfig.model_validate(CONFIG))
    spoil(agent.network.value_head.bias, after=2)  # the third step, in the second iteration
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(NotFiniteError) as raised:
        learn(agent, run.path)
    path = run.path / "not-finite-iteration-0000003.jsonl"
    said = str(raised.value)
    assert said.startswith("iteration-0000003: the loss or its gradient was not finite in 3 optim")
    assert f"The batch is in {path}" in said
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 4
    actions = [token for row in rows for token in row["tokens"] if "now" in token]
    assert actions
    assert all(math.isfinite(token["now"]["logprobs"]) for token in actions)
    skipped = [row["ppo/skipped_steps"] for row in run.read_metrics() if row["phase"] == "ppo"]
    assert skipped == [0.0, 2.0]
    assert run.latest_checkpoint() == run.checkpoint_path(2)
    state = json.loads((run.checkpoint_path(2) / "state.json").read_text())
    assert state["skipped_in_a_row"] == 2
    assert not spoilt_parameters(agent.network)


def test_a_cold_start_stops_too(tmp_path: Path) -> None:
    cold_start = {"steps": 20, "batch_size": 4, "max_skipped_steps": 2}
    agent = build_agent(TrainConfig.model_validate(CONFIG | {"cold_start": cold_start}))
    spoil(agent.network.trainable()[0], after=3)
    with pytest.raises(NotFiniteError, match=r"cold-start-0000005: .* in 2 optimiser steps"):
        learn(agent, tmp_path / "run")
    assert not spoilt_parameters(agent.network)
    path = tmp_path / "run" / "not-finite-cold-start-0000005.jsonl"
    assert len(path.read_text().splitlines()) == 4


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    rate = {"ppo": {"optimizer": {"learning_rate": 1e38}, "value": {"lr_mult": 10.0}}}
    agent = build_agent(TrainConfig.model_validate(CONFIG | rate))
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(NotFiniteError, match=r"iteration-0000001: the update was finite and left"):
        learn(agent, run.path)
    assert run.latest_checkpoint() == run.checkpoint_path(0)


def test_the_records_show_where_it_is(
    make_policy: Callable[..., PolicyValueNetwork], random_batch: Callable[..., Batch]
) -> None:
    network, batch = make_policy(), random_batch()
    batch.advantages[batch.action_mask] = math.inf
    with torch.no_grad():
        network.value_head.bias.fill_(math.nan)
    assert spoilt_parameters(network) == ["value_head.bias"]
    rows = json.loads(json.dumps(batch_records(network, batch, 40), allow_nan=False))
    for i, row in enumerate(rows):
        length = int(batch.attention_mask[i].sum())
        assert [token["id"] for token in row["tokens"]] == batch.input_ids[i, :length].tolist()
        assert row["text"] == "".join(token["text"] for token in row["tokens"])
        for j, token in enumerate(row["tokens"]):
            assert ("now" in token) == bool(batch.action_mask[i, j])
            if "now" in token:
                assert token["advantages"] == "inf"
                assert token["now"]["values"] == "nan"
                assert token["logprobs"] == pytest.approx(float(batch.logprobs[i, j]))
                assert token["now"]["logprobs"] < 0
