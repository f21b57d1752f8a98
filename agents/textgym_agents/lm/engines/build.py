"""From a configuration to its engine."""

from __future__ import annotations

from textgym_agents.lm.config import TrainConfig
from textgym_agents.lm.engine import GenerationEngine, TransformersEngine
from textgym_agents.lm.network import PolicyValueNetwork


def build_engine(network: PolicyValueNetwork, config: TrainConfig) -> GenerationEngine:
    """Return the engine that a configuration names; it starts when it is first needed."""
    engine = config.engine
    if engine.kind == "vllm":
        from textgym_agents.lm.engines.vllm_process import VllmEngine, check_process

        check_process()
        return VllmEngine(network, engine, max_length=config.rollout.max_length)
    if engine.kind == "vllm_server":
        from textgym_agents.lm.engines.vllm_server import VllmServerEngine

        return VllmServerEngine(network, engine)
    return TransformersEngine(network)
