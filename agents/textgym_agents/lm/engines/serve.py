"""The command that starts a vLLM server which a trainer can keep up to date."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch

from textgym.seeding import Purpose, derive_seed
from textgym_agents.lm.config import PolicyConfig
from textgym_agents.lm.engines import model_files
from textgym_agents.lm.engines.installation import require_vllm
from textgym_agents.lm.engines.weights import weights_of
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.policy_files import ADAPTER_CONFIG_FILE, VALUE_HEAD_FILE, find_policy
from textgym_agents.lm.shapes import BUILT_IN

WORKER = "textgym_agents.lm.engines.vllm_worker"
SERVER = "vllm.entrypoints.openai.api_server"
CPU_CACHE_GIB = 1.0


class ServerOptions(NamedTuple):
    """What a server is started with."""

    model: str
    """A built-in model, a folder, a hub id, or a run."""
    host: str = "127.0.0.1"
    """Whoever reaches it can replace its weights."""
    port: int = 8000
    dtype: str = "auto"
    max_length: int = 2048
    adapter_rank: int | None = None
    """Room for adapters of this rank; None takes merged weights only."""
    kv_cache_gib: float | None = None
    extra: tuple[str, ...] = ()
    """More arguments of vLLM."""


def server_command(options: ServerOptions) -> tuple[list[str], dict[str, str]]:
    """Return the arguments and the environment of a server.

    Raises:
        ConfigError: vLLM is not installed, or the model cannot be served.
    """
    require_vllm("textgym vllm-server")
    has_gpu = torch.cuda.is_available()
    arguments = [
        *("--model", plain_model(options.model), "--served-model-name", options.model),
        *("--host", options.host, "--port", str(options.port)),
        *("--dtype", options.dtype, "--max-model-len", str(options.max_length)),
        *("--logprobs-mode", "processed_logprobs", "--generation-config", "vllm"),
        *("--logits-processors", f"{WORKER}:LegalIds"),
        *("--worker-extension-cls", f"{WORKER}.WorkerExtension"),
        "--enable-scale-out",  # the interface that takes and gives token ids
        "--no-enable-prefix-caching",
        "--disable-log-stats",
    ]
    cache = options.kv_cache_gib or (None if has_gpu else CPU_CACHE_GIB)
    if cache is not None:
        arguments += ["--kv-cache-memory-bytes", str(int(cache * model_files.GIB))]
    if options.adapter_rank is not None:
        room = model_files.adapter_room(options.adapter_rank)
        arguments += ["--enable-lora", "--max-loras", "1", "--max-lora-rank", str(room)]
    if not has_gpu:
        budget = model_files.step_tokens(options.max_length)
        arguments += ["--enforce-eager", "--distributed-executor-backend", "uni"]
        arguments += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", str(budget)]
    environment = _environment(has_gpu=has_gpu, has_adapters=options.adapter_rank is not None)
    return [sys.executable, "-m", SERVER, *arguments, *options.extra], environment


def _environment(*, has_gpu: bool, has_adapters: bool) -> dict[str, str]:
    ours = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_USE_V2_MODEL_RUNNER": "0"}
    if has_adapters:
        ours["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    if not has_gpu:  # two processes instead of three, no pinned threads, nothing to compile
        ours |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "TORCHDYNAMO_DISABLE": "1",
        }
    return {**os.environ, **ours}


def plain_model(model: str) -> str:
    """Return a folder or hub id that vLLM can open.

    A policy's folder is not one: it has a value head, and may be an adapter. What must be written
    for the server stays in the folder for temporary files.
    """
    saved = find_policy(model)
    if saved is None and model not in BUILT_IN:
        return model
    folder = Path(tempfile.mkdtemp(prefix="textgym-model-"))
    if saved is None or (saved / ADAPTER_CONFIG_FILE).exists():
        _write_merged(model if saved is None else str(saved), folder)
    else:
        for file in saved.iterdir():
            if file.name != VALUE_HEAD_FILE:
                (folder / file.name).symlink_to(file.resolve())
    return str(folder)


def _write_merged(model: str, folder: Path) -> None:
    seed = derive_seed(0, Purpose.MODEL)
    network = PolicyValueNetwork.from_config(PolicyConfig(model=model), seed=seed)
    network.lm.save_pretrained(folder, state_dict=dict(weights_of(network, with_adapter=True)))
    network.tokenizer.save_pretrained(folder)
