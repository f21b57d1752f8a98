"""Supervised start: a few hundred steps of cross-entropy on demonstrations, many of them wrong.

PPO cannot teach what the policy almost never samples. Demonstrations whose answers are right only
now and then give it an unreliable ability, which a verifiable reward then makes reliable. The loop
is plain: it trains through the network's own `evaluate`, and starts at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from textgym.errors import ConfigError, PromptError
from textgym.prompt import Prompt
from textgym.prompt_source import Demonstrations, Dialogues
from textgym.seeding import Purpose, stream
from textgym_agents.core.buffer import Batch, Episode, collate
from textgym_agents.core.guard import StepGuard
from textgym_agents.core.masked import masked_sum
from textgym_agents.lm.config import ColdStartConfig
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.optimizer import make_optimizer, set_learning_rate
from textgym_agents.lm.texts import encode
from textgym_agents.processes import ONE, Processes

DIGITS = "0123456789"
T = TypeVar("T")


class Demonstration(NamedTuple):
    """A prompt as the environment renders it, and what to answer."""

    prompt: str
    completion: str
    rest: tuple[str, ...] = ()
    """Of a dialogue: what the environment answers, the next completion, and so on."""


class Pool(Protocol):
    """What the demonstrator needs of an environment's prompt pool."""

    def draw(self, key: int, episode: int) -> int:
        """Return the index of the prompt of an episode of the stream `key`."""
        ...

    def prompt(self, index: int) -> Prompt:
        """Return a prompt."""
        ...

    def demonstrations(self, index: int) -> Demonstrations:
        """Return right and wrong completions of a prompt."""
        ...

    def render(self, index: int, key: int, episode: int) -> str:
        """Return the observation text of a prompt."""
        ...


class PoolDemonstrator:
    """Demonstrates the prompts of a pool as often as the pool draws them, a share of them wrong."""

    def __init__(self, pool: Pool, wrong_share: float) -> None:
        self.pool = pool
        self.wrong_share = wrong_share

    def draw(self, rng: np.random.Generator) -> Demonstration:
        """Return one demonstration."""
        key = int(rng.integers(2**62))
        index = self.pool.draw(key, 0)
        shown = self._demonstrations(index)
        completion = _choice(shown.right, rng)
        if rng.random() < self.wrong_share:
            completion = _choice(shown.wrong, rng) if shown.wrong else self._slip(completion, rng)
        return Demonstration(self.pool.render(index, key, 0), completion)

    def _slip(self, answer: str, rng: np.random.Generator) -> str:
        """Return an answer with one digit replaced; without digits, that of another prompt."""
        digits = [i for i, symbol in enumerate(answer) if symbol in DIGITS]
        if digits:
            i = digits[int(rng.integers(len(digits)))]
            slip = (int(answer[i]) + int(rng.integers(1, 10))) % 10
            return f"{answer[:i]}{slip}{answer[i + 1 :]}"
        for _ in range(100):
            index = self.pool.draw(int(rng.integers(2**62)), 0)
            other = _choice(self._demonstrations(index).right, rng)
            if other != answer:
                return other
        raise ConfigError(
            "cold_start.wrong_share: (nearly) all prompts have the same target, so there are no "
            "wrong answers to demonstrate; set it to 0"
        )

    def _demonstrations(self, index: int) -> Demonstrations:
        shown = self.pool.demonstrations(index)
        if not shown.right:
            raise ConfigError(
                f"cold_start: the target of prompt '{self.pool.prompt(index).id}' is no text that "
                "could be demonstrated, and its source has no demonstrations; give "
                "cold_start.demonstrations a JSONL file"
            )
        return shown


def _choice(shown: Sequence[T], rng: np.random.Generator) -> T:
    return shown[int(rng.integers(len(shown)))]


