"""What all environments with tools of one configuration share, and how it is demonstrated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from textgym.prompt import Message
from textgym.prompt_source import Dialogues
from textgym.sample import Completion
from textgym.seeding import mix64
from textgym.tool import ToolCall
from textgym_envs.judging import Attempt, Outcome
from textgym_envs.prompt_pool import PromptPool
from textgym_envs.streams import Turn
from textgym_envs.templates import make_template
from textgym_envs.tools.config import ToolsConfig, make_tools
from textgym_envs.tools.toolbox import Bench, Toolbox
from textgym_envs.world import TextGenWorld

if TYPE_CHECKING:
    from textgym_envs.tools.dialogue import Dialogue

T = TypeVar("T")
_MOST_THREADS = 32
_DIGITS = "0123456789"
_GUESSES = 3
"""Of four wrong dialogues: a policy that learns from them guesses rather than calls."""


class ToolsWorld(TextGenWorld):
    """Prompts, rewards and tools of one configuration."""

    config: ToolsConfig

    def __init__(self, config: ToolsConfig) -> None:
        template = make_template(config.template)
        template.reply([Message(role="tool", content="")])  # refuses here, if it refuses
        self.toolbox = Toolbox(
            make_tools(config.tools),
            is_tagged=template.marks_turns,
            most_characters=config.max_call_characters,
        )
        self._threads: ThreadPoolExecutor | None = None
        super().__init__(config)

    def _make_pool(self) -> PromptPool:
        config = self.config
        return ToolPool(
            config.prompts, split=config.split, evaluation_share=config.evaluation_share,
            template=config.template, system=config.system, think_share=config.think_share,
            review_share=config.review_share, toolbox=self.toolbox,
            describes_tools=config.describe_tools,
        )  # fmt: skip

    def turn_attempt(self, row: int, turn: Turn) -> Attempt:
        """Return the attempt of a turn that was taken before."""
        said = Completion(turn.content, token_ids=turn.token_ids, finish_reason=turn.finish_reason)
        return self.text_attempt(row, said)

    def outcomes(self, dialogues: Sequence[Dialogue]) -> list[Outcome]:
        """End dialogues that are finished and return their outcomes, scored in one batch."""
        finished = [(dialogue, attempt) for dialogue in dialogues if (attempt := dialogue.attempt)]
        judged = iter(self.judge.judge([a for d, a in finished if d.failure is None]))
        outcomes = [
            next(judged) if dialogue.failure is None else self.judge.failure(a, dialogue.failure)
            for dialogue, a in finished
        ]
        for (dialogue, _), outcome in zip(finished, outcomes, strict=True):
            dialogue.end(outcome)
        return outcomes

    def each(self, work: Callable[[T], None], items: Sequence[T]) -> None:
        """Do some work for each item, side by side if tools may take time."""
        if len(items) < 2 or not self.toolbox.waits:
            for item in items:
                work(item)
            return
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_MOST_THREADS, "textgym-tools")
        list(self._threads.map(work, items))

    def release(self) -> None:
        """Stop threads and reward workers if nobody else uses this world."""
        super().release()
        if self.num_users == 0 and self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None


class ToolPool(PromptPool):
    """Prompts that are demonstrated with tools, where their sources say which calls.

    Most of the wrong dialogues are guesses without a call, the others have a slip in the call.
    """

    def __init__(
        self,
        sources: str | Sequence[object],
        *,
        toolbox: Toolbox,
        describes_tools: bool,
        **settings: object,
    ) -> None:
        self._toolbox = toolbox
        tools = toolbox.schemas() if describes_tools else ()
        super().__init__(sources, tools=tools, **settings)  # type: ignore[arg-type]  # as given

    def dialogues(self, index: int) -> Dialogues:
        """Return dialogues with tools; none where no calls, or no such tools, are known."""
        shown, calls = self.demonstrations(index), self.tool_calls(index)
        known = all(call.name in self._toolbox.tools for call in calls)
        if not (calls and shown.right and known):
            return Dialogues()
        *first, last = calls
        name, value = next(iter(last.arguments.items()), ("", ""))
        slip = ToolCall(last.name, {**last.arguments, name: slipped(str(value), mix64(index, 0))})
        *misled, answer = self._played(index, [*first, slip])
        guesses = [slipped(shown.right[0], mix64(index, i)) for i in range(1, 1 + _GUESSES)]
        wrong = ((*misled, answer, answer.strip()), *((guess,) for guess in guesses))
        begun = self._played(index, calls)
        return Dialogues(tuple((*begun, right) for right in shown.right), wrong)

    def _played(self, index: int, calls: Sequence[ToolCall]) -> tuple[str, ...]:
        """Return the calls as completions, each followed by what the environment answers."""
        bench = Bench(self._toolbox, self.prompt(index))
        said: list[str] = []
        for call in calls:
            text = self._toolbox.write(call)
            answers = bench.answer(self._toolbox.read(text))
            messages = [Message(role="tool", content=answer.text) for answer in answers]
            said += [text, self.reply(index, messages, 0, 0, ended=True)]
        bench.close()
        return tuple(said)


def slipped(text: str, word: int) -> str:
    """Return a text with one digit replaced, chosen by a random word; one without gets a digit."""
    digits = [i for i, symbol in enumerate(text) if symbol in _DIGITS]
    if not digits:
        return f"{text}{word % 10}"
    place = digits[word % len(digits)]
    digit = (int(text[place]) + 1 + (word >> 8) % 9) % 10
    return f"{text[:place]}{digit}{text[place + 1 :]}"
