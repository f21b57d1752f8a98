"""SFT and DPO: the rows that are learnt, TRL's losses against our own, and what a run leaves."""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import softplus

from textgym.cli.main import main
from textgym.errors import ConfigError, PromptError
from textgym_agents.cli.offline import dpo as dpo_command
from textgym_agents.cli.offline import sft as sft_command
from textgym_agents.cli.train import train as train_command
from textgym_agents.core.buffer import Batch, Episode, collate
from textgym_agents.core.guard import NotFiniteError
from textgym_agents.lm.config import EnvConfig, FullMode, LastLayersMode, LoraMode, PolicyConfig
from textgym_agents.lm.envs import make_envs
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.offline import run as run_module
from textgym_agents.lm.offline.config import DPORunConfig, SFTRunConfig, TuningConfig
from textgym_agents.lm.offline.data import Examples, read_examples
from textgym_agents.lm.offline.run import tune
from textgym_agents.lm.offline.trl_trainers import make_trainer
from textgym_agents.processes import ONE
from textgym_agents.run.directory import RunDirectory
from textgym_agents.run.progress import SilentProgress

MakePolicy = Callable[..., PolicyValueNetwork]
DEMONSTRATIONS = [
    '{"prompt": "A", "completion": "12"}',
    "no JSON",
    '{"prompt": [{"role": "user", "content": "B"}], "completion": "3", "score": 5}',
    '{"messages": [{"role": "user", "content": "C"}, {"role": "assistant", "content": "45"}]}',
    '{"prompt": "A"}',
    '{"prompt": "A", "completion": ""}',
    '{"prompt": "", "completion": "1"}',
    '{"messages": [{"role": "user", "content": "C"}]}',
    '{"prompt": "ABCABCABCABC", "completion": "1"}',
    '{"prompt": "ABC", "completion": "1234512345"}',
]
PREFERENCES = [
    '{"prompt": "A", "chosen": "12", "rejected": "1"}',
    '{"prompt": "B", "chosen": [{"role": "assistant", "content": "3"}], "rejected": "45"}',
    '{"prompt": "C", "chosen": "1", "rejected": "1"}',
    '{"prompt": "C", "chosen": [{"role": "user", "content": "3"}], "rejected": "45"}',
    '{"prompt": "C", "chosen": "1"}',
    '{"prompt": "ABCABC", "chosen": "11111", "rejected": "11112"}',
    '{"prompt": "AB", "chosen": "543", "rejected": "2"}',
]
ALL_TO_LEARN = {"kwargs": {"evaluation_share": 0.0}}


@pytest.fixture
def demonstrations(tmp_path: Path) -> str:
    (tmp_path / "demos.jsonl").write_text("\n".join(DEMONSTRATIONS))
    return str(tmp_path / "demos.jsonl")


@pytest.fixture
def preferences(tmp_path: Path) -> str:
    (tmp_path / "pairs.jsonl").write_text("\n".join(PREFERENCES))
    return str(tmp_path / "pairs.jsonl")


@pytest.fixture
def sums(tmp_path: Path) -> dict[str, str]:
    """Files of sums, for SFT and for DPO."""
    rows = [(f"{a}+{b}=", a + b) for a in range(8) for b in range(8)]
    demos = [{"prompt": q, "completion": str(c)} for q, c in rows]
    pairs = [{"prompt": q, "chosen": str(c), "rejected": "no"} for q, c in rows]
    for name, lines in (("sft", demos), ("dpo", pairs)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / f"{name}.jsonl").write_text(text)
    return {name: str(tmp_path / f"{name}.jsonl") for name in ("sft", "dpo")}


def config_of(kind: type[TuningConfig], file: str, **changes: Any) -> Any:
    return kind.model_validate({"data": {"file": file}, "batch_size": 8, **changes})


# Rows --------------------------------------------------------------------------------------------


