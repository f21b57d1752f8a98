"""Suites of verifiable instructions: strict and loose, by prompt and by instruction.

The four accuracies of Zhou et al. 2023, arXiv:2311.07911.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from pydantic import JsonValue

from textgym.benchmark import Benchmark
from textgym.item_statistics import attempts, by_prompt, losses, share, shares
from textgym.items import Item, Metric

MODES = ("strict", "loose")


def _reward(mode: str, weight: float) -> JsonValue:
    return {"reward": "ifeval", "config": {"mode": mode}, "name": mode, "weight": weight}


BOTH_MODES: JsonValue = [_reward("strict", 1.0), _reward("loose", 0.0)]
"""The strict reward, with the loose verdicts recorded beside it."""


class IFEvalBenchmark(Benchmark):
    """A suite whose reward is `BOTH_MODES`."""

    def metrics(self, items: Sequence[Item]) -> dict[str, Metric]:
        """Return `prompt_strict`, `prompt_loose`, `instruction_strict`, `instruction_loose`.

        `success` is `prompt_strict`.
        """
        scored = [item for item in items if item.score.is_scored]
        prompts = {
            f"prompt_{mode}": share(scored, functools.partial(_follows_all, mode)) for mode in MODES
        }
        instructions = {f"instruction_{mode}": _instructions(scored, mode) for mode in MODES}
        first = {"success": prompts["prompt_strict"]}
        return first | prompts | instructions | attempts(scored) | losses(items)


def verdicts(item: Item, mode: str) -> list[bool]:
    """Return whether each instruction was followed; none was where the answer was not read."""
    part = item.score.parts.get(mode)
    if part is None or not part.is_scored:
        target = item.prompt.target
        ids = target.get("instruction_id_list") if isinstance(target, dict) else None
        return [False] * (len(ids) if isinstance(ids, list) else 1)
    return [each.value == 1.0 for each in part.parts.values()]


def _follows_all(mode: str, item: Item) -> bool:
    return all(verdicts(item, mode))


def _instructions(items: Sequence[Item], mode: str) -> Metric:
    """Return the share of instructions that were followed, over all prompts."""
    groups = [[v for item in g for v in verdicts(item, mode)] for g in by_prompt(items).values()]
    return shares([sum(each) for each in groups], [len(each) for each in groups])
