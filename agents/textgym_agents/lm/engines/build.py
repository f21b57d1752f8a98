"""From a configuration to its engine."""

from __future__ import annotations

from textgym_agents.lm.config import TrainConfig
from textgym_agents.lm.engine import GenerationEngine, TransformersEngine
from textgym_agents.lm.network import PolicyValueNetwork


def build_engine(network: PolicyValueNetwork, config: TrainConfig) -> GenerationEngine:
    """Return the engine that a configuration names; its first sync starts it.

    Raises:
        ConfigError: it is not installed, or cannot run the model.
        EngineError: no server answers.
    """
    if config.engine.kind == "vllm":
        from textgym_agents.lm.engines.vllm_process import VllmEngine

        engine = VllmEngine(network, config.engine, max_length=config.rollout.max_length)
        engine.check()
        return engine
    if config.engine.kind == "vllm_server":
        from textgym_agents.lm.engines.vllm_server import VllmServerEngine

        servers = VllmServerEngine(network, config.engine)
        servers.check()
        return servers
    return TransformersEngine(network)