def test_demonstrations_are_encoded_as_rollouts_are(
    make_policy: MakePolicy, demonstrations: str
) -> None:
    network = make_policy()
    ids = network.tokenizer.get_vocab()
    config = config_of(SFTRunConfig, demonstrations, env=ALL_TO_LEARN, max_length=12)
    examples = read_examples(network, config)
    texts = [("A", "12$"), ("B", "3$"), ("C", "45$"), ("ABC", "123451234")]
    wanted = [{"prompt": [ids[c] for c in p], "completion": [ids[c] for c in a]} for p, a in texts]
    assert examples.train == wanted
    assert examples.evaluation == []
    assert examples.num_truncated == 1
    said = [problem.removeprefix(f"{demonstrations}:") for problem in examples.problems]
    assert said == [
        "2: not JSON: Expecting value at column 1",
        "5: field 'completion': the field is missing; the line has prompt",
        "6: field 'completion': is empty",
        "7: field 'prompt': is empty",
        "8: field 'messages': expected a chat that ends with the assistant's message",
        "a prompt of 12 tokens leaves no room within max_length 12",
    ]
    assert "4 rows to learn from, 0 held out, 1 cut at max_length, 6 left out:" in (
        examples.summary()
    )


def test_preferences_are_encoded_with_one_prompt(make_policy: MakePolicy, preferences: str) -> None:
    network = make_policy()
    ids = network.tokenizer.get_vocab()
    config = config_of(DPORunConfig, preferences, env=ALL_TO_LEARN, max_length=10)
    examples = read_examples(network, config)
    texts = [("A", "12$", "1$"), ("B", "3$", "45$"), ("AB", "543$", "2$")]
    names = ("prompt", "chosen", "rejected")
    assert examples.train == [
        {n: [ids[c] for c in text] for n, text in zip(names, row, strict=True)} for row in texts
    ]
    said = "\n".join(examples.problems)
    assert ":3: field 'rejected': is equal to 'chosen', '1'; drop the pair" in said
    assert ":4: field 'chosen': ends with a message of the user, not of the assistant" in said
    assert ":5: field 'rejected': the field is missing" in said
    assert "a pair whose difference lies beyond max_length" in said
    assert len(examples.problems) == 4


def test_prompts_of_a_source_have_their_completions_where_one_says(
    make_policy: MakePolicy, tmp_path: Path
) -> None:
    network = make_policy()
    rows = [
        {"id": "a", "messages": "A", "target": 3, "metadata": {"solution": "1"}},
        {"id": "b", "messages": "B", "target": ["3"], "metadata": {"solution": "2"}},
        {"id": "c", "messages": "C", "target": "4", "metadata": {}},
    ]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    env = ALL_TO_LEARN | {"prompts": str(tmp_path / "prompts.jsonl")}
    decode = network.tokenizer.decode

    def learnt(completion: str | None) -> tuple[list[str], list[str]]:
        config = SFTRunConfig.model_validate({"env": env, "data": {"completion": completion}})
        examples = read_examples(network, config)
        return [decode(row["completion"]) for row in examples.train], examples.problems

    assert learnt("target") == (
        ["3$", "4$"], ["prompt 'b': its target is ['3'], which is no completion to learn"],
    )  # fmt: skip
    said = "its source demonstrates no completion; give data.file"
    assert learnt(None) == (["3$", "4$"], [f"prompt 'b': {said}"])
    assert learnt("metadata.solution")[0] == ["1$", "2$"]
    with pytest.raises(ConfigError, match="there is nothing to learn from: 0 rows"):
        learnt("metadata.solutions")


