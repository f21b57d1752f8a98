"""What is written of each token is what the update learnt from, and reads as the completion."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from textgym.cli.main import main
from textgym_agents.core.buffer import Episode, collate
from textgym_agents.lm.engine import Generation
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.tiny import tiny_tokenizer
from textgym_agents.lm.token_records import keep_measures, token_record, token_texts
from textgym_agents.lm.transcript import Transcript

QUICK = [
    "--preset", "seed", "--set", "iterations=1", "--set", "rollout.num_episodes=8",
    "--set", "rollout.num_envs=8", "--set", "rollout.max_new_tokens=3",
    "--set", "rollout.max_length=64", "--set", "evaluation.num_episodes=2",
    "--set", "env.prompts=arithmetic", "--reward", "math", "--set", "log_rollouts=5",
    "--set", "env.kwargs={score_length_cut: true}",
]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["plain words", "naïve 漢字 and 🙂🙂", " spaces  \n\n", "", "a\ud7ffb", "é" * 40]
)
def test_texts_of_tokens_are_together_the_text(text: str) -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer(text)["input_ids"]
    texts = token_texts(tokenizer, ids)
    assert len(texts) == len(ids)
    assert "".join(texts) == text


def test_half_a_character_at_the_end_is_not_lost() -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer("a🙂")["input_ids"]
    assert len(ids) > 2
    texts = token_texts(tokenizer, ids[:-1])
    assert texts[0] == "a"
    assert set("".join(texts[1:])) == {"\ufffd"}


def two_turns() -> Transcript:
    """Return an episode with a message of the environment between two turns."""
    transcript = Transcript("12", [1, 2])
    transcript.add_generation(Generation([3, 4], [-0.5, -0.25], "stop", 0))
    transcript.add_observation([10])
    transcript.add_generation(Generation([5], [-1.0], "stop", 0))
    transcript.terminated = True
    return transcript


def test_tokens_of_the_environment_have_no_figures(tiny_policy: PolicyValueNetwork) -> None:
    transcript = two_turns()
    length = len(transcript.ids)
    batch = collate([transcript.episode()])
    numbers = torch.arange(length, dtype=torch.float32)[None]
    batch = batch.__class__(**{**vars(batch), "values": numbers, "advantages": -numbers})
    keep_measures([transcript], batch, numbers / 8, has_critic=True)
    tokens = token_record(transcript, tiny_policy.tokenizer)["tokens"]
    assert tokens == {
        "text": ["3", "4", "B", "5"],
        "logprobs": [-0.5, -0.25, None, -1.0],
        "values": [2.0, 3.0, None, 5.0],
        "advantages": [-2.0, -3.0, None, -5.0],
        "kl": [0.25, 0.375, None, 0.625],
    }


def test_without_critic_and_reference_there_is_less(
    tiny_policy: PolicyValueNetwork, episode: Callable[..., Episode]
) -> None:
    transcript = two_turns()
    assert set(token_record(transcript, tiny_policy.tokenizer)["tokens"]) == {"text", "logprobs"}
    keep_measures([transcript], collate([transcript.episode()]), None, has_critic=False)
    found = token_record(transcript, tiny_policy.tokenizer)["tokens"]
    assert set(found) == {"text", "logprobs", "advantages"}
    assert token_record(Transcript("1", [1]), tiny_policy.tokenizer) == {}


def test_a_run_writes_what_its_update_knew(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["train", "--run", str(run), *QUICK, "--set", "ppo.kl_penalty.beta=0.1"]) == 0
    for name, fields in (
        ("iteration-0000001", {"text", "logprobs", "values", "advantages", "kl"}),
        ("evaluation-0000001", {"text", "logprobs"}),
    ):
        for record in lines_of(run / "rollouts" / f"{name}.jsonl"):
            tokens = record["tokens"]
            assert set(tokens) == fields
            assert {len(column) for column in tokens.values()} == {record["num_tokens"]}
            assert "".join(tokens["text"]).startswith(record["completion"])
    (first, *_) = lines_of(run / "rollouts" / "iteration-0000001.jsonl")
    assert first["tokens"]["kl"] == [0.0] * first["num_tokens"]  # nothing was learnt yet


def test_tokens_can_be_left_out(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["train", "--run", str(run), *QUICK, "--set", "log_tokens=false"]) == 0
    records = lines_of(run / "rollouts" / "iteration-0000001.jsonl")
    assert len(records) == 5
    assert all("tokens" not in record for record in records)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