class FileDemonstrator:
    """Demonstrates the lines of a JSONL file of {prompt, completion}, as they are."""

    def __init__(self, path: Path) -> None:
        self.demonstrations = [_parse(path, i, line) for i, line in _lines(path)]
        if not self.demonstrations:
            raise PromptError(
                f"{path}: no demonstrations; expected lines of {{prompt, completion}}"
            )

    def draw(self, rng: np.random.Generator) -> Demonstration:
        """Return one demonstration."""
        return self.demonstrations[int(rng.integers(len(self.demonstrations)))]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"{path}: cannot be read: {error}") from None
    yield from ((i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip())


def _parse(path: Path, number: int, line: str) -> Demonstration:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise PromptError(f"{path}, line {number}: not JSON: {error.msg}") from None
    for name in ("prompt", "completion"):
        if not isinstance(row, dict) or not isinstance(row.get(name), str):
            raise PromptError(f"{path}, line {number}: field '{name}' is missing or not text")
    return Demonstration(row["prompt"], row["completion"])


class DialoguePool(Pool, Protocol):
    """The prompts of an environment of several turns."""

    def dialogues(self, index: int) -> Dialogues:
        """Return right and wrong dialogues of a prompt; none where none are known."""
        ...


class DialogueDemonstrator(PoolDemonstrator):
    """Demonstrates dialogues, and completions of the prompts of which no dialogue is known."""

    pool: DialoguePool

    def draw(self, rng: np.random.Generator) -> Demonstration:
        """Return one demonstration."""
        before = rng.bit_generator.state
        key = int(rng.integers(2**62))
        index = self.pool.draw(key, 0)
        shown = self.pool.dialogues(index)
        if not shown.right:
            rng.bit_generator.state = before  # as if nothing had been drawn
            return super().draw(rng)
        is_wrong = bool(shown.wrong) and rng.random() < self.wrong_share
        said = _choice(shown.wrong if is_wrong else shown.right, rng)
        return Demonstration(self.pool.render(index, key, 0), said[0], said[1:])


Demonstrator = PoolDemonstrator | FileDemonstrator


def make_demonstrator(config: ColdStartConfig, pool: Any) -> Demonstrator:
    """Return the demonstrator of a configuration.

    Args:
        config: says which.
        pool: the prompt pool of the training environment, if it has one.
    """
    if config.demonstrations is not None:
        return FileDemonstrator(Path(config.demonstrations))
    if pool is None:
        raise ConfigError(
            "cold_start: this environment has no prompt pool to take targets from; give "
            "cold_start.demonstrations a JSONL file of {prompt, completion}"
        )
    kind = DialogueDemonstrator if hasattr(pool, "dialogues") else PoolDemonstrator
    return kind(pool, config.wrong_share)


def demonstration_batch(
    network: PolicyValueNetwork, demonstrations: Sequence[Demonstration], max_length: int
) -> Batch:
    """Return a batch whose action mask is the completions with their end tokens."""
    said = [(d.prompt, d.completion, *d.rest) for d in demonstrations]
    encoded = iter(encode(network, [text for texts in said for text in texts]))
    end = network.tokenizer.eos_token_id
    episodes = []
    for texts in said:
        ids, mask = list[int](), list[bool]()
        for i in range(len(texts)):
            is_action = i % 2 == 1
            part = [*next(encoded), end] if is_action else next(encoded)
            ids += part
            mask += [is_action] * len(part)
        tokens, is_said = torch.tensor(ids)[:max_length], torch.tensor(mask)[:max_length]
        episodes.append(Episode(tokens, is_said, torch.zeros(len(tokens)), True, False))
    return collate(episodes)


class ColdStart:
    """The steps of a supervised start, one at a time; `step` is a pure function of its number."""

    def __init__(
        self,
        network: PolicyValueNetwork,
        config: ColdStartConfig,
        demonstrator: Demonstrator,
        *,
        seed: int,
        max_length: int,
        processes: Processes = ONE,
    ) -> None:
        self.network = network
        self.config = config
        self.demonstrator = demonstrator
        self.seed = seed
        self.max_length = max_length
        self.processes = processes
        self.optimizer = make_optimizer(network, learning_rate=config.learning_rate)
        self.guard = StepGuard(config.max_skipped_steps)

    def step(self, number: int) -> dict[str, float]:
        """Do optimiser step `number` of `config.steps` and return its metrics.

        A step whose gradient is not finite is skipped.

        Raises:
            NotFiniteError: too many in a row were not.
        """
        rng = stream(self.seed, Purpose.DEMONSTRATIONS, number)
        drawn = [self.demonstrator.draw(rng) for _ in range(self.config.batch_size)]
        batch = demonstration_batch(self.network, drawn, self.max_length)
        rate = self.config.learning_rate * _schedule(number, self.config)
        set_learning_rate(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._accumulate(batch)
        parameters = self.network.trainable()
        self.processes.sum_gradients(parameters)
        norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
        if bool(norm.isfinite() & loss.isfinite()):
            clip_grads_with_norm_(parameters, 1.0, norm)
            self.optimizer.step()
            self.guard.take()
        else:
            self.guard.skip(batch)
        return {
            "cold_start/loss": float(loss),
            "cold_start/learning_rate": rate,
            "cold_start/num_tokens": float(batch.attention_mask.sum()),
        }

    def _accumulate(self, batch: Batch) -> Tensor:
        """Add the gradients of this process's share of a batch and return the loss of the whole."""
        count = int(batch.action_mask.sum())
        one = self.processes.size == 1
        share = batch if one else batch.share(self.processes.rank, self.processes.size)
        loss = torch.zeros((), device=self.network.device)
        if share is not None:
            share = share.to(self.network.device)
            scores = self.network.evaluate(share)
            loss = -masked_sum(scores.logprobs, share.action_mask) / max(count, 1)
            loss.backward()
        return self.processes.sum(loss.detach())


def _schedule(number: int, config: ColdStartConfig) -> float:
    warmup = config.warmup_share * config.steps
    return min(1.0, (number + 1) / max(warmup, 1.0)) * (1 - number / config.steps)
