"""One iteration of each of several runs; prints the bytes that each took at its peak, as JSON.

In a process of its own, as the memory of a process is that of all it has ever done. The same is
done with a small model first: what torch and transformers load or compile on the way is then there
before anything is measured.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from textgym_agents.lm.agent import PPOAgent
from textgym_agents.lm.config import TrainConfig
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.transcript import Rollout, Transcript
from textgym_agents.memory.plan import Lengths
from textgym_agents.memory.process import peak_bytes, resident_bytes


def make_agent(config: TrainConfig, shape: dict[str, int | bool]) -> PPOAgent:
    """Return an agent whose model has no end token: completions are as long as they may be."""
    vocabulary = {f"w{i}": i for i in range(int(shape["vocab_size"]))}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    )
    lm = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen2", **shape))
    lm.generation_config.eos_token_id = lm.config.eos_token_id = None
    return PPOAgent(PolicyValueNetwork(lm, tokenizer, config.policy), config)


def iterate(agent: PPOAgent) -> None:
    """Sample completions of random prompts and learn from them."""
    config, lengths = agent.config.rollout, Lengths.of(agent.config)
    generator = torch.Generator().manual_seed(0)
    agent.start_reference()
    shape = (config.num_episodes, lengths.prompt)
    prompts = torch.randint(0, 100, shape, generator=generator).tolist()
    transcripts = []
    for start in range(0, len(prompts), config.num_rows):
        part = prompts[start : start + config.num_rows]
        generations = agent.engine.generate(
            part,
            max_new_tokens=[lengths.completion] * len(part),
            temperature=1.0,
            generator=generator,
        )
        for prompt, generation in zip(part, generations, strict=True):
            transcript = Transcript("", list(prompt))
            transcript.add_generation(generation)
            transcript.rewards[-1] = float(len(transcripts) % 2)
            transcript.terminated = True
            transcripts.append(transcript)
    agent.update(Rollout(transcripts), iteration=0, progress=0.0)


def measure(config: TrainConfig, shape: dict[str, int | bool]) -> int:
    """Return the bytes that an iteration takes above what was there before."""
    small = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 300}
    iterate(make_agent(config, {**shape, **small}))
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what it is now
    before = resident_bytes()
    iterate(make_agent(config, shape))
    return peak_bytes() - before


if __name__ == "__main__":
    torch.set_num_threads(1)
    cases = [(TrainConfig.model_validate(c), shape) for c, shape in json.load(sys.stdin)]
    print(json.dumps([measure(*case) for case in cases]))
