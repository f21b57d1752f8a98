"""The reward `ifeval`: the share of a prompt's instructions that a completion follows.

The checks are deterministic and run in this process: none of them can hang, and none runs a
pattern that a prompt or a completion gives.
"""

from __future__ import annotations

from typing import ClassVar

from textgym import Reward, Sample, Score
from textgym.errors import PromptError
from textgym.reward import Isolation
from textgym_plugins.ifeval.checker import Mode, Verdict, check_instructions
from textgym_plugins.ifeval.instruction import read_instructions
from textgym_plugins.thinking import after_thinking


class IFEvalReward(Reward):
    """Whether a completion follows the verifiable instructions of its prompt."""

    name: ClassVar[str] = "ifeval"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    isolation: ClassVar[Isolation] = "inline"

    mode: Mode = "strict"
    """`strict`: the completion as it is. `loose`: any of eight variants of it, without its first
    or last line or its asterisks."""
    all_or_nothing: bool = False
    """Score 1.0 only where every instruction is followed, else 0.0, instead of the share."""

    def score(self, sample: Sample) -> Score:
        """Return the score, labelled `followed`, `partial` or `ignored`; `parts` has each verdict.

        A part's name is the instruction's id, with `#2` and so on where an id comes again. A sample
        with an instruction that needs a missing package has failed; it abstains where the target
        is malformed.
        """
        prompt = sample.prompt
        try:
            instructions = read_instructions(prompt.target, prompt=prompt.text)
        except PromptError as error:
            return Score.unscored(f"prompt '{prompt.id}': {error}")
        response = after_thinking(sample.completion)
        verdicts = check_instructions(response or "", instructions, mode=self.mode)
        missing = next((v for v in verdicts if v.is_followed is None), None)
        if missing is not None:
            return Score.failed("unavailable", f"{missing.instruction}: {missing.note}")
        return self._combine(verdicts, is_unclosed=response is None)

    def _combine(self, verdicts: list[Verdict], *, is_unclosed: bool) -> Score:
        num_followed = sum(verdict.is_followed is True for verdict in verdicts)
        share = num_followed / len(verdicts)
        ignored = [f"{v.instruction} ({v.note})" for v in verdicts if not v.is_followed]
        reason = f"{num_followed} of {len(verdicts)} followed"
        if is_unclosed:
            reason += "; the think tag is never closed"
        elif ignored:
            reason += f"; not {', '.join(ignored)}"
        return Score(
            float(share == 1.0) if self.all_or_nothing else share,
            label={0.0: "ignored", 1.0: "followed"}.get(share, "partial"),
            reason=reason,
            parts=_parts(verdicts),
        )


def _parts(verdicts: list[Verdict]) -> dict[str, Score]:
    parts: dict[str, Score] = {}
    for verdict in verdicts:
        name, again = verdict.instruction, 2
        while name in parts:
            name, again = f"{verdict.instruction}#{again}", again + 1
        label = "followed" if verdict.is_followed else "ignored"
        parts[name] = Score(float(verdict.is_followed is True), label=label, reason=verdict.note)
    return parts
