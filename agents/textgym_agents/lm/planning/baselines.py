"""What tree search is compared with, at the same price: each state costs the tokens it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from textgym.seeding import Purpose, stream
from textgym_agents.lm.planning.answers import Answer, Rules
from textgym_agents.lm.planning.config import BeamConfig, BestOfNConfig
from textgym_agents.lm.planning.states import Floats, State, StateReader
from textgym_agents.lm.planning.worth import Finished, Worth, WorthSource


def greedy(
    reader: StateReader, prompts: Sequence[State], rules: Rules, judge: WorthSource
) -> list[Answer]:
    """Write the most likely token each time."""
    ends: dict[int, Finished] = {}
    states = list(prompts)
    while states:
        tokens = [int(state.actions[0]) for state in states]
        going_on = _finish(states, tokens, rules, ends)
        states = reader.read(*going_on) if going_on[0] else []
    finished = [ends[state.problem] for state in prompts]
    return [Answer(f, worth, 1) for f, worth in zip(finished, judge(finished), strict=True)]


def _finish(
    states: Sequence[State], tokens: Sequence[int], rules: Rules, ends: dict[int, Finished]
) -> tuple[list[State], list[int]]:
    """Put completions that have ended into `ends` and return what goes on."""
    parents, following = list[State](), list[int]()
    for state, token in zip(states, tokens, strict=True):
        finished = rules.finish(state, token)
        if finished is None:
            parents.append(state)
            following.append(token)
        else:
            ends[state.problem] = finished
    return parents, following


class _Samples:
    """The completions of one prompt, drawn as far as a budget goes."""

    def __init__(self, prompt: State, longest: int, budget: int, uniform: Floats) -> None:
        self.prompt, self.left, self.longest, self.uniform = prompt, budget, longest, uniform
        self.num_drawn = 0
        self.found: dict[tuple[int, ...], tuple[Sample, Worth]] = {}
        self.is_done = False

    def draw(self) -> list[Path]:
        """Begin as many completions as fit into the budget however long they become."""
        count = self.left // max(1, self.longest - 1)
        count = min(max(count, not self.found), len(self.uniform) - self.num_drawn)
        if self.is_done or count == 0:
            return []
        first, self.num_drawn = self.num_drawn, self.num_drawn + count
        ids, log_p = self.prompt.drawn, self.prompt.drawn_logprobs
        return [Path(self, j, self.prompt, ids[j], log_p[j]) for j in range(first, self.num_drawn)]


class Path(NamedTuple):
    """A sample that is being written: its last state, and what was drawn to follow."""

    samples: _Samples
    number: int
    state: State
    token: int
    log_p: float
    """Of all its tokens; nats."""


class Sample(NamedTuple):
    """A sample that was written."""

    finished: Finished
    log_p: float


def draws_of(seed: int, problem_id: int, budget: int, longest: int) -> Floats:
    """Return uniform numbers (budget, longest): a row for each sample, one for each token."""
    return stream(seed, Purpose.SAMPLING, problem_id).random((budget, longest))


def best_of_n(
    reader: StateReader,
    prompts: Sequence[State],
    rules: Rules,
    judge: WorthSource,
    config: BestOfNConfig,
    uniform: Sequence[Floats],
) -> list[Answer]:
    """Draw completions and take the one of the highest worth; of several the first.

    Where a reward tells a success, no more are drawn.

    Args:
        reader: reads states; its temperature is that of the samples.
        prompts: what `reader.begin` returned, with the first column of `uniform` as draws.
        rules: how completions end.
        judge: says what a finished completion is worth.
        config: limits.
        uniform: `draws_of` each prompt.
    """
    rows = [
        _Samples(state, rules.limits[state.problem], config.budget, each)
        for state, each in zip(prompts, uniform, strict=True)
    ]
    while paths := [path for row in rows for path in row.draw()]:
        ended = _write(reader, rules, paths)
        worths = judge([sample.finished for _, sample in ended])
        for (row, sample), worth in zip(ended, worths, strict=True):
            row.found.setdefault(sample.finished.ids, (sample, worth))
            row.is_done |= worth.is_success
    return [_best_sample(row, config.prior_weight) for row in rows]


def _best_sample(row: _Samples, prior_weight: float) -> Answer:
    sample, worth = max(
        row.found.values(), key=lambda each: each[1].rank(prior_weight * each[0].log_p)
    )
    return Answer(sample.finished, worth, len(row.found))


def _write(reader: StateReader, rules: Rules, paths: list[Path]) -> list[tuple[_Samples, Sample]]:
    """Return the completions that begun samples become, in their order."""
    ended: dict[tuple[int, int], tuple[_Samples, Sample]] = {}
    while paths:
        going_on: list[Path] = []
        for path in paths:
            finished = rules.finish(path.state, path.token)
            if finished is None:
                path.samples.left -= 1
                going_on.append(path)
            else:
                ended[path.state.problem, path.number] = path.samples, Sample(finished, path.log_p)
        if not going_on:
            break
        depths = [len(path.state.ids) + 1 for path in going_on]
        draws = np.array([
            [path.samples.uniform[path.number, depth]]
            for path, depth in zip(going_on, depths, strict=True)
        ])  # fmt: skip
        states = reader.read([p.state for p in going_on], [p.token for p in going_on], draws)
        paths = [
            Path(p.samples, p.number, state, state.drawn[0], p.log_p + state.drawn_logprobs[0])
            for p, state in zip(going_on, states, strict=True)
        ]
    return [ended[key] for key in sorted(ended)]


class _Beam:
    """The prefixes of one prompt that go on, and its completions."""

    def __init__(self, prompt: State, width: int) -> None:
        self.prefixes: list[tuple[State, float]] = [(prompt, 0.0)]
        """States, and the log-probabilities of how they came about; nats."""
        self.width = width
        self.ended: list[tuple[Finished, float]] = []

    def candidates(self, branches: int) -> list[tuple[State, int, float]]:
        """Return the most likely continuations of all prefixes: state, token, log-probability."""
        found = [
            (state, int(token), log_p + math.log(p))
            for state, log_p in self.prefixes
            for token, p in zip(state.actions, state.priors, strict=True)
        ]
        return sorted(found, key=lambda each: -each[2])[: self.width * branches]


def beam_search(
    reader: StateReader,
    prompts: Sequence[State],
    rules: Rules,
    judge: WorthSource,
    config: BeamConfig,
) -> list[Answer]:
    """Keep the prefixes of the highest score, V(s) + prior_weight * log pi(s | prompt).

    There are as many prefixes as the budget allows where all completions have the greatest length.
    Completions that have ended are compared by the same score, with their worth in place of V.
    """
    beams = []
    for state in prompts:
        price = config.branches * max(1, rules.limits[state.problem] - 1)
        beams.append(_Beam(state, max(1, config.budget // price)))
    while live := [beam for beam in beams if beam.prefixes]:
        reading: list[tuple[_Beam, State, int, float]] = []
        for beam in live:
            for state, token, log_p in beam.candidates(config.branches):
                finished = rules.finish(state, token)
                if finished is None:
                    reading.append((beam, state, token, log_p))
                else:
                    beam.ended.append((finished, log_p))
            beam.prefixes = []
        states = reader.read([r[1] for r in reading], [r[2] for r in reading])
        for (beam, _, _, log_p), state in zip(reading, states, strict=True):
            beam.prefixes.append((state, log_p))
        for beam in live:
            beam.prefixes.sort(key=lambda each: -(each[0].value + config.prior_weight * each[1]))
            del beam.prefixes[beam.width :]
    worths = iter(judge([finished for beam in beams for finished, _ in beam.ended]))
    return [_best_of_beam(beam, [next(worths) for _ in beam.ended], config) for beam in beams]


def _best_of_beam(beam: _Beam, worths: Sequence[Worth], config: BeamConfig) -> Answer:
    (finished, _), worth = max(
        zip(beam.ended, worths, strict=True),
        key=lambda each: each[1].rank(config.prior_weight * each[0][1]),
    )
    return Answer(finished, worth, len(beam.ended))
