"""Agents by name, and the one file that says which agent a saved folder holds.

A saved agent is a folder with `agent.json` (its name and configuration) beside whatever else the
agent writes. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from textgym.errors import ConfigError, UnknownNameError, did_you_mean
from textgym.validation import explain
from textgym_agents.agent import Agent, AgentConfig

FILE_NAME = "agent.json"
FORMAT = 1
AGENTS: dict[str, str] = {
    "random": "textgym_agents.baselines.random_agent:RandomAgent",
    "policy_iteration": "textgym_agents.tabular.planners:PolicyIterationAgent",
    "value_iteration": "textgym_agents.tabular.planners:ValueIterationAgent",
    "monte_carlo": "textgym_agents.tabular.monte_carlo:MonteCarloAgent",
    "sarsa": "textgym_agents.tabular.temporal_difference:SarsaAgent",
    "expected_sarsa": "textgym_agents.tabular.temporal_difference:ExpectedSarsaAgent",
    "q_learning": "textgym_agents.tabular.temporal_difference:QLearningAgent",
    "reinforce": "textgym_agents.classic.agents:ReinforceAgent",
    "actor_critic": "textgym_agents.classic.agents:ActorCriticAgent",
    "ppo": "textgym_agents.classic.agents:ClassicPPOAgent",
    "lm:ppo": "textgym_agents.lm.token_agent:LanguageModelAgent",
    "sb3:ppo": "textgym_agents.classic.sb3.agents:SB3PPOAgent",
    "sb3:a2c": "textgym_agents.classic.sb3.agents:SB3A2CAgent",
    "sb3:dqn": "textgym_agents.classic.sb3.agents:SB3DQNAgent",
    "sb3:trpo": "textgym_agents.classic.sb3.agents:SB3TRPOAgent",
    "sb3:maskable_ppo": "textgym_agents.classic.sb3.agents:SB3MaskablePPOAgent",
}
"""Name to `module:Class`; the module is imported when the agent is asked for."""

ConfigT = TypeVar("ConfigT", bound=AgentConfig)


def agent_class(name: str) -> type[Agent]:
    """Return the class of an agent.

    Raises:
        UnknownNameError: there is no agent of this name.
    """
    if name not in AGENTS:
        raise UnknownNameError(
            f"no agent named '{name}'.{did_you_mean(name, AGENTS)} There are: {', '.join(AGENTS)}."
        )
    module, _, attribute = AGENTS[name].partition(":")
    found: type[Agent] = getattr(importlib.import_module(module), attribute)
    return found


def load_agent(path: str | Path) -> Agent:
    """Load whatever agent a folder holds."""
    return agent_class(read_manifest(path)["agent"]).load(path)


def write_manifest(path: str | Path, name: str, config: AgentConfig) -> Path:
    """Make the folder, write `agent.json` into it and return the folder."""
    folder = Path(path)
    manifest = {"format": FORMAT, "agent": name, "config": config.model_dump(mode="json")}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(manifest, indent=2) + "\n"
        (folder / FILE_NAME).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"an agent cannot be saved in {folder}: {error.strerror}") from None
    return folder


def read_manifest(path: str | Path) -> dict[str, Any]:
    """Return `format`, `agent` and `config` of a saved agent.

    Raises:
        ConfigError: the folder holds no agent, or one of another format.
    """
    file = Path(path) / FILE_NAME
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} holds no saved agent: {file}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{file} is no JSON: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ConfigError(f"{file} is no agent of format {FORMAT}; save it again")
    if not isinstance(manifest.get("agent"), str) or not isinstance(manifest.get("config"), dict):
        raise ConfigError(f"{file} does not name an agent and its configuration")
    return manifest


def read_config(path: str | Path, name: str, model: type[ConfigT]) -> ConfigT:
    """Return the configuration of a saved agent, which must be the one called `name`."""
    manifest = read_manifest(path)
    if manifest["agent"] != name:
        raise ConfigError(
            f"{path} holds the agent '{manifest['agent']}', not '{name}'; load it with "
            "textgym_agents.agent_files.load_agent"
        )
    try:
        return model.model_validate(manifest["config"])
    except ValidationError as error:
        lines = "; ".join(line for _, line in explain(error, model, manifest["config"]))
        raise ConfigError(f"{Path(path) / FILE_NAME}: {lines}") from None