def test_demonstrations_of_a_source_are_rows_and_pairs(make_policy: MakePolicy) -> None:
    network = PolicyValueNetwork.from_config(PolicyConfig(), seed=0)
    env = EnvConfig(prompts="tiny_kbqa", kwargs={"evaluation_share": 0.0})
    pool: Any = make_envs(env.model_copy(update={"reward": "exact_match"}), 1).unwrapped.pool
    shown = [pool.demonstrations(i) for i in range(len(pool))]
    assert max(len(each.wrong) for each in shown) > 1
    decode = network.tokenizer.decode

    def texts(kind: type[TuningConfig], *names: str, most: int) -> list[list[str]]:
        config = kind.model_validate({"env": env, "data": {"per_prompt": most}})
        rows = read_examples(network, config).train
        return [[decode(row[n]).removesuffix("<|im_end|>") for n in names] for row in rows]

    assert texts(SFTRunConfig, "completion", most=1) == [[each.right[0]] for each in shown]
    everything = [[a, b] for each in shown for a in each.right for b in each.wrong]
    assert texts(DPORunConfig, "chosen", "rejected", most=100) == everything
    firsts = [[each.right[0], each.wrong[0]] for each in shown]
    assert texts(DPORunConfig, "chosen", "rejected", most=1) == firsts


def test_templates_render_and_some_prompts_are_held_out(
    make_policy: MakePolicy, sums: dict[str, str]
) -> None:
    network = PolicyValueNetwork.from_config(PolicyConfig(), seed=0)
    env = {"kwargs": {"template": "chatml", "evaluation_share": 0.3}}
    examples = read_examples(network, config_of(SFTRunConfig, sums["sft"], env=env))
    assert len(examples.train) + len(examples.evaluation) == 64
    assert 8 < len(examples.evaluation) < 32
    few = config_of(SFTRunConfig, sums["sft"], env=env, evaluation_rows=3)
    chosen = read_examples(network, few).evaluation
    assert len(chosen) == 3
    assert chosen[0] == examples.evaluation[0]
    assert all(row in examples.evaluation[2:] for row in chosen[1:])
    text = network.tokenizer.decode(examples.train[0]["prompt"])
    assert text.startswith("<|im_start|>user\n")
    assert text.endswith("=<|im_end|>\n<|im_start|>assistant\n")
    assert network.tokenizer.decode(examples.train[0]["completion"]).endswith("<|im_end|>")


def test_files_that_cannot_be_used_are_said(make_policy: MakePolicy, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"prompt": "A"}\n')
    network = make_policy()
    for name, said in (("none", "cannot be read"), ("bad", "holds no usable demonstration")):
        with pytest.raises(PromptError, match=said):
            read_examples(network, config_of(SFTRunConfig, str(tmp_path / f"{name}.jsonl")))


# Losses ------------------------------------------------------------------------------------------


def batch_of(rows: list[Mapping[str, list[int]]], name: str) -> Batch:
    episodes = []
    for row in rows:
        ids = torch.tensor([*row["prompt"], *row[name]])
        mask = torch.arange(len(ids)) >= len(row["prompt"])
        episodes.append(Episode(ids, mask, torch.zeros(len(ids)), True, False))
    return collate(episodes)


def trainer_for(
    network: PolicyValueNetwork, config: Any, rows: list[dict[str, list[int]]], folder: Path
) -> tuple[Any, Any]:
    """Return TRL's trainer and a batch of it."""
    examples = Examples(train=rows)
    trainer = make_trainer(network, examples, config, folder=folder, processes=ONE)
    return trainer, trainer.data_collator([trainer.train_dataset[i] for i in range(len(rows))])


@pytest.mark.parametrize("mode", [FullMode(), LoraMode(rank=2), LastLayersMode(k=1)])
def test_the_loss_of_sft_is_the_cross_entropy_of_the_completions(
    make_policy: MakePolicy, demonstrations: str, tmp_path: Path, mode: FullMode
) -> None:
    network = make_policy(config=PolicyConfig(mode=mode))
    config = config_of(SFTRunConfig, demonstrations, env=ALL_TO_LEARN, batch_size=4)
    rows = read_examples(network, config).train
    batch = batch_of(rows, "completion")
    ours = network.evaluate(batch).logprobs.sum() / batch.action_mask.sum()
    trainer, inputs = trainer_for(network, config, rows, tmp_path / "trl")
    loss = trainer.compute_loss(network.lm, inputs)
    assert loss.item() == pytest.approx(-ours.item(), abs=1e-5)
    learns = {id(p) for p in network.trainable()}
    trainer.create_optimizer()
    groups = trainer.optimizer.param_groups
    assert {id(p) for group in groups for p in group["params"]} == learns


