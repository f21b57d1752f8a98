"""vLLM against the trainer's own engine: tokens a second, and what an update costs to send.

Both engines live in one process with one policy, the randomly initialised Qwen2 of `ppo_speed`, in
float32 and with the same number of threads, and write the same number of tokens for the same
prompts in turns. Nothing ends a completion early. The cost of sending is that of a whole sync:
every weight, the canary and its comparison; it is held against one rollout of 64 prompts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, TypedDict

from benchmarks.places import ROOT
from benchmarks.table import Row

if TYPE_CHECKING:
    from textgym_agents.lm.engine import GenerationEngine
    from textgym_agents.lm.network import PolicyValueNetwork

NUM_PROMPTS = (64, 256)
NUM_NEW_TOKENS = 128
PROMPT_LENGTH = 16
NUM_SYNCS = 20
MAX_SYNC_SHARE = 0.1


class Measurement(TypedDict):
    """What the measuring process prints, as one line of JSON."""

    seconds: dict[str, dict[str, list[float]]]
    """By number of prompts and engine, of each round."""
    sync_seconds: list[float]
    num_parameters: int


def run(*, num_rounds: int = 5, num_threads: int = 1) -> list[Row]:
    """Measure in a process of its own and return the rows."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(num_threads), "TORCHDYNAMO_DISABLE": "1"}
    command = [sys.executable, "-m", "benchmarks.engines"]
    command += [f"--threads={num_threads}", f"--rounds={num_rounds}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"'{' '.join(command)}' failed:\n{done.stderr[-4000:]}")
    return build_rows(json.loads(done.stdout.splitlines()[-1]), num_threads)


def build_rows(measured: Measurement, num_threads: int) -> list[Row]:
    """Return the rows of the medians over the rounds."""
    note = f"{measured['num_parameters'] / 1e6:.1f} M parameters, {num_threads} thread"
    medians = {
        number: {engine: statistics.median(seconds) for engine, seconds in engines.items()}
        for number, engines in measured["seconds"].items()
    }
    rows = [
        Row(
            name=f"vLLM, {number} prompts, {NUM_NEW_TOKENS} new tokens",
            ours=int(number) * NUM_NEW_TOKENS / seconds["vllm"],
            peer=int(number) * NUM_NEW_TOKENS / seconds["transformers"],
            unit="tokens/s",
            target=None,  # which one is faster is for the user to know
            note=f"transformers engine, {note}",
        )
        for number, seconds in medians.items()
    ]
    sync = Row(
        name="sync of one update",
        ours=1000 * statistics.median(measured["sync_seconds"]),
        peer=1000 * medians[str(NUM_PROMPTS[0])]["vllm"],
        unit="ms",
        target=MAX_SYNC_SHARE,
        is_cost=True,
        note=f"a rollout of {NUM_PROMPTS[0]} prompts, {note}",
    )
    return [*rows, sync]


def measure(num_rounds: int) -> Measurement:
    """Let both engines write in turns, then send the weights several times."""
    import torch

    from textgym_agents.lm.engine import TransformersEngine
    from textgym_agents.lm.engines.config import VllmEngineConfig
    from textgym_agents.lm.engines.vllm_process import VllmEngine

    network = build_network()
    length = PROMPT_LENGTH + NUM_NEW_TOKENS
    vllm = VllmEngine(network, VllmEngineConfig(max_num_seqs=max(NUM_PROMPTS)), max_length=length)
    engines: dict[str, GenerationEngine] = {
        "vllm": vllm,
        "transformers": TransformersEngine(network),
    }
    vllm.sync(0)
    seconds: dict[str, dict[str, list[float]]] = {}
    for number in NUM_PROMPTS:
        times: dict[str, list[float]] = {name: [] for name in engines}
        for round_number in range(num_rounds + 1):
            for name, engine in engines.items():
                started = time.perf_counter()
                write(engine, number, round_number)
                if round_number > 0:  # the first one warms up
                    times[name].append(time.perf_counter() - started)
        seconds[str(number)] = times
    syncs = []
    for version in range(1, NUM_SYNCS + 1):
        with torch.no_grad():
            for p in network.lm.parameters():
                p.mul_(1.001)
        syncs.append(vllm.sync(version)["time/sync_seconds"])
    vllm.close()
    num_parameters = sum(p.numel() for p in network.lm.parameters())
    return Measurement(seconds=seconds, sync_seconds=syncs, num_parameters=num_parameters)


def build_network() -> PolicyValueNetwork:
    """Return the policy of `ppo_speed`, whose completions nothing ends early."""
    import torch
    from transformers import Qwen2ForCausalLM

    from benchmarks import ppo_speed_model as work
    from textgym_agents.lm.config import PolicyConfig
    from textgym_agents.lm.network import PolicyValueNetwork

    config = work.build_config()
    config.max_position_embeddings = 256
    torch.manual_seed(0)
    return PolicyValueNetwork(
        Qwen2ForCausalLM(config), work.build_tokenizer(has_eos=False), PolicyConfig()
    )


def write(engine: GenerationEngine, number: int, seed: int) -> None:
    """Let an engine write, and raise unless it wrote every token."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    prompts = torch.randint(2, 2048, (number, PROMPT_LENGTH), generator=generator).tolist()
    limits = [NUM_NEW_TOKENS] * number
    written = engine.generate(prompts, max_new_tokens=limits, temperature=1.0, generator=generator)
    lengths = {len(g.token_ids) for g in written}
    if lengths != {NUM_NEW_TOKENS}:
        raise RuntimeError(f"{type(engine).__name__} wrote {lengths} tokens")


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    print(json.dumps(measure(options.rounds)))


if __name__ == "__main__":
    main()
