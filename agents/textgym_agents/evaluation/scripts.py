"""Policies that are no model: the references, nothing at all, or answers that somebody recorded.

`scripted:references` and `scripted:empty` are the ends of every suite's scale. `answers:FILE` is
what any model answered anywhere, in the files that `textgym score` reads.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

from textgym.errors import ConfigError, UnknownNameError, did_you_mean
from textgym.prompt import Prompt
from textgym.sample_files import read_samples
from textgym_agents.evaluation.answerers import Answer, Question, Scripted

SCRIPTED, ANSWERS = "scripted:", "answers:"


def script_of(model: str) -> Scripted | None:
    """Return the script that a name on the command line stands for, None where it is none.

    Raises:
        UnknownNameError: there is no such script.
        ConfigError: the file of answers cannot be used.
    """
    if model.startswith(ANSWERS):
        return Scripted(_recorded(Path(model.removeprefix(ANSWERS))), model)
    if not model.startswith(SCRIPTED):
        return None
    name = model.removeprefix(SCRIPTED)
    if name not in _SCRIPTS:
        raise UnknownNameError(
            f"no script named '{name}'.{did_you_mean(name, _SCRIPTS)} There are: "
            f"{', '.join(_SCRIPTS)}."
        )
    return Scripted(_SCRIPTS[name], model)


def _reference(question: Question) -> str:
    shown = question.demonstrate().right
    if not shown:
        raise ConfigError(
            f"the prompt '{question.prompt.id}' has no reference that could be an answer; its data "
            "has none, or nobody knows one"
        )
    return shown[question.sample % len(shown)]


_SCRIPTS: dict[str, Callable[[Question], str]] = {
    "references": _reference,
    "empty": lambda question: "",
}


def _recorded(path: Path) -> Callable[[Question], Answer]:
    """Return the function that finds the answers to a prompt by its id, or else by its text."""
    answers: defaultdict[str, list[str]] = defaultdict(list)
    for judged in read_samples(path).samples:
        prompt = judged.sample.prompt
        for key in {prompt.id, prompt.text.strip()}:
            answers[key].append(judged.sample.completion)

    def answer(question: Question) -> Answer:
        known = answers.get(_key(question.prompt, answers), [])
        if question.sample < len(known):
            return Answer(known[question.sample])
        return Answer("", failure=f"{path} has {len(known)} answers to this prompt")

    return answer


def _key(prompt: Prompt, answers: Mapping[str, object]) -> str:
    """Return what a prompt is found by; its own text may have instructions after the question."""
    text = prompt.text.strip()
    for key in (prompt.id, text):
        if key in answers:
            return key
    return max((key for key in answers if key and text.startswith(key)), key=len, default="")