def log_ratios(network: PolicyValueNetwork, reference: Tensor, batch: Batch) -> Tensor:
    return network.evaluate(batch).logprobs - reference


@pytest.mark.parametrize("mode", [FullMode(), LoraMode(rank=2)])
@pytest.mark.parametrize(
    "settings",
    [{}, {"beta": 2.0, "label_smoothing": 0.2}, {"loss": "ipo"}, {"beta": 1e4}],
    ids=["plain", "smoothed", "ipo", "steep"],
)
def test_the_loss_of_dpo_is_that_of_the_paper(
    make_policy: MakePolicy, preferences: str, tmp_path: Path, mode: FullMode, settings: Any
) -> None:
    """ln 2 at the start (T25), and the formula of the configuration's docstring after a step."""
    network = make_policy(config=PolicyConfig(mode=mode), adapter_std=0.0)
    config = config_of(DPORunConfig, preferences, env=ALL_TO_LEARN, batch_size=3, **settings)
    rows = read_examples(network, config).train
    batches = [batch_of(rows, name) for name in ("chosen", "rejected")]
    with torch.no_grad():
        before = [network.evaluate(batch).logprobs for batch in batches]
    trainer, inputs = trainer_for(network, config, rows, tmp_path / "trl")
    start = trainer.compute_loss(network.lm, inputs).item()
    is_ipo = config.loss == "ipo"
    assert start == pytest.approx((1 / (2 * config.beta)) ** 2 if is_ipo else math.log(2), rel=1e-5)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in network.trainable():
            p += 0.05 * torch.randn(p.shape, generator=generator)
        ratios = [log_ratios(network, b, batch) for b, batch in zip(before, batches, strict=True)]
    chosen, rejected = (
        (x / batch.action_mask.sum(1, keepdim=True) if is_ipo else x).sum(1)
        for x, batch in zip(ratios, batches, strict=True)
    )
    d, beta, s = chosen - rejected, config.beta, config.label_smoothing
    wanted = (d - 1 / (2 * beta)) ** 2 if is_ipo else (
        (1 - s) * softplus(-beta * d) + s * softplus(beta * d)
    )  # fmt: skip
    found = trainer.compute_loss(network.lm, inputs).item()
    assert found == pytest.approx(float(wanted.mean()), rel=1e-4)
    assert math.isfinite(found)
    if not is_ipo:
        margins = trainer._metrics["eval"]["rewards/margins"][-1]
        assert margins == pytest.approx(float(beta * d.mean()), rel=1e-4)


# Runs --------------------------------------------------------------------------------------------


def rows_of(run: Path, phase: str) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["phase"] == phase]


