"""Every first-party reward goes through the conformance kit, by the command that anyone runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from textgym import Reward, Sample
from textgym.cli.main import main
from textgym.plugins import plugin_manager
from textgym.testing import cases_of, probes
from textgym_plugins.kbqa import Kbqa
from textgym_plugins.reward_model import RewardModel
from textgym_plugins.safety import SafetyReward

REWARDS = sorted(
    name for name, c in plugin_manager().rewards.items() if c.plugin.distribution == "textgym"
)
PACKAGES = {
    "similarity": "rouge_score",
    "json_format": "jsonschema",
    "ifeval": "langdetect",
    "judge": "httpx",
    "kbqa_judged": "httpx",
    "reasoning_gym": "reasoning_gym",
    "remote": "fastapi",
    "reward_model": "torch",
    "safety": "torch",
    "semantic_similarity": "torch",
}
"""What a check of a reward needs, where the reward alone does not."""


@contextmanager
def code(folder: Path, chat_server: Any) -> Iterator[str]:
    if shutil.which("bwrap") is None:
        pytest.skip("bwrap is not installed")
    yield "--set num_workers=1"


@contextmanager
def judge(folder: Path, chat_server: Any) -> Iterator[str]:
    """The model behind the endpoint knows the answers; what is checked is the reward around it."""

    def reply(shown: dict[str, str]) -> dict[str, object]:
        is_right = shown["answer"] in ("The capital of Norway is Oslo.", "12")
        return {"score": 10 if is_right else 2}

    chat_server.reply = reply
    yield f"--set endpoint.url={chat_server.url} --set endpoint.model=any"
    assert len(chat_server.asked) > 40


@contextmanager
def kbqa_judged(folder: Path, chat_server: Any) -> Iterator[str]:
    """The model behind the endpoint knows what the gold completions of `kbqa` do."""
    known = {text: "refused" if case.prompt.answerable is False else "right"
             for case in cases_of(Kbqa) for text in case.gold}  # fmt: skip
    chat_server.reply = lambda shown: {"label": known.get(shown["answer"], "wrong")}
    endpoint = f"--set judge.endpoint.url={chat_server.url} --set judge.endpoint.model=any"
    yield f"--cases kbqa {endpoint}"
    assert chat_server.asked


@contextmanager
def remote(folder: Path, chat_server: Any) -> Iterator[str]:
    """A service in a process of its own, with the cases of the reward that it scores with."""
    command = [sys.executable, "-m", "textgym", "serve", "rewards", "--port", "0"]
    with subprocess.Popen(
        [*command, "--reward", "choice", "--workers", "1"], stdout=subprocess.PIPE, text=True
    ) as service:
        try:
            assert service.stdout is not None
            url = json.loads(service.stdout.readline())["url"]
            yield f"--set url={url} --cases choice"
        finally:
            service.terminate()


@contextmanager
def reward_model(folder: Path, chat_server: Any) -> Iterator[str]:
    write_classifier(folder, RewardModel, heads=(1.0,), probes_are_good=False)
    yield f"--set model={folder} --set device=cpu --set max_tokens=64 --tolerance 1e-4"


@contextmanager
def safety(folder: Path, chat_server: Any) -> Iterator[str]:
    write_classifier(folder, SafetyReward, heads=(4.0, -4.0), probes_are_good=True)
    options = f"--set model={folder} --set device=cpu --set max_tokens=64 --tolerance 1e-4"
    yield f"{options} --set safe=[0]"


@contextmanager
def semantic_similarity(folder: Path, chat_server: Any) -> Iterator[str]:
    """A random network tells texts apart, which is all that is asked of it here."""
    write_classifier(folder, RewardModel, heads=(1.0,), probes_are_good=False)
    yield f"--set model={folder} --set device=cpu --set max_tokens=64 --tolerance 1e-4"


def write_classifier(
    folder: Path, reward: type[Reward], *, heads: Sequence[float], probes_are_good: bool
) -> None:
    """Write a random transformer whose heads are fitted to the cases that a reward ships.

    Args:
        folder: where to.
        reward: whose cases; gold gets the number of each head, wrong its opposite.
        heads: what each head says of what is good.
        probes_are_good: on which side the probes of the kit are.
    """
    import torch

    from textgym_plugins.reward_model.encoding import Encoder
    from textgym_plugins.reward_model.tiny import tiny_classifier, tiny_tokenizer

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    model = tiny_classifier(tokenizer, num_heads=len(heads))
    encoder = Encoder(tokenizer, max_tokens=64)
    features, signs = [], []
    for case in cases_of(reward):
        good = {*case.gold, *(probes(case).values() if probes_are_good else ())}
        for text in dict.fromkeys((*case.gold, *case.wrong, *probes(case).values())):
            ids = torch.tensor([encoder.encode(Sample(case.prompt, text)).ids])
            with torch.no_grad():
                features.append(model.model(input_ids=ids).last_hidden_state[0, -1])
            signs.append(1.0 if text in good else -1.0)
    wanted = torch.outer(torch.tensor(signs), torch.tensor(heads))
    solution = torch.linalg.lstsq(torch.stack(features), wanted).solution
    model.score.weight.data = solution.T.contiguous()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


SETUPS: dict[str, Callable[[Path, Any], AbstractContextManager[str]]] = {
    "code": code,
    "judge": judge,
    "kbqa_judged": kbqa_judged,
    "remote": remote,
    "reward_model": reward_model,
    "safety": safety,
    "semantic_similarity": semantic_similarity,
}
"""The options that a reward is checked with, and what has to be there for them."""


@pytest.mark.parametrize("name", REWARDS)
def test_reward_conforms(
    name: str, tmp_path: Path, chat_server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])
    setup = SETUPS[name](tmp_path, chat_server) if name in SETUPS else nullcontext("")
    with setup as options:
        exit_code = main(["plugins", "check", name, "--json", *options.split()])
        out, error = capsys.readouterr()
    assert exit_code in (0, 1), error
    [report] = json.loads(out)
    assert report["findings"] == []
    assert exit_code == 0
    assert report["reward"] == name
    assert report["num_samples"] > 20


def test_the_page_on_conformance_tells_how_each_is_checked() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"
    told = set(re.findall(r"^textgym plugins check (\w+)", page.read_text(), re.M))
    assert set(SETUPS) - told == set()
