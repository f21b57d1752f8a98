"""vLLM in the trainer's process: its own copy of the weights, sent as plain tensors."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from textgym.errors import ConfigError
from textgym_agents.lm.engine import Generation
from textgym_agents.lm.engines import model_files
from textgym_agents.lm.engines.canary import Canary
from textgym_agents.lm.engines.config import VllmEngineConfig
from textgym_agents.lm.engines.containment import contained
from textgym_agents.lm.engines.errors import EngineError
from textgym_agents.lm.engines.installation import require_vllm
from textgym_agents.lm.engines.sampling import (
    accept,
    draw_seeds,
    sampling_settings,
    scoring_settings,
)
from textgym_agents.lm.engines.weights import check_finite, save_adapter, sends_adapter, weights_of
from textgym_agents.lm.network import PolicyValueNetwork

NAME = "the vLLM engine"
SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process: ready three times sooner
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # `LegalIds` has the interface of the first one
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the trainer's threads are not to be pinned
}
"""Environment that vLLM was tested with here."""


class VllmEngine:
    """Samples with vLLM, which the first sync starts.

    Args:
        network: the policy that is mirrored.
        config: of the engine.
        max_length: of prompt and completion together.
    """

    def __init__(
        self, network: PolicyValueNetwork, config: VllmEngineConfig, *, max_length: int
    ) -> None:
        self.network = network
        self.config = config
        self.max_length = max(max_length, model_files.MIN_LENGTH)
        self.policy_version = 0
        self.canary = Canary(network)
        self._llm: Any = None
        self._adapter: Any = None
        self._num_adapters = 0
        self._is_synced = False
        self._is_proven = False

    def check(self) -> None:
        """Raise unless vLLM can run the policy here; nothing is started.

        Raises:
            ConfigError: it is not installed, cannot compute the model's attention, or cannot run in
                this process.
        """
        check_process()
        with contained():
            from vllm.platforms import current_platform

            if not current_platform.is_cpu():
                return
            from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

            known = CPUAttentionBackend.get_supported_head_sizes()
        size = model_files.head_size(self.network)
        if size not in known:
            raise ConfigError(
                f"engine.kind 'vllm': on a CPU vLLM has attention heads of {known} numbers, and "
                f"this model's have {size}; take policy.model=small or the transformers engine"
            )

    def sync(self, policy_version: int) -> dict[str, float]:
        """Give vLLM the trainer's weights, and prove that they arrived.

        Raises:
            EngineError: the weights are not finite, or the canary found another policy.
        """
        started = time.perf_counter()
        self._is_synced = False
        check_finite(self.network)
        with contained():
            if self._llm is None:
                self._start()
            if not (self._is_proven and self._sends_adapter):
                self._send_weights()
            if self._sends_adapter:
                self._send_adapter()
            self._llm.reset_prefix_cache()
            error = self.canary.check(self._score, NAME)
            if not self._is_proven:
                self.canary.check_sampler(self._sample_alike, NAME)
        self.policy_version, self._is_synced, self._is_proven = policy_version, True, True
        return {
            "engine/policy_version": float(policy_version),
            "engine/canary_error": error,
            "time/sync_seconds": time.perf_counter() - started,
        }

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: Sequence[int],
        temperature: float,
        generator: torch.Generator,
    ) -> list[Generation]:
        """Sample one completion per prompt; each has a seed of its own from the generator."""
        if not self._is_synced:
            self.sync(self.policy_version)
        seeds = draw_seeds(len(prompts), generator)
        with contained():
            return self._sample(prompts, max_new_tokens, seeds, temperature)

    def close(self) -> None:
        """Stop vLLM and free its memory."""
        if self._llm is None:
            return
        with contained():
            self._llm.llm_engine.engine_core.shutdown()
        self._llm = self._adapter = None
        self._is_synced = self._is_proven = False
        gc.collect()  # the weights are in cycles
        self._folder.cleanup()

    # Start ---------------------------------------------------------------------------------------

    @property
    def _dtype(self) -> str:
        if self.config.dtype != "auto":
            return self.config.dtype
        return "float32" if self.network.config.precision == "float32" else "bfloat16"

    @property
    def _sends_adapter(self) -> bool:
        is_bf16 = self._dtype == "bfloat16"
        return sends_adapter(self.network, self.config.sync, is_bf16=is_bf16)

    def _start(self) -> None:
        """Start vLLM on weights that mean nothing; the caller sends others at once."""
        self.check()
        os.environ.update(SETTINGS)
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        from vllm import LLM
        from vllm.platforms import current_platform

        from textgym_agents.lm.engines.vllm_worker import LegalIds, set_illegal_ids

        arguments = self._arguments()
        if current_platform.is_cpu():
            arguments |= self._cpu_arguments()
        self._folder = tempfile.TemporaryDirectory(prefix="textgym-vllm-")
        model = model_files.write_config(self.network, Path(self._folder.name))
        try:
            self._llm = LLM(model, logits_processors=[LegalIds], **arguments)
        except (RuntimeError, ValueError, NotImplementedError) as error:
            raise EngineError(f"vLLM cannot serve this model: {error}") from error
        self._llm.collective_rpc(set_illegal_ids, args=(model_files.illegal_ids(self.network),))

    def _arguments(self) -> dict[str, Any]:
        config = self.config
        arguments: dict[str, Any] = {
            "load_format": "dummy",
            "skip_tokenizer_init": True,
            "generation_config": "vllm",  # not the settings that ship with a model
            "logprobs_mode": "processed_logprobs",  # of what was sampled from
            "dtype": self._dtype,
            "max_model_len": self.max_length,
            "max_num_seqs": config.max_num_seqs,
            "gpu_memory_utilization": config.gpu_memory_utilization,
            "enable_prefix_caching": config.prefix_caching,
            "enforce_eager": bool(config.eager),
            "disable_log_stats": True,
            "seed": 0,
        }
        if config.kv_cache_gib is not None:
            arguments["kv_cache_memory_bytes"] = int(config.kv_cache_gib * model_files.GIB)
        if self._sends_adapter:
            room = model_files.adapter_room(self.network.peft.peft_config["default"].r)
            arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": room}
        return arguments

    def _cpu_arguments(self) -> dict[str, Any]:
        num_sequences = self.config.max_num_seqs
        arguments: dict[str, Any] = {
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": model_files.step_tokens(self.max_length, num_sequences),
        }
        if self.config.eager is not False:
            # One small kernel of the sampler would be compiled all the same, in seconds.
            torch._dynamo.config.disable = True
            arguments["enforce_eager"] = True
        if self.config.kv_cache_gib is None:
            arguments["kv_cache_memory_bytes"] = model_files.cache_bytes(
                self.network,
                max_length=self.max_length,
                num_sequences=num_sequences,
                bytes_per_number=4 if self._dtype == "float32" else 2,
            )
        return arguments

    # Weights -------------------------------------------------------------------------------------

    def _send_weights(self) -> None:
        from textgym_agents.lm.engines.vllm_worker import load_weights

        weights = weights_of(self.network, with_adapter=not self._sends_adapter)
        try:
            self._llm.collective_rpc(load_weights, args=(weights,))
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise EngineError(f"vLLM did not take the weights: {what}") from error

    def _send_adapter(self) -> None:
        """Load the adapter under a name of its own: one that has a used name would stay stale."""
        from vllm.lora.request import LoRARequest

        self._num_adapters += 1
        folder = Path(self._folder.name) / f"adapter-{self._num_adapters}"
        save_adapter(self.network, folder)
        request = LoRARequest(folder.name, self._num_adapters, str(folder))
        if self._adapter is not None:
            self._llm.llm_engine.remove_lora(self._adapter.lora_int_id)
            shutil.rmtree(self._adapter.lora_path)
        if not self._llm.llm_engine.add_lora(request):
            raise EngineError("vLLM did not take the adapter")
        self._adapter = request

    # Calls ---------------------------------------------------------------------------------------

    def _sample(
        self,
        prompts: Sequence[Sequence[int]],
        limits: Sequence[int],
        seeds: Sequence[int],
        temperature: float,
    ) -> list[Generation]:
        from vllm import SamplingParams

        stop_ids = sorted(self.network.stop_ids)
        settings = [
            SamplingParams(
                **sampling_settings(
                    max_tokens=limit, temperature=temperature, seed=seed, stop_ids=stop_ids
                ),
                flat_logprobs=True,
            )
            for limit, seed in zip(limits, seeds, strict=True)
        ]
        answers = [answer.outputs[0] for answer in self._call(prompts, settings)]
        illegal = None if self.network.illegal is None else self.network.illegal.cpu()
        return [
            accept(
                answer.token_ids,
                answer.logprobs.logprobs,
                answer.finish_reason,
                policy_version=self.policy_version,
                illegal=illegal,
            )
            for answer in answers
        ]

    def _sample_alike(
        self, prompts: list[list[int]], max_tokens: int, temperature: float
    ) -> list[Generation]:
        numbers = range(len(prompts))
        return self._sample(prompts, [max_tokens for _ in numbers], list(numbers), temperature)

    def _score(self, sequences: list[list[int]]) -> list[list[float]]:
        from vllm import SamplingParams

        settings = SamplingParams(**scoring_settings())
        answers = self._call(sequences, [settings] * len(sequences))
        return [
            [scores[ids[j]].logprob for j, scores in enumerate(answer.prompt_logprobs) if j > 0]
            for ids, answer in zip(sequences, answers, strict=True)
        ]

    def _call(self, prompts: Sequence[Sequence[int]], settings: list[Any]) -> list[Any]:
        requests = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        answers: list[Any] = self._llm.generate(
            requests, settings, use_tqdm=False, lora_request=self._adapter
        )
        return answers


def check_process() -> None:
    """Raise unless vLLM can run in this process.

    Raises:
        ConfigError: it is not installed, or this is one of several processes that train together.
    """
    require_vllm("engine.kind 'vllm'")
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        raise ConfigError(
            "engine.kind 'vllm' runs in one process, and this run has "
            f"{torch.distributed.get_world_size()}; take engine.kind=vllm_server"
        )
