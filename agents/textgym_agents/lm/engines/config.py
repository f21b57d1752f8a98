"""Which engine samples, and how it is kept up to date."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from textgym_agents.core.config import Config

SyncMode = Literal["auto", "merged", "adapter"]


class TransformersEngineConfig(Config):
    """Sample from the network that is being trained."""

    kind: Literal["transformers"] = "transformers"


class VllmEngineConfig(Config):
    """vLLM in the trainer's process, with weights of its own that follow the trainer's."""

    kind: Literal["vllm"] = "vllm"
    sync: SyncMode = "auto"
    """What is sent after an update: all weights, an adapter `merged` into them, or the `adapter`
    alone. `auto` sends an adapter alone to a bfloat16 engine, where merging would round the update
    away, and all weights otherwise."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the engine's weights; `auto` is what `policy.precision` computes in."""
    max_num_seqs: PositiveInt = 256
    """Sequences that are decoded side by side."""
    kv_cache_gib: PositiveFloat | None = None
    """Room for keys and values; None takes what `max_num_seqs` of full length need on a CPU, at
    most 4 GiB, and `gpu_memory_utilization` on a GPU."""
    gpu_memory_utilization: float = Field(default=0.4, gt=0, lt=1)
    """Share of a GPU that the engine may fill, weights included; the trainer has the rest."""
    eager: bool | None = None
    """Run without compilation and CUDA graphs; None does so on a CPU."""
    prefix_caching: bool = False
    """Keep keys and values of shared prefixes until the weights change. A resumed run then no
    longer repeats an undisturbed one bit for bit."""


class VllmServerEngineConfig(Config):
    """vLLM servers, each started with `textgym vllm-server`."""

    kind: Literal["vllm_server"] = "vllm_server"
    urls: tuple[str, ...] = Field(default=("http://127.0.0.1:8000",), min_length=1)
    """Where they are; prompts are shared among those that answer."""
    sync: SyncMode = "auto"
    """As of `vllm`; `auto` goes by `policy.precision`."""
    sync_folder: str | None = None
    """Where weights are handed over: a folder that the trainer and every server can reach. None
    takes memory (/dev/shm) or the folder for temporary files of one machine."""
    timeout_seconds: PositiveFloat = 600.0
    """Longest wait for one answer."""
    reconnect_seconds: NonNegativeFloat = 30.0
    """How long to wait for a server when none answers."""
    retries: NonNegativeInt = 2
    """How often a completion that was lost with its server is asked for again."""
    concurrency: PositiveInt = 256
    """Requests in flight per server."""


EngineConfig = Annotated[
    TransformersEngineConfig | VllmEngineConfig | VllmServerEngineConfig,
    Field(discriminator="kind"),
]
