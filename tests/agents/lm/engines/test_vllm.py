"""vLLM itself, in this process and as a server: the policy's words after every update.

The server is started first and comes up while the engine in this process is at work.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from scipy import stats  # type: ignore[import-untyped]  # it ships no types

from textgym.errors import ConfigError
from textgym_agents.core.config import PPOConfig
from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.config import (
    EnvConfig,
    EvaluationConfig,
    LoraMode,
    PolicyConfig,
    RolloutConfig,
    TrainConfig,
)
from textgym_agents.lm.engine import Generation, GenerationEngine, TransformersEngine
from textgym_agents.lm.engines.config import SyncMode, VllmEngineConfig, VllmServerEngineConfig
from textgym_agents.lm.engines.errors import EngineError, ServerLostError
from textgym_agents.lm.engines.model_files import STEP_TOKENS
from textgym_agents.lm.engines.serve import ServerOptions, server_command
from textgym_agents.lm.engines.vllm_process import VllmEngine
from textgym_agents.lm.engines.vllm_server import VllmServerEngine
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.optimizer import make_optimizer
from textgym_agents.run.directory import RunDirectory, rows_of

pytestmark = pytest.mark.skipif(
    find_spec("vllm") is None, reason="vllm is not installed; docs/engines.md says how to"
)
MakePolicy = Callable[..., PolicyValueNetwork]
PROMPTS = [[9], [10, 3, 7, 1, 4, 4, 2], [11, 5], [9, 3, 7], [1] * 12, [10], [11, 0, 8, 8], [9, 9]]
LIMITS = [3, 6, 9, 12, 15, 18, 21, 24]
SHAPE = {"hidden_size": 128, "intermediate_size": 64, "head_dim": 32, "num_rows": 40}
MAX_ERROR = 1e-3
MODES: dict[str, tuple[LoraMode | None, SyncMode]] = {
    "full": (None, "auto"),
    "merged": (LoraMode(rank=2), "merged"),
    "adapter": (LoraMode(rank=2), "adapter"),
}


class Server(NamedTuple):
    """A server of vLLM's own."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path


