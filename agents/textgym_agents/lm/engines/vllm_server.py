"""vLLM servers that mirror the policy: several at once, any of which may die.

A server says with every completion which weights it was sampled from, so none is ever taken for the
policy's that is not. Each prompt has a seed of its own: it does not matter which server answers.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from textgym_agents.lm.engine import Generation
from textgym_agents.lm.engines.canary import Canary
from textgym_agents.lm.engines.config import VllmServerEngineConfig
from textgym_agents.lm.engines.errors import EngineError, ServerLostError
from textgym_agents.lm.engines.sampling import (
    ENGINE_LOST,
    STALE_POLICY,
    accept,
    draw_seeds,
    failed,
    sampling_settings,
    scoring_settings,
)
from textgym_agents.lm.engines.server_client import ServerClient
from textgym_agents.lm.engines.server_pool import ServerPool, together
from textgym_agents.lm.engines.weights import check_finite
from textgym_agents.lm.network import PolicyValueNetwork


class Request(NamedTuple):
    """A prompt, and how to go on with it."""

    token_ids: list[int]
    settings: dict[str, Any]


class VllmServerEngine:
    """Samples with vLLM servers.

    Args:
        network: the policy that is mirrored.
        config: where the servers are.
    """

    def __init__(self, network: PolicyValueNetwork, config: VllmServerEngineConfig) -> None:
        self.network = network
        self.config = config
        self.policy_version = 0
        self.canary = Canary(network)
        self.pool = ServerPool(network, config, self._prove)
        self._canary_error = 0.0

    def check(self) -> None:
        """Raise unless a server answers.

        Raises:
            EngineError: none does within `reconnect_seconds`, or one has no place for weights.
        """
        self.pool.find()

    def sync(self, policy_version: int) -> dict[str, float]:
        """Give every server that answers the trainer's weights, and prove that they arrived.

        Raises:
            EngineError: no server answers, the weights are not finite, or the canary found another
                policy.
        """
        started = time.perf_counter()
        check_finite(self.network)
        self._canary_error = 0.0
        ready = self.pool.take_new_weights()
        self.policy_version = policy_version
        return {
            "engine/policy_version": float(policy_version),
            "engine/canary_error": self._canary_error,
            "engine/num_servers_lost": float(self.pool.num_servers - len(ready)),
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
        """Sample one completion per prompt; what is lost with a server is asked of another one.

        Each server is asked first which weights it has, and sent them if they are not the newest.
        """
        if not self.pool.has_weights:
            self.sync(self.policy_version)
        seeds = draw_seeds(len(prompts), generator)
        requests = self._requests(prompts, max_new_tokens, seeds, temperature)
        generations = [failed(ENGINE_LOST, "nobody was asked")] * len(requests)
        pending = list(range(len(requests)))
        for _ in range(1 + self.config.retries):
            try:
                servers = self.pool.bring_up()
            except ServerLostError as error:
                for i in pending:
                    generations[i] = failed(ENGINE_LOST, str(error))
                break
            answers = self._ask(servers, [requests[i] for i in pending])
            for i, answer in zip(pending, answers, strict=True):
                generations[i] = answer
            pending = [i for i in pending if _is_worth_another_try(generations[i])]
            if not pending:
                break
        return generations

    def close(self) -> None:
        """Close the connections; the servers keep the weights that they have."""
        self.pool.close()

    # Requests ------------------------------------------------------------------------------------

    def _requests(
        self,
        prompts: Sequence[Sequence[int]],
        limits: Sequence[int],
        seeds: Sequence[int],
        temperature: float,
    ) -> list[Request]:
        stop_ids = sorted(self.network.stop_ids)
        return [
            Request(
                list(prompt),
                sampling_settings(
                    max_tokens=limit, temperature=temperature, seed=seed, stop_ids=stop_ids
                ),
            )
            for prompt, limit, seed in zip(prompts, limits, seeds, strict=True)
        ]

    def _ask(self, servers: Sequence[ServerClient], requests: list[Request]) -> list[Generation]:
        """Return what the servers, in turns, answer to the requests."""
        asked = [
            self._ask_one(servers[i % len(servers)], request) for i, request in enumerate(requests)
        ]
        return together(asked)

    async def _ask_one(self, server: ServerClient, request: Request) -> Generation:
        adapter = self.pool.adapter_name
        try:
            answer = await server.generate(request.token_ids, request.settings, adapter)
        except ServerLostError as error:
            return failed(ENGINE_LOST, str(error))
        except EngineError as error:
            if adapter is None:
                raise
            self.pool.doubt(server)
            return failed(STALE_POLICY, f"the adapter is gone: {error}")
        choice = answer["choices"][0]
        versions = {span["version"] for span in choice["weight_versions"] or ()}
        if versions != {self.pool.weights_name}:
            return failed(STALE_POLICY, f"{server.url} sampled from weights {sorted(versions)}")
        return accept(
            choice["token_ids"],
            [token["logprob"] for token in choice["logprobs"]["content"]],
            choice["finish_reason"],
            policy_version=self.policy_version,
            illegal=self.network.illegal,
        )

    # Proof ---------------------------------------------------------------------------------------

    def _prove(self, server: ServerClient, is_new: bool) -> None:
        """Raise unless a server has the trainer's policy."""

        def score(sequences: list[list[int]]) -> list[list[float]]:
            asked = [
                server.generate(ids, scoring_settings(), self.pool.adapter_name)
                for ids in sequences
            ]
            answers = [answer["prompt_logprobs"] for answer in together(asked)]
            return [
                [scores[str(ids[j])]["logprob"] for j, scores in enumerate(answer) if j > 0]
                for ids, answer in zip(sequences, answers, strict=True)
            ]

        def sample(
            prompts: list[list[int]], max_tokens: int, temperature: float
        ) -> list[Generation]:
            limits = [max_tokens] * len(prompts)
            requests = self._requests(prompts, limits, range(len(prompts)), temperature)
            return self._ask([server], requests)

        error = self.canary.check(score, server.url)
        self._canary_error = max(self._canary_error, error)
        if is_new:
            self.canary.check_sampler(sample, server.url)


def _is_worth_another_try(generation: Generation) -> bool:
    kind = (generation.failure or "").partition(":")[0]
    return kind in (ENGINE_LOST, STALE_POLICY)
