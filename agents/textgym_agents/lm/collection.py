"""The episodes of an iteration: groups of samples of one prompt, and prompts in place of others.

A group is played by neighbouring rows of the vector environment that are reset with one seed. A
seed fixes the prompt, its rendering and every move of chance of the environment, so the samples of
a group differ by what the policy sampled and by nothing else; any vector environment can do it
whose `reset` takes a seed for each row, as Gymnasium's own do.

Everything is derived from the seed of the run and the iteration, so a resumed run draws the same
prompts, the same samples and the same replacements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from textgym.errors import ConfigError
from textgym.seeding import Purpose, derive_seed
from textgym_agents.core.groups import group_stats, select_best_worst
from textgym_agents.core.masked import MIN_STD
from textgym_agents.core.overlong import overlong_penalty
from textgym_agents.lm.clock import Clock
from textgym_agents.lm.config import RolloutConfig
from textgym_agents.lm.engine import GenerationEngine
from textgym_agents.lm.network import PolicyValueNetwork
from textgym_agents.lm.overlap import collect_parts
from textgym_agents.lm.transcript import Rollout, Transcript
from textgym_agents.processes import ONE, Processes

BUFFER_SHARE = 0.2  # 4,096 of 20,480 tokens in the paper


class Collector:
    """Plays the episodes of one iteration after another.

    Args:
        envs: equal text-mode vector environments with autoreset disabled, each as wide as a part of
            the rollout; as many parts are in flight.
        engine: samples the completions.
        network: its tokenizer encodes observations and decodes completions.
        config: how many episodes, in which groups.
        seed: of the run.
        clock: is told what took how long.
        processes: each collects some of the parts and gets the whole rollout; groups stay whole.
    """

    def __init__(
        self,
        envs: Sequence[VectorEnv[Any, Any, Any]],
        engine: GenerationEngine,
        network: PolicyValueNetwork,
        config: RolloutConfig,
        *,
        seed: int,
        clock: Clock | None = None,
        processes: Processes = ONE,
    ) -> None:
        self.envs = envs
        self.engine = engine
        self.network = network
        self.config = config
        self.seed = seed
        self.clock = clock or Clock()
        self.processes = processes

    def collect(self, iteration: int) -> Rollout:
        """Return the rollout of an iteration; groups of equal scores are replaced if asked."""
        config, size = self.config, self.config.samples_per_prompt
        wanted = config.num_episodes // size
        transcripts: list[Transcript] = []
        for draw in range(1 + config.replacements):
            drawn = self._draw(wanted, iteration, draw)
            ties = derive_seed(self.seed, Purpose.TIES, iteration, draw)
            mark_samples(drawn, config, torch.Generator().manual_seed(ties))
            transcripts += drawn
            wanted = sum(t.is_dropped for t in drawn) // size
            if wanted == 0:
                break
        if size > 1:
            for i, transcript in enumerate(transcripts):
                transcript.group = i // size
        return Rollout(transcripts, size)

    def _draw(self, num_groups: int, iteration: int, draw: int) -> list[Transcript]:
        """Play groups of prompts that are new, as many at a time as there are rows."""
        group_size = self.config.samples_per_prompt
        at_once = self.envs[0].num_envs // group_size
        seeds: list[int | list[int]] = []
        generators: list[torch.Generator] = []
        for part, start in enumerate(range(0, num_groups, at_once)):
            index = (iteration, part) if draw == 0 else (iteration, part, draw)
            seed = derive_seed(self.seed, Purpose.ROLLOUT_ENV, *index)
            num_played = min(at_once, num_groups - start)
            seeds.append(seed if group_size == 1 else group_seeds(seed, num_played, group_size))
            sampling = derive_seed(self.seed, Purpose.SAMPLING, *index)
            generators.append(torch.Generator(self.network.device).manual_seed(sampling))
        return self._play(seeds, generators)

    def _play(
        self, seeds: Sequence[int | list[int]], generators: Sequence[torch.Generator]
    ) -> list[Transcript]:
        """Play the parts, divided among the processes: streams of their own make them the same."""
        rank, size = self.processes.rank, self.processes.size
        with self.processes.together():
            own = collect_parts(
                self.envs,
                self.engine,
                self.network,
                self.config,
                seeds=seeds[rank::size],
                generators=generators[rank::size],
                clock=self.clock,
            )
        shares = self.processes.gather(own)
        parts = [shares[i % size][i // size] for i in range(len(seeds))]
        return [transcript for part in parts for transcript in part.transcripts]


def rows_per_part(config: RolloutConfig, num_processes: int) -> int:
    """Return how many episodes are played side by side; a process plays whole parts of a rollout.

    Raises:
        ConfigError: the parts do not divide the rollout.
    """
    size = config.samples_per_prompt
    num_groups = config.num_episodes // size
    at_once = min(config.num_rows // size, num_groups // num_processes)
    if at_once == 0 or num_groups % at_once:
        groups = "" if size == 1 else f", in groups of {size}"
        raise ConfigError(
            f"rollout.num_episodes ({config.num_episodes}{groups}) cannot be divided among "
            f"{num_processes} processes with at most {config.num_envs} episodes at a time; make "
            f"it a multiple of {num_processes * size}"
        )
    return at_once * size


def group_seeds(seed: int, num_groups: int, size: int) -> list[int]:
    """Return the seed of each row: group g has `seed + g`, as row g of no groups would."""
    return [seed + group for group in range(num_groups) for _ in range(size)]


def mark_samples(
    transcripts: Sequence[Transcript], config: RolloutConfig, ties: torch.Generator
) -> None:
    """Write into finished samples what is taken off their scores, and who learns from them.

    Groups are dropped by what the rewards gave: a penalty of length alone is no reason to keep one
    whose samples are all right or all wrong. The ends of a group are those of the penalised scores.

    Args:
        transcripts: the samples of a prompt one after another.
        config: the rules.
        ties: draws the order among equal scores.
    """
    if config.overlong.penalty > 0:
        _penalise(transcripts, config)
    if config.drops_groups:
        _choose(transcripts, config, ties)
    if config.overlong.leave_out:
        for transcript in transcripts:
            transcript.is_selected &= not transcript.is_cut


def _choose(
    transcripts: Sequence[Transcript], config: RolloutConfig, ties: torch.Generator
) -> None:
    size, k = config.samples_per_prompt, config.keep_ends
    is_kept = group_stats(scores_of(transcripts, size, shaped=False)).std >= MIN_STD
    is_chosen = torch.ones(len(transcripts), dtype=torch.bool)
    if k > 0:
        low, high, has_ends = select_best_worst(scores_of(transcripts, size), k, ties)
        is_kept, is_chosen = is_kept & has_ends, (low | high).flatten()
    for i, transcript in enumerate(transcripts):
        transcript.is_dropped = not is_kept[i // size]
        transcript.is_selected = bool(is_chosen[i])


def _penalise(transcripts: Sequence[Transcript], config: RolloutConfig) -> None:
    overlong = config.overlong
    cap = overlong.cap or config.max_new_tokens
    penalties = overlong_penalty(
        torch.tensor([sum(t.is_action) for t in transcripts], dtype=torch.float64),
        cap=cap,
        buffer=overlong.buffer or max(1, round(BUFFER_SHARE * cap)),
        penalty=overlong.penalty,
    )
    for transcript, penalty in zip(transcripts, penalties.tolist(), strict=True):
        transcript.length_penalty = penalty


def scores_of(transcripts: Sequence[Transcript], size: int, *, shaped: bool = True) -> Tensor:
    """Return the scores (P, G) of samples, float64; nan where they could not be judged.

    Args:
        transcripts: the samples of a prompt one after another.
        size: G.
        shaped: whether the penalty of the length is in them.
    """
    scores = [t.score + (t.length_penalty if shaped else 0.0) for t in transcripts]
    return torch.tensor(scores, dtype=torch.float64).view(len(scores) // size, size)


def group_metrics(rollout: Rollout) -> dict[str, float]:
    """Return the statistics of section `groups/`, over all groups that were drawn."""
    if rollout.group_size == 1:
        return {}
    stats = group_stats(scores_of(rollout.transcripts, rollout.group_size, shaped=False))
    is_kept = [not t.is_dropped for t in rollout.transcripts[:: rollout.group_size]]
    return {
        "groups/num_drawn": float(len(is_kept)),
        "groups/kept_share": sum(is_kept) / len(is_kept),
        "groups/equal_share": float((stats.std < MIN_STD).double().mean()),
        "groups/score_std": float(stats.std.mean()),
    }