@pytest.fixture(scope="module", autouse=True)
def server(make_policy: MakePolicy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    make_policy(**SHAPE).save(folder / "policy")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ServerOptions(
        str(folder / "policy"), port=port, dtype="float32", max_length=64, adapter_rank=2,
        kv_cache_gib=0.05,
    )  # fmt: skip
    command, environment = server_command(options)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    yield Server(process, f"http://127.0.0.1:{port}", folder / "log")
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def make_network(make_policy: MakePolicy, mode: LoraMode | None) -> PolicyValueNetwork:
    config = PolicyConfig() if mode is None else PolicyConfig(mode=mode)
    network = make_policy(config=config, **SHAPE)
    network.temperature = 0.7
    return network


class Mirror(NamedTuple):
    """A policy and the engine that follows it."""

    network: PolicyValueNetwork
    engine: VllmEngine
    sync: SyncMode


@pytest.fixture(scope="module", params=list(MODES))
def mirror(request: pytest.FixtureRequest, make_policy: MakePolicy) -> Iterator[Mirror]:
    mode, sync = MODES[request.param]
    network = make_network(make_policy, mode)
    shipped = network.lm.generation_config
    shipped.do_sample, shipped.top_k, shipped.top_p = True, 2, 0.5
    shipped.repetition_penalty, shipped.temperature = 1.5, 0.3
    config = VllmEngineConfig(sync=sync, max_num_seqs=64)
    engine = VllmEngine(network, config, max_length=64)
    yield Mirror(network, engine, sync)
    engine.close()


def generate(
    engine: GenerationEngine, temperature: float, *, seed: int = 0, prompts: Any = PROMPTS
) -> list[Generation]:
    return engine.generate(
        prompts,
        max_new_tokens=LIMITS[: len(prompts)],
        temperature=temperature,
        generator=torch.Generator().manual_seed(seed),
    )


def learn_something(network: PolicyValueNetwork, *, seed: int) -> None:
    """Take an optimiser step that is large enough to be seen."""
    optimizer = make_optimizer(network, learning_rate=2e-2)
    ids = torch.randint(0, 13, (4, 12), generator=torch.Generator().manual_seed(seed))
    logprobs = network.lm(input_ids=ids).logits.log_softmax(-1)
    logprobs.gather(2, ids.unsqueeze(2)).mean().neg().backward()
    optimizer.step()


def scores_of(network: PolicyValueNetwork, prompt: list[int], g: Generation) -> torch.Tensor:
    """Return log pi of a completion at the network's temperature, over the legal ids."""
    ids = torch.tensor([[*prompt, *g.token_ids]])
    with torch.no_grad():
        hidden = network.hidden_states(ids)[0, len(prompt) - 1 : -1]
        scores: torch.Tensor = network.score_tokens(hidden, ids[0, len(prompt) :]).logprobs
    return scores


def assert_mirrors(engine: GenerationEngine, network: PolicyValueNetwork) -> None:
    """Greedy words are the policy's own; every log-probability is what the policy says of it."""
    theirs, ours = generate(engine, 0.0), generate(TransformersEngine(network), 0.0)
    assert [g.token_ids for g in theirs] == [g.token_ids for g in ours]
    assert [g.finish_reason for g in theirs] == [g.finish_reason for g in ours]
    for g, o in zip(theirs, ours, strict=True):
        assert g.logprobs == pytest.approx(o.logprobs, abs=MAX_ERROR)
    sampled = generate(engine, network.temperature, seed=3)
    assert {len(g.token_ids) for g in sampled} != {1}
    for prompt, g in zip(PROMPTS, sampled, strict=True):
        assert g.failure is None
        assert max(g.token_ids) < 13
        assert g.policy_version == engine.policy_version
        wanted = scores_of(network, prompt, g)
        assert g.logprobs == pytest.approx(wanted.tolist(), abs=MAX_ERROR)


def test_it_follows_three_updates(mirror: Mirror) -> None:
    network, engine, _ = mirror
    engine.sync(0)
    assert_mirrors(engine, network)
    for version in (1, 2, 3):
        learn_something(network, seed=version)
        old = generate(engine, 0.0)
        assert [g.token_ids for g in old] != [
            g.token_ids for g in generate(TransformersEngine(network), 0.0)
        ]
        metrics = engine.sync(version)
        assert metrics["engine/canary_error"] < 1e-5
        assert engine.policy_version == version
        assert_mirrors(engine, network)


def test_equal_seeds_give_equal_samples(mirror: Mirror) -> None:
    first = generate(mirror.engine, 0.7, seed=5)
    assert generate(mirror.engine, 0.7, seed=5) == first
    assert generate(mirror.engine, 0.7, seed=6) != first


def write_many(engine: GenerationEngine) -> None:
    """Let an engine answer many times the tokens of prompts that it may read in a step."""
    number, length = 240, 56
    assert number * length > 6 * STEP_TOKENS
    written = engine.generate(
        [[i % 13] * length for i in range(number)],
        max_new_tokens=[4] * number,
        temperature=1.0,
        generator=torch.Generator().manual_seed(0),
    )
    assert [g.failure for g in written] == [None] * number
    assert {len(g.token_ids) for g in written} <= {1, 2, 3, 4}


def test_prompts_that_do_not_fit_a_step_wait_their_turn(mirror: Mirror) -> None:
    mirror.engine.sync(0)
    write_many(mirror.engine)


def test_ends_are_the_trainers(mirror: Mirror) -> None:
    found = [g for seed in range(6) for g in generate(mirror.engine, 0.7, seed=seed)]
    assert {g.finish_reason for g in found} == {"stop", "length"}
    for g, limit in zip(found, LIMITS * 6, strict=True):
        assert 6 not in g.token_ids[:-1]
        assert (g.token_ids[-1] == 6) == (g.finish_reason == "stop")
        assert g.finish_reason == "stop" or len(g.token_ids) == limit
        assert len(g.logprobs) == len(g.token_ids)


def test_the_process_is_as_it_was(mirror: Mirror) -> None:
    set_num_threads, environment = torch.set_num_threads, dict(os.environ)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    mirror.engine.sync(mirror.engine.policy_version)
    generate(mirror.engine, 0.7)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]
    assert torch.set_num_threads is set_num_threads
    assert torch.get_num_threads() == 1
    changed = {k for k, v in os.environ.items() if environment.get(k) != v}
    assert not {k for k in changed if not k.startswith("VLLM_")}
    assert "vllm" not in os.environ.get("LD_PRELOAD", "")


def test_samples_follow_the_scored_distribution(mirror: Mirror) -> None:
    """What ships with the model (top-k, top-p, a penalty on repetition) has no say."""
    network, engine, sync = mirror
    if sync != "auto":
        pytest.skip("the sampler is the same")
    prompt, number = [9, 3, 9], 2000
    samples = engine.generate(
        [prompt] * number,
        max_new_tokens=[1] * number,
        temperature=0.7,
        generator=torch.Generator().manual_seed(0),
    )
    counts = Counter(g.token_ids[0] for g in samples)
    each = [Generation([i], [0.0], "length") for i in range(13)]
    p = np.array([float(scores_of(network, prompt, g).exp()) for g in each], dtype=np.float64)
    assert p.sum() == pytest.approx(1.0, abs=1e-5)
    is_rare = p * number < 5
    observed = np.array([counts[i] for i in range(13)], dtype=np.float64)
    observed = np.append(observed[~is_rare], observed[is_rare].sum())
    wanted = number * np.append(p[~is_rare], p[is_rare].sum()) / p.sum()
    assert (~is_rare).sum() > 2
    assert stats.chisquare(observed, wanted).pvalue > 1e-3


