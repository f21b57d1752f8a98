"""From a configuration, or a checkpoint of its run, to the agent that is trained."""

from __future__ import annotations

from pathlib import Path

import torch

from textgym.errors import ConfigError
from textgym.seeding import Purpose, derive_seed
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.config import FullMode, TrainConfig
from textgym_agents.lm.engines.build import build_engine
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.policy_files import POLICY_FOLDER
from textgym_agents.processes import ONE, Processes

MAX_ONE_THREAD_PARAMETERS = 20_000_000


def build_agent(
    config: TrainConfig, *, checkpoint: Path | None = None, processes: Processes = ONE
) -> PPOAgent:
    """Build the agent of a configuration, or of a checkpoint of its run.

    With a cold start the whole model learns first, and an adapter is added afterwards. Every
    process builds the same.

    Raises:
        ConfigError: something that the configuration names is not there, or the engine cannot
            serve several processes.
    """
    _check_engine(config, processes)
    policy, device = config.policy, find_device(config.device)
    if checkpoint is not None:
        network = PolicyValueNetwork.load(checkpoint / POLICY_FOLDER)
    else:
        if config.cold_start is not None:
            policy = policy.model_copy(update={"mode": FullMode()})
        seed = derive_seed(config.seed, Purpose.MODEL)
        network = PolicyValueNetwork.from_config(policy, seed=seed)
    set_threads(config.threads, network)
    network = network.to(device)
    return PPOAgent(network, config, engine=build_engine(network, config), processes=processes)


def _check_engine(config: TrainConfig, processes: Processes) -> None:
    if processes.size > 1 and config.engine.kind != "transformers":
        raise ConfigError(
            f"engine.kind: '{config.engine.kind}' mirrors the policy of one process, and there are "
            f"{processes.size}; sample with 'transformers', or start the run without a launcher"
        )


def find_device(device: str) -> str:
    """Return `cpu` or `cuda`.

    Raises:
        ConfigError: a GPU was asked for, and there is none.
    """
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise ConfigError(
            "device is 'cuda', but torch finds no GPU that it can use; take 'auto' or 'cpu'. "
            "`textgym doctor` says what this machine has"
        )
    return ("cuda" if has_gpu else "cpu") if device == "auto" else device


def set_threads(threads: int | None, network: PolicyValueNetwork) -> None:
    """Set torch's threads: on a small model a second thread costs more than it brings."""
    if threads is None and sum(p.numel() for p in network.parameters()) < MAX_ONE_THREAD_PARAMETERS:
        threads = 1
    if threads is not None:
        torch.set_num_threads(threads)
