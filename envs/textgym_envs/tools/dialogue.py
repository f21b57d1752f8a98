"""One episode with tools: what the scalar and the vector environment both play."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from textgym.prompt import Message
from textgym.score import Score
from textgym_envs.judging import Attempt, Outcome
from textgym_envs.streams import Turn
from textgym_envs.tools.calls import Call
from textgym_envs.tools.toolbox import Bench, BrokenToolError
from textgym_envs.tools.world import ToolsWorld


class Dialogue:
    """A prompt and what was said after it.

    Args:
        world: tools, limits and template.
        row: of the prompt in the table of the world.
        key: of the stream of the episode.
        episode: its number there.
    """

    def __init__(self, world: ToolsWorld, row: int, key: int, episode: int) -> None:
        self.row = row
        self.turns: list[Turn] = []
        self.message = world.table.infos[row][0]
        """What the policy is to read next."""
        self.is_over = False
        self.outcome: Outcome | None = None
        self._world = world
        self._stream = key, episode
        self._said = self.message
        self._num_turns = self._num_tokens = 0
        self._bench: Bench | None = None
        self._calls: list[Call] = []
        self._last: Attempt | None = None
        self._failure: Score | None = None

    def say(self, action: object) -> bool:
        """Take a completion; return whether tools are to answer it before anything else.

        Raises:
            ConfigError: the action is no text.
        """
        attempt = self._world.text_attempt(self.row, action)
        self._add(Turn("assistant", attempt.completion, attempt.token_ids or (), "stop"))
        self._num_tokens += attempt.num_tokens
        self._num_turns += 1
        self._calls = self._read(attempt)
        if self._calls and self._num_turns == self._world.config.max_turns:
            attempt, self._calls = attempt._replace(finish_reason="length"), []
        self.turns[-1] = self.turns[-1]._replace(finish_reason=attempt.finish_reason)
        self._last = attempt
        return bool(self._calls)

    def serve(self) -> None:
        """Let the tools answer the calls of the last completion."""
        assert self._last is not None
        try:
            answers = self._at_bench().answer(self._calls)
        except BrokenToolError as error:
            self._failure = Score.failed(error.kind, str(error))
            return
        turns = [Turn("tool", answer.text, is_error=answer.is_error) for answer in answers]
        self._hear(turns, ended=self._last.finish_reason == "stop")

    @property
    def attempt(self) -> Attempt | None:
        """What is to be scored; None while the dialogue goes on."""
        if self._last is None or (self._calls and self._failure is None):
            return None
        turns = tuple(Message(role=t.role, content=t.content) for t in self.turns)
        return self._last._replace(num_tokens=self._num_tokens, turns=turns)

    @property
    def failure(self) -> Score | None:
        """The score of a dialogue that a tool has broken off."""
        return self._failure

    @property
    def was_cut(self) -> bool:
        """Whether the last turn that is allowed was a call."""
        return self._last is not None and self._last.finish_reason == "length"

    def end(self, outcome: Outcome) -> None:
        """Note what the dialogue came to."""
        self.outcome, self.is_over, self.message = outcome, True, ""
        self.close()

    def close(self) -> None:
        """Release what the tools hold."""
        if self._bench is not None:
            self._bench.close()

    def info(self) -> dict[str, Any]:
        """Return what the final info has besides that of TextGen-v0."""
        assert self._last is not None
        bench = self._bench
        return {
            "token_ids": list(self._last.token_ids or ()),
            "dialogue": [{"role": t.role, "content": t.content} for t in self.turns],
            "num_turns": self._num_turns,
            "tool_calls": bench.num_calls.total() if bench is not None else 0,
            "tool_errors": bench.num_errors if bench is not None else 0,
        }

    @property
    def text(self) -> str:
        """The whole dialogue as the policy has read and written it."""
        return self._said

    def recall(self, turns: Sequence[Turn], *, is_over: bool) -> None:
        """Go on from the beginning to where these turns were the last; no tool is called."""
        rest = list(turns)
        while rest:
            spoken, answers = rest.pop(0), []
            while rest and rest[0].role == "tool":
                answers.append(rest.pop(0))
            attempt = self._world.turn_attempt(self.row, spoken)
            self._add(spoken)
            self._num_tokens += attempt.num_tokens
            self._num_turns += 1
            self._last = attempt
            if answers:
                errors = sum(answer.is_error for answer in answers)
                self._at_bench().recall(self._read(attempt), num_errors=errors)
                self._hear(answers, ended=spoken.finish_reason == "stop")
        if is_over:
            self.is_over, self.message = True, ""

    def _read(self, attempt: Attempt) -> list[Call]:
        if attempt.finish_reason not in ("stop", "stop_string"):
            return []
        return self._world.toolbox.read(attempt.completion)

    def _at_bench(self) -> Bench:
        if self._bench is None:
            self._bench = Bench(self._world.toolbox, self._world.table.prompts[self.row])
        return self._bench

    def _add(self, turn: Turn) -> None:
        self.turns.append(turn)
        self._said += turn.content

    def _hear(self, answers: Sequence[Turn], *, ended: bool) -> None:
        self.turns.extend(answers)
        self._calls_done()
        messages = [Message(role="tool", content=answer.content) for answer in answers]
        key, episode = self._stream
        index = self._world.table.indices[self.row]
        pool = self._world.table.pool
        self.message = pool.reply(index, messages, key, episode, ended=ended)
        self._said += self.message

    def _calls_done(self) -> None:
        self._calls, self._last = [], None