def test_weights_that_do_not_arrive_are_found_out(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, engine, sync = mirror
    with monkeypatch.context() as patched:
        patched.setattr(engine, "_send_weights", lambda: None)
        patched.setattr(engine, "_send_adapter", lambda: None)
        with torch.no_grad():
            for p in network.trainable():
                p.mul_(1.001)
        with pytest.raises(EngineError, match="has not taken the new weights"):
            engine.sync(7)
    engine.sync(7)
    assert_mirrors(engine, network)
    if sync == "adapter":
        with monkeypatch.context() as patched:
            patched.setattr(engine, "_send_adapter", lambda: setattr(engine, "_adapter", None))
            with pytest.raises(EngineError, match="does not compute the trainer's policy"):
                engine.sync(8)
        engine.sync(8)


def test_a_tied_head_is_packed_anew(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it vLLM goes on with the head that it was loaded with."""
    from textgym_agents.lm.engines import vllm_worker

    network, engine, sync = mirror
    if sync == "adapter":
        pytest.skip("the base is sent once")
    with monkeypatch.context() as patched:
        patched.setattr(vllm_worker, "_repack_tied_head", lambda model: None)
        embedding = network.lm.get_input_embeddings().weight
        embedding.data.mul_(-1.0)
        with pytest.raises(EngineError, match="does not compute the trainer's policy"):
            engine.sync(9)
    engine.sync(9)
    assert_mirrors(engine, network)


def test_a_transfer_that_fails_can_be_repeated(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, engine, sync = mirror
    if sync == "adapter":
        pytest.skip("the base is sent once")
    from textgym_agents.lm.engines import vllm_process

    weights_of = vllm_process.weights_of

    def broken(*args: Any, **kwargs: Any) -> Iterator[tuple[str, torch.Tensor]]:
        for name, weight in weights_of(*args, **kwargs):
            yield name, weight[:-1] if name.endswith("down_proj.weight") else weight

    with monkeypatch.context() as patched:
        patched.setattr(vllm_process, "weights_of", broken)
        with pytest.raises(EngineError, match="vLLM did not take the weights"):
            engine.sync(10)
        with pytest.raises(EngineError, match="vLLM did not take the weights"):
            generate(engine, 0.0)  # it does not sample from half of the weights
    engine.sync(10)
    assert_mirrors(engine, network)


def test_weights_that_are_not_finite_are_not_sent(mirror: Mirror) -> None:
    network, engine, _ = mirror
    weight = network.trainable()[1]
    kept = weight.data.clone()
    weight.data.flatten()[0] = float("inf")
    with pytest.raises(EngineError, match="is not finite"):
        engine.sync(11)
    weight.data = kept
    engine.sync(11)
    assert_mirrors(engine, network)


def test_a_run_trains_with_it(mirror: Mirror, tmp_path: Path) -> None:
    network, engine, sync = mirror
    config = TrainConfig(
        iterations=3,
        env=EnvConfig(id="textgym:ToyTwoTurn-v0"),
        rollout=RolloutConfig(num_episodes=16, num_envs=8, max_new_tokens=1, parts_in_flight=2),
        ppo=PPOConfig(batch_size=16),
        evaluation=EvaluationConfig(num_episodes=4),
    )
    run = RunDirectory(PPOAgent(network, config, engine=engine).learn(tmp_path / sync))
    rows = rows_of(run.read_metrics(), "ppo")
    assert [row["engine/policy_version"] for row in rows] == [1, 2, 3]
    assert max(row["engine/ratio_error_max"] for row in rows) < 1e-4
    assert all(row["rollout/num_failed"] == 0 for row in rows)
    assert all(0 < row["time/engine_idle_share"] < 1 for row in rows)


def test_heads_that_vllm_cannot_compute_are_refused(make_policy: MakePolicy) -> None:
    engine = VllmEngine(make_policy(), VllmEngineConfig(), max_length=64)
    with pytest.raises(
        ConfigError, match=r"heads of \[32, .*and this model's have 8; take .*small"
    ):
        engine.sync(0)


@pytest.mark.parametrize("mode", list(MODES))
def test_a_server_follows_three_updates(make_policy: MakePolicy, server: Server, mode: str) -> None:
    lora, sync = MODES[mode]
    network = make_network(make_policy, lora)
    config = VllmServerEngineConfig(urls=(server.url,), sync=sync, reconnect_seconds=180.0)
    engine = VllmServerEngine(network, config)
    for version in range(4):
        metrics = engine.sync(version)
        assert metrics["engine/canary_error"] < 1e-5
        assert_mirrors(engine, network)
        learn_something(network, seed=version)
    write_many(engine)
    engine.close()


def test_a_server_that_is_killed_costs_what_it_was_writing(
    make_policy: MakePolicy, server: Server
) -> None:
    network = make_network(make_policy, None)
    config = VllmServerEngineConfig(urls=(server.url,), reconnect_seconds=0.5)
    engine = VllmServerEngine(network, config)
    engine.sync(0)
    killer = threading.Timer(0.5, os.killpg, (server.process.pid, signal.SIGKILL))
    killer.start()
    found: list[Generation] = []
    while killer.is_alive() or not found or not found[-1].failure:
        found += generate(engine, 0.7, prompts=PROMPTS)
    lost = [g for g in found if g.failure is not None]
    assert {str(g.failure).partition(":")[0] for g in lost} == {"engine_lost"}
    assert 0 < len(lost) < len(found)
    with pytest.raises(ServerLostError, match=r"no vLLM server answers .*textgym vllm-server"):
        engine.sync(1)
