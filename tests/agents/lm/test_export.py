"""An exported policy is opened by transformers and peft, and says what the run's policy says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from textgym.cli.main import main
from textgym.errors import ConfigError
from textgym_agents.lm.checkpoint import find_checkpoint
from textgym_agents.lm.engine import TransformersEngine
from textgym_agents.lm.export import export_policy
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.run.directory import RunDirectory

SMALL = (
    "iterations=2", "cold_start.steps=20", "rollout.num_episodes=16", "rollout.num_envs=16",
    "ppo.batch_size=8", "evaluation.num_episodes=8", "ppo.optimizer.learning_rate=0.01",
    "ppo.kl_stop.target=null", "env.prompts=[{source: arithmetic, config: {below: 20}}]",
)  # fmt: skip


def train(run: Path, *settings: str) -> Path:
    options = [part for setting in (*SMALL, *settings) for part in ("--set", setting)]
    assert main(["train", "--run", str(run), *options]) == 0
    return run


@pytest.fixture(scope="module")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("full") / "sums")


@pytest.fixture(scope="module")
def lora_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("lora") / "sums", "policy.mode.kind=lora")


def greedy_of(run: Path) -> list[list[int]]:
    network = PolicyValueNetwork.load(find_checkpoint(RunDirectory(run)) / "policy")
    generations = TransformersEngine(network).generate(
        prompts(network.tokenizer), max_new_tokens=[6] * 4, temperature=0.0,
        generator=torch.Generator(),
    )  # fmt: skip
    return [g.token_ids for g in generations]


def prompts(tokenizer: Any) -> list[list[int]]:
    texts = ["1+2=", "17+4=", "9+9=", "0+13="]
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


def generated(model: Any, folder: Path) -> list[list[int]]:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    return [
        model.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False)[
            0, len(ids) :
        ].tolist()
        for ids in prompts(tokenizer)
    ]


def test_a_full_model_opens_in_transformers(full_run: Path, tmp_path: Path) -> None:
    assert main(["export", str(full_run), "--to", str(tmp_path / "out")]) == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert generated(model, tmp_path / "out") == greedy_of(full_run)
    assert not (tmp_path / "out" / "value_head.safetensors").exists()


def test_an_adapter_opens_in_peft_with_its_base(lora_run: Path, tmp_path: Path) -> None:
    folder = export_policy(lora_run, tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(folder / "base")
    before = generated(base, folder)
    model = PeftModel.from_pretrained(base, folder)
    assert generated(model, folder) == greedy_of(lora_run) != before
    assert generated(AutoModelForCausalLM.from_pretrained(folder), folder) == greedy_of(lora_run)


def test_a_merged_adapter_is_a_whole_model(lora_run: Path, tmp_path: Path) -> None:
    folder = export_policy(lora_run, tmp_path / "merged", merge=True)
    assert not (folder / "adapter_config.json").exists()
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert generated(model, folder) == greedy_of(lora_run)
    assert not any("lora" in name for name, _ in model.named_parameters())


def test_the_card_says_data_recipe_and_scores(full_run: Path, tmp_path: Path) -> None:
    checkpoint = find_checkpoint(RunDirectory(full_run))
    suite = full_run / "evaluation" / checkpoint.name / "tiny-sums"
    suite.mkdir(parents=True)
    (suite / "items.jsonl").write_text("")
    metric = {"value": 0.5, "low": 0.4, "high": 0.6, "count": 90}
    (suite / "metrics.json").write_text(json.dumps({"success": metric}))
    card = ModelCard.load(export_policy(full_run, tmp_path / "out") / "README.md")
    card_data = card.data
    results = {
        (r.dataset_name, r.metric_name): r.metric_value for r in card_data.eval_results or []
    }
    rows = [json.loads(x) for x in (full_run / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["phase"] == "evaluation"][-1]
    held_out = "held-out prompts of the run"
    assert results[held_out, "accuracy, greedy"] == last["evaluation/greedy"]
    assert results["tiny-sums", "success"] == 0.5
    assert card_data.library_name == "transformers"
    assert card_data.model_name == "out"
    for part in (
        "trained with textgym by PPO", '"source": "arithmetic"', "reward: `math`", "62% were made",
        "2 iterations, seed 0", "| `ppo.optimizer.learning_rate` | 0.01 |",
        "| tiny-sums | success |  | 0.5 | 0.4 to 0.6 |",
    ):  # fmt: skip
        assert part in card.text, part
    assert str(tmp_path) not in card.content
    assert str(full_run.parent) not in card.content


def test_a_run_of_sft_that_began_with_a_run(full_run: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"{a}+1=", "completion": str(a + 1)} for a in range(10)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--data", str(tmp_path / "rows.jsonl"), "--model", str(full_run), "--steps", "2")
    assert main(["sft", *options, "--run", str(tmp_path / "sft")]) == 0
    folder = export_policy(tmp_path / "sft", tmp_path / "out")
    card = ModelCard.load(folder / "README.md")
    assert "`sums`, trained with textgym by supervised fine-tuning" in card.text
    assert "- rows: `rows.jsonl`" in card.text
    assert "2 steps, seed 0" in card.text
    assert str(tmp_path) not in card.content
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert generated(model, folder) == greedy_of(tmp_path / "sft")


def test_ids_that_are_illegal_are_not_generated(tmp_path: Path) -> None:
    options = ("iterations=1", "rollout.num_episodes=16", "rollout.num_envs=16", "ppo.batch_size=8")
    settings = [part for option in options for part in ("--set", option)]
    command = ("train", "--agent", "ppo", "--env", "textgym:ToyTextSmall-v0", "--model", "tiny")
    assert main([*command, "--run", str(tmp_path / "run"), *settings]) == 0
    folder = export_policy(tmp_path / "run", tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert generated(model, folder) == greedy_of(tmp_path / "run")
    assert model.generation_config.suppress_tokens


def test_what_cannot_be_exported_is_explained(full_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run directory"):
        export_policy(tmp_path, tmp_path / "out")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(ConfigError, match="has no checkpoint yet"):
        export_policy(tmp_path / "new", tmp_path / "out")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is in use; name a folder that is empty"):
        export_policy(full_run, tmp_path / "used")
    assert [p.name for p in (tmp_path / "used").iterdir()] == ["notes.txt"]
    command = ("train", "--agent", "random", "--env", "ToyTextSmall-v0", "--steps", "20")
    assert main([*command, "--run", str(tmp_path / "agent")]) == 0
    with pytest.raises(ConfigError, match="without a language model"):
        export_policy(tmp_path / "agent", tmp_path / "out")
    assert not (tmp_path / "out").exists()