def test_sft_then_dpo_and_their_policies_can_be_used(
    sums: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tune(
        config_of(SFTRunConfig, sums["sft"], steps=12, evaluate_every=4, micro_batch_size=4),
        Path("sft"),
    )
    learnt, held_out = rows_of(Path("sft"), "sft"), rows_of(Path("sft"), "evaluation")
    assert [row["iteration"] for row in learnt] == list(range(1, 13))
    assert [row["iteration"] for row in held_out] == [0, 4, 8, 12]
    assert held_out[-1]["evaluation/loss"] < 0.8 * held_out[0]["evaluation/loss"]
    assert learnt[-1]["time/tokens_per_second"] > 0
    assert (Path("sft") / "curves.png").exists()

    lora = {"model": "sft", "mode": {"kind": "lora", "rank": 2}}
    config = config_of(
        DPORunConfig, sums["dpo"], steps=8, policy=lora, learning_rate=3e-3, evaluate_every=4
    )
    tune(config, Path("dpo"))
    tuned, judged = rows_of(Path("dpo"), "dpo"), rows_of(Path("dpo"), "evaluation")
    assert tuned[0]["dpo/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert judged[0]["evaluation/rewards/margins"] == 0.0
    assert judged[-1]["evaluation/rewards/margins"] > 1e-3
    assert judged[-1]["evaluation/loss"] < judged[0]["evaluation/loss"]
    assert {"dpo/rewards/chosen", "dpo/rewards/rejected", "dpo/rewards/accuracies"} <= {*tuned[0]}
    checkpoint = RunDirectory(Path("dpo")).latest_checkpoint()
    assert checkpoint is not None
    assert (checkpoint / "policy" / "adapter_model.safetensors").exists()

    limits = ["--episodes", "4", "--set", "rollout.max_new_tokens=4", "--json"]
    for run in ("sft", "dpo"):
        assert main(["evaluate", run, "--best", *limits]) == 0
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert found["evaluation/greedy_failed"] == 0
    quick = ["--set", "iterations=1", "--set", "rollout.max_new_tokens=2"]
    more = ["train", "--model", "dpo", "--run", "ppo", "--preset", "seed", *quick]
    assert main([*more, "--set", "evaluation.num_episodes=2"]) == 0


class Interrupting(SilentProgress):
    """Presses Ctrl-C once, after a step."""

    def __init__(self, step: int) -> None:
        self.left = step

    def advance(self, *_: Any, **__: Any) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


def tensors_of(run: RunDirectory, checkpoint: Path | None) -> dict[str, Tensor]:
    assert checkpoint is not None
    found: dict[str, Tensor] = {}
    for path in checkpoint.rglob("*.safetensors"):
        found |= {f"{path.relative_to(checkpoint)}/{k}": x for k, x in load_file(path).items()}
    return found


def lines_of(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("time")} for row in rows]


RESUMED = {
    "sft": (SFTRunConfig, {}),
    "sft, last layers": (SFTRunConfig, {"policy": {"mode": {"kind": "last_k", "k": 1}}}),
    "dpo": (DPORunConfig, {}),
    "dpo, lora": (DPORunConfig, {"policy": {"mode": {"kind": "lora", "rank": 2}}}),
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_goes_on_exactly_after_ctrl_c(
    sums: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """In the second pass over the data, with steps of two passes each, and a checkpoint between."""
    monkeypatch.setattr(run_module, "plot_tuning_run", lambda *_: None)
    kind, changes = RESUMED[name]
    command = name.partition(",")[0]
    config = config_of(
        kind, sums[command], epochs=2, batch_size=10, micro_batch_size=5, evaluate_every=5,
        checkpoint_every=3, env={"kwargs": {"evaluation_share": 0.3}}, **changes,
    )  # fmt: skip
    whole, parts = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "parts")
    tune(config, whole.path)
    num_steps = len(rows_of(whole.path, command))
    assert num_steps > 8
    with pytest.raises(KeyboardInterrupt):
        tune(config, parts.path, progress=Interrupting(num_steps // 2 + 1))
    stopped = parts.latest_checkpoint()
    assert stopped == parts.checkpoint_path(num_steps // 2 + 2)
    with parts.metrics_path.open("a") as file:
        file.write('{"phase": "sft", "iteration": 99}\n')  # from after the checkpoint
    tune(config, parts.path, resume=True)
    assert lines_of(parts.path) == lines_of(whole.path)
    first = tensors_of(whole, whole.latest_checkpoint())
    second = tensors_of(parts, parts.latest_checkpoint())
    assert len(first) > 10
    assert first.keys() == second.keys()
    assert all(torch.equal(x, second[k]) for k, x in first.items())


def run_command(name: str, *arguments: str) -> int:
    """Run `textgym sft`, `dpo` or `train`, which raise what the command line tells."""
    command = {"sft": sft_command, "dpo": dpo_command, "train": train_command}[name]
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return command.run(parser.parse_args(arguments))


def test_a_run_is_continued_by_its_own_command_with_its_own_data(
    sums: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "plot_tuning_run", lambda *_: None)
    run = str(tmp_path / "run")
    limits = ["--steps", "2", "--set", "batch_size=4"]
    assert run_command("sft", "--data", sums["sft"], "--run", run, *limits) == 0
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert run_command("sft", "--resume", run, "--set", "keep_checkpoints=3") == 0  # nothing left
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    for arguments, said in (
        (["dpo", "--resume", run], "is a run of `textgym sft`; continue it with: textgym sft"),
        (["train", "--resume", run], "is a run of `textgym sft`; continue it with: textgym sft"),
        (["sft", "--resume", run, "--steps", "9"], "'steps' cannot change within a run"),
        (["sft", "--resume", run, "--run", run], "leave out the configuration file and --run"),
    ):
        with pytest.raises(ConfigError, match=said):
            run_command(*arguments)
    Path(sums["sft"]).write_text('{"prompt": "1+1=", "completion": "2"}\n')
    with pytest.raises(ConfigError, match="no longer those that the run learnt from"):
        run_command("sft", "--resume", run)


def test_gradients_that_are_not_finite_are_skipped_and_then_stop_the_run(
    sums: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def from_config(config: PolicyConfig, *, seed: int) -> PolicyValueNetwork:
        network = original(config, seed=seed)

        def spoil(gradient: Tensor) -> Tensor:
            calls.append(1)
            return gradient * math.nan if len(calls) in (2, 4, 5) else gradient

        network.trainable()[-1].register_hook(spoil)
        networks.append(network)
        return network

    networks: list[PolicyValueNetwork] = []
    original = PolicyValueNetwork.from_config
    monkeypatch.setattr(PolicyValueNetwork, "from_config", from_config)
    config = config_of(SFTRunConfig, sums["sft"], steps=9, max_skipped_steps=2)
    with pytest.raises(NotFiniteError, match="in 2 optimiser steps in a row") as raised:
        tune(config, tmp_path / "run")
    assert len(calls) == 5
    assert all(bool(p.isfinite().all()) for p in networks[0].parameters())
    path = tmp_path / "run" / "not-finite-step-0000005.jsonl"
    assert str(path) in str(raised.value)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 8
    assert all(len(row["ids"]) == len(row["learnt"]) > sum(row["learnt"]) > 0 for row in rows)
    skipped = [row["sft/skipped_steps"] for row in rows_of(tmp_path / "run", "sft")]
    assert skipped == [0.0, 1.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        ("sft", ["--data", "none.jsonl"], "none.jsonl: cannot be read"),
        ("dpo", ["--data", "demos.jsonl"], "demos.jsonl holds no usable preference"),
        ("dpo", [], "its source demonstrates no right and wrong completion"),
        ("sft", ["--set", "batch_size=8", "--set", "micro_batch_size=3"], "must be a multiple"),
        ("sft", ["--set", "data.fil=x"], "Did you mean 'data.file'"),
        ("sft", ["--set", "policy.mode.kind=qlora"], "take the mode 'lora'"),
        ("sft", ["--model", "./none"], "cannot load './none'"),
        ("dpo", ["--set", "label_smoothing=0.5"], "label_smoothing"),
        ("dpo", ["--set", "label_smoothing=0.1", "--set", "loss=ipo"], "the loss ipo has none"),
        ("sft", ["--set", "kind=dpo"], "'kind' is 'dpo'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_clear_error_and_leaves_no_run(
    demonstrations: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str,
    arguments: list[str], said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises((ConfigError, PromptError)) as raised:
        run_command(command, *arguments)
    assert said in str(raised.value)
    assert not (tmp_path / "runs").exists()
