"""The trainer and its servers: sharing work, death, return, and never a stale policy."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from textgym.errors import ConfigError
from textgym_agents.lm.config import EnvConfig, LoraMode, PolicyConfig, RolloutConfig
from textgym_agents.lm.engine import Generation
from textgym_agents.lm.engines.config import SyncMode, VllmServerEngineConfig
from textgym_agents.lm.engines.errors import EngineError, ServerLostError
from textgym_agents.lm.engines.sampling import draw_seeds
from textgym_agents.lm.engines.vllm_server import VllmServerEngine
from textgym_agents.lm.envs import make_envs
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.rollout import collect

from .conftest import FakeServer, sample_alone

MakePolicy = Callable[..., PolicyValueNetwork]
StartServer = Callable[[PolicyValueNetwork], FakeServer]
PROMPTS = [[9], [10, 3, 7, 1], [11, 5], [9, 3, 7], [1] * 6, [10], [11, 0, 8, 8], [9, 9]]
LIMITS = [3, 4, 5, 6, 7, 8, 9, 10]


def make_engine(
    network: PolicyValueNetwork, *servers: FakeServer, sync: SyncMode = "auto", wait: float = 0.0
) -> VllmServerEngine:
    config = VllmServerEngineConfig(
        urls=tuple(s.url for s in servers), sync=sync, reconnect_seconds=wait
    )
    return VllmServerEngine(network, config)


def generate(engine: VllmServerEngine, *, seed: int = 0) -> list[Generation]:
    return engine.generate(
        PROMPTS,
        max_new_tokens=LIMITS,
        temperature=engine.network.temperature,
        generator=torch.Generator().manual_seed(seed),
    )


def expected(network: PolicyValueNetwork, version: int, *, seed: int = 0) -> list[Generation]:
    """Return what the policy itself says with the seeds that the engine draws."""
    seeds = draw_seeds(len(PROMPTS), torch.Generator().manual_seed(seed))
    return [
        sample_alone(
            network, prompt, {"max_tokens": n, "temperature": network.temperature, "seed": s}
        )._replace(policy_version=version)
        for prompt, n, s in zip(PROMPTS, LIMITS, seeds, strict=True)
    ]


def assert_alike(found: list[Generation], wanted: list[Generation]) -> None:
    """Compare completions; a merged adapter rounds otherwise than one beside its base."""
    assert [g._replace(logprobs=[]) for g in found] == [g._replace(logprobs=[]) for g in wanted]
    for g, w in zip(found, wanted, strict=True):
        assert g.logprobs == pytest.approx(w.logprobs, abs=1e-3)


def update(network: PolicyValueNetwork, *, seed: int = 0, size: float = 0.05) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.trainable():
            p.add_(torch.randn(p.shape, generator=generator), alpha=size)


@pytest.mark.parametrize(
    ("mode", "sync"), [(None, "auto"), (LoraMode(rank=2), "merged"), (LoraMode(rank=2), "adapter")]
)
def test_the_servers_follow_three_updates(
    make_policy: MakePolicy, start_server: StartServer, mode: LoraMode | None, sync: SyncMode
) -> None:
    config = PolicyConfig() if mode is None else PolicyConfig(mode=mode)
    network = make_policy(config=config, num_rows=16)
    network.temperature = 0.7
    servers = [start_server(network), start_server(network)]
    engine = make_engine(network, *servers, sync=sync)
    before: list[Generation] = []
    for version in range(3):
        update(network, seed=version)
        metrics = engine.sync(version)
        assert metrics["engine/canary_error"] < 1e-5
        assert metrics["engine/policy_version"] == version
        assert metrics["engine/num_servers_lost"] == 0
        found, wanted = generate(engine), expected(network, version)
        assert_alike(found, wanted)
        assert [g.logprobs for g in found] != [g.logprobs for g in before]
        before = found
    assert [s.num_completions for s in servers] == [4 + 3 * 4] * 2  # 4 of the check of the sampler
    loads = servers[0].calls.count("/collective_rpc")
    assert loads == (2 if sync == "adapter" else 4)  # the base once, or all weights each time
    assert len(servers[0].adapters) == (1 if sync == "adapter" else 0)
    engine.close()


def test_a_server_that_dies_leaves_its_work_to_the_other(
    make_policy: MakePolicy, start_server: StartServer
) -> None:
    network = make_policy()
    first, second = start_server(network), start_server(network)
    engine = make_engine(network, first, second)
    engine.sync(5)
    first.dies_after = first.num_completions + 2
    assert generate(engine) == expected(network, 5)
    assert engine.sync(6)["engine/num_servers_lost"] == 1
    first.dies_after = None
    first.start()
    assert engine.sync(7)["engine/num_servers_lost"] == 0
    num_before = first.num_completions
    assert generate(engine) == expected(network, 7)
    assert first.num_completions == num_before + 4


def test_the_only_server_dies_in_a_rollout(
    make_policy: MakePolicy, start_server: StartServer
) -> None:
    """It costs the samples that it had not finished; what follows says so."""
    network = make_policy(num_rows=16)
    server = start_server(network)
    engine = make_engine(network, server)
    engine.sync(0)
    server.dies_after = server.num_completions + 5
    found, wanted = generate(engine), expected(network, 0)
    lost = [g for g in found if g.failure is not None]
    assert len(lost) == 3
    assert all(g == w for g, w in zip(found, wanted, strict=True) if g.failure is None)
    assert all(g.token_ids == [] and g.failure is not None for g in lost)
    assert {str(g.failure).partition(":")[0] for g in lost} == {"engine_lost"}
    with pytest.raises(ServerLostError, match=r"no vLLM server answers .*Error.*vllm-server"):
        engine.sync(1)


def test_lost_samples_are_counted_and_left_out(
    make_policy: MakePolicy, start_server: StartServer
) -> None:
    network = make_policy()
    server = start_server(network)
    engine = make_engine(network, server)
    envs = make_envs(EnvConfig(id="textgym:ToyTwoTurn-v0"), 8)
    engine.sync(0)
    server.dies_after = server.num_completions + 5
    rollout = collect(
        envs,
        engine,
        network,
        RolloutConfig(max_new_tokens=1, max_length=16),
        seed=0,
        generator=torch.Generator().manual_seed(0),
    )
    envs.close()
    lost = [t for t in rollout.transcripts if t.failure == "engine_lost"]
    assert 3 <= len(lost) < 8  # those of the first turn, and whoever had a second one
    metrics = rollout.metrics()
    assert metrics["rollout/failed/engine_lost"] == len(lost)
    assert metrics["rollout/num_scored"] == 8 - len(lost)
    record = lost[0].record()
    assert record["reward"] is None
    assert "no vLLM server answers" in record["reason"] or "http" in record["reason"]


@pytest.mark.parametrize("sync", ["merged", "adapter"])
def test_a_server_that_comes_back_is_sent_the_weights(
    make_policy: MakePolicy, start_server: StartServer, sync: SyncMode
) -> None:
    """It starts with weights of its own, under the same address, in the middle of a rollout."""
    network = make_policy(config=PolicyConfig(mode=LoraMode(rank=2)))
    server = start_server(network)
    engine = make_engine(network, server, sync=sync, wait=10.0)
    engine.sync(3)
    remaining = [3]

    def restart() -> None:
        remaining[0] -= 1
        if remaining[0] == 0:
            weights, version = server.start_weights, "default"
            server.network.load_state_dict({f"lm.{n}": p for n, p in weights.items()}, strict=False)
            server.version, server.adapters = version, {}

    server.on_completion = restart
    assert_alike(generate(engine), expected(network, 3))
    assert remaining[0] < 0
    server.die()
    server.on_completion = lambda: None
    server.start()
    assert_alike(generate(engine, seed=1), expected(network, 3, seed=1))


def test_an_adapter_that_somebody_took_away_is_sent_again(
    make_policy: MakePolicy, start_server: StartServer
) -> None:
    network = make_policy(config=PolicyConfig(mode=LoraMode(rank=2)))
    server = start_server(network)
    engine = make_engine(network, server, sync="adapter")
    engine.sync(0)
    server.adapters.clear()
    assert_alike(generate(engine), expected(network, 0))


def test_an_answer_of_other_weights_is_not_taken(
    make_policy: MakePolicy, start_server: StartServer
) -> None:
    """Somebody else keeps sending weights to the server."""
    network = make_policy()
    server = start_server(network)
    engine = make_engine(network, server)
    engine.sync(0)

    def take(request: dict[str, Any], choice: dict[str, Any]) -> None:
        if "prompt_logprobs" not in request["sampling_params"]:
            choice["weight_versions"] = [{"version": "theirs-1", "start": 0, "end": 1}]

    server.spoil = take
    found = generate(engine)
    assert {str(g.failure).partition(":")[0] for g in found} == {"stale_policy"}
    assert all("theirs-1" in str(g.failure) and not g.token_ids for g in found)


@pytest.mark.parametrize("sync", ["merged", "adapter"])
def test_a_server_that_keeps_old_weights_is_found_out(
    make_policy: MakePolicy, start_server: StartServer, sync: SyncMode
) -> None:
    network = make_policy(config=PolicyConfig(mode=LoraMode(rank=2)))
    server = start_server(network)
    engine = make_engine(network, server, sync=sync)
    engine.sync(0)
    server.takes_weights = False
    update(network, size=1e-3)
    with pytest.raises(EngineError, match="has not taken the new weights"):
        engine.sync(1)


def test_a_server_of_another_policy_is_found_out(
    make_policy: MakePolicy, start_server: StartServer
) -> None:
    network = make_policy()
    server = start_server(network)
    server.takes_weights = False
    with pytest.raises(EngineError, match="does not compute the trainer's policy"):
        make_engine(network, server).sync(0)


def test_a_server_that_reports_another_distribution_is_found_out(
    make_policy: MakePolicy, start_server: StartServer
) -> None:
    """Such as one without `--logprobs-mode processed_logprobs`."""
    network = make_policy()
    network.temperature = 0.5
    server = start_server(network)

    def raw(request: dict[str, Any], choice: dict[str, Any]) -> None:
        ids, unscaled = request["token_ids"], copy.deepcopy(server.network)
        generation = sample_alone(unscaled, ids, request["sampling_params"])
        rows = torch.tensor([[*ids, *generation.token_ids]])
        logits = unscaled.next_logits(unscaled.hidden_states(rows)[0], 1.0).log_softmax(-1)
        for j, token in enumerate(choice["logprobs"]["content"]):
            token["logprob"] = float(logits[len(ids) + j - 1, token["token_id"]])

    server.spoil = raw
    with pytest.raises(EngineError, match="does not report the distribution that is trained on"):
        make_engine(network, server).sync(0)


def test_an_illegal_id_costs_its_sample(make_policy: MakePolicy, start_server: StartServer) -> None:
    network = make_policy(num_rows=16)
    server = start_server(network)
    engine = make_engine(network, server)
    engine.sync(0)
    spoilt: list[list[int]] = []

    def spoil(request: dict[str, Any], choice: dict[str, Any]) -> None:
        if request["token_ids"] == PROMPTS[2]:
            choice["token_ids"][0] = 14
            spoilt.append(request["token_ids"])

    server.spoil = spoil
    found = generate(engine)
    assert [g.failure for g in found if g.failure] == [
        "illegal_id: the engine sampled id 14, which is not legal"
    ]
    assert found[2].failure is not None
    assert len(spoilt) == 1  # the same seed would give the same id


def test_a_missing_logprob_is_an_error(make_policy: MakePolicy, start_server: StartServer) -> None:
    network = make_policy()
    server = start_server(network)
    engine = make_engine(network, server)
    engine.sync(0)
    server.spoil = lambda request, choice: choice["logprobs"]["content"].pop()
    with pytest.raises(EngineError, match=r"gave \d+ log-probabilities for \d+ tokens"):
        generate(engine)


def test_weights_that_are_not_finite_are_not_sent(
    make_policy: MakePolicy, start_server: StartServer
) -> None:
    network = make_policy()
    server = start_server(network)
    engine = make_engine(network, server)
    engine.sync(0)
    with torch.no_grad():
        network.trainable()[3][0] = float("nan")
    num_calls = len(server.calls)
    with pytest.raises(EngineError, match=r"weight 'model\..*' is not finite"):
        engine.sync(1)
    assert len(server.calls) == num_calls


def test_a_plain_server_is_refused(make_policy: MakePolicy, start_server: StartServer) -> None:
    """One that was started without the trainer's endpoints answers 404."""
    network = make_policy()
    server = start_server(network)
    control = server.control

    def plain(path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return (404, {"detail": "Not Found"}) if path == "/weight_info" else control(path, body)

    server.control = plain  # type: ignore[method-assign]
    with pytest.raises(EngineError, match=r"404.*is started by `textgym vllm-server`"):
        make_engine(network, server).sync(0)


def test_an_adapter_that_is_not_there_cannot_be_sent(make_policy: MakePolicy) -> None:
    network = make_policy()
    config = VllmServerEngineConfig(sync="adapter", urls=("http://127.0.0.1:9",))
    engine = VllmServerEngine(network, config)
    with pytest.raises(ConfigError, match=r"engine.sync is 'adapter', but the policy has none"):
        engine.sync(0)
