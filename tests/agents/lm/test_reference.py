"""The reference behind a URL says what a reference in the trainer says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from textgym.http_calls import CallError, Retry
from textgym_agents.core.buffer import Batch, MemoryBuffer
from textgym_agents.core.config import KLPenaltyConfig, PPOConfig
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.config import PolicyConfig, ReferenceConfig, RolloutConfig, TrainConfig
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.reference import RemoteReference

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("httpx")
MakePolicy = Callable[..., PolicyValueNetwork]
RandomBatch = Callable[..., Batch]
QUICK = Retry(timeout=20.0, max_retries=1, first_delay=0.01)


class Served:
    """A model on a free port of this machine, until it is closed."""

    def __init__(self, folder: Path) -> None:
        from textgym.serve.app import create_app
        from textgym.serve.reference import ReferenceService
        from textgym.serve.run import listen

        self.service = ReferenceService(folder, device="cpu")
        socket = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{socket.getsockname()[1]}"
        config = uvicorn.Config(create_app(self.service), log_level="warning", ws="none")
        self.server = uvicorn.Server(config)
        arguments: dict[str, Any] = {"sockets": [socket]}
        self.thread = threading.Thread(target=self.server.run, kwargs=arguments, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture
def network(make_policy: MakePolicy) -> PolicyValueNetwork:
    """A policy with phantom rows and few legal ids: the reference must know both."""
    return make_policy(config=PolicyConfig(legal_ids=tuple(range(11))), num_rows=40)


@pytest.fixture
def served(network: PolicyValueNetwork, tmp_path: Path) -> Iterator[Served]:
    network.lm.save_pretrained(tmp_path / "model")
    service = Served(tmp_path / "model")
    yield service
    service.close()


@pytest.fixture
def batch(random_batch: RandomBatch) -> Batch:
    """Prompts, answers and messages; one episode has no action at all."""
    batch = random_batch(6)
    batch.action_mask[2] = False
    ids = batch.input_ids % 11  # only legal ids are ever sampled
    return Batch(**{**vars(batch), "input_ids": ids})


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_logprobs_are_the_trainers_own(
    network: PolicyValueNetwork, served: Served, batch: Batch, temperature: float
) -> None:
    network.temperature = temperature
    config = ReferenceConfig(url=served.url, batch_size=2, retry=QUICK)
    remote = RemoteReference(config, illegal=network.illegal, temperature=temperature)
    wanted = network.evaluate(batch).logprobs.detach()
    torch.testing.assert_close(remote.logprobs(batch), wanted, atol=2e-5, rtol=0)
    assert float(wanted[0][batch.action_mask[0]].abs().min()) > 0


def test_another_model_or_none_stops_the_run(
    network: PolicyValueNetwork, served: Served, batch: Batch
) -> None:
    config = ReferenceConfig(url=served.url, retry=QUICK)
    remote = RemoteReference(config, illegal=network.illegal, temperature=1.0)
    remote.logprobs(batch)
    served.service.fingerprint = "sha256:another"
    with pytest.raises(CallError, match="fingerprint"):
        remote.logprobs(batch)
    served.close()
    with pytest.raises(CallError):
        remote.logprobs(batch)


def test_an_update_is_the_same_with_either_reference(
    make_policy: MakePolicy, network: PolicyValueNetwork, served: Served, batch: Batch
) -> None:
    penalties = []
    for url in (None, served.url):
        config = TrainConfig(
            policy=network.config,
            rollout=RolloutConfig(num_episodes=4),
            ppo=PPOConfig(kl_penalty=KLPenaltyConfig(beta=0.1)),
            reference=ReferenceConfig(url=url, retry=QUICK),
        )
        agent = PPOAgent(network, config)
        agent.start_reference()
        assert (agent.reference is None) == (url is not None)
        with torch.no_grad():
            for p in network.trainable():
                p.add_(0.01 if url is None else 0.0)
        memory = MemoryBuffer()
        memory._batch = batch
        penalties.append(agent._reference_logprobs(memory.batch))
    torch.testing.assert_close(*penalties, atol=2e-5, rtol=0)
