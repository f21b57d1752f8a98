"""The list of rollouts: only the lines that are seen are made, however many there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from textgym_agents.reports.rollout_table import RolloutTable
from textgym_agents.reports.texts import figure, one_line

_GOOD, _BAD, _CHOSEN = Style(color="green"), Style(color="red"), Style(reverse=True)
_PROMPT_SHARE = 0.55


class RolloutList(ScrollView, can_focus=True):
    """A line per rollout: reward, iteration, prompt and completion."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "move(-1000000000)", "First", show=False),
        Binding("end", "move(1000000000)", "Last", show=False),
    ]
    cursor: reactive[int] = reactive(0)

    class Chosen(Message):
        """Another rollout is under the cursor."""

        def __init__(self, index: int | None) -> None:
            self.index = index
            super().__init__()

    def __init__(self) -> None:
        super().__init__(id="list")
        self.table = RolloutTable({}, [], [], 0)
        self.order: Sequence[int] = ()

    def show(self, table: RolloutTable, order: Sequence[int]) -> None:
        """Show rollouts of a table, in an order; the cursor stays on the rollout it was on."""
        before = self.chosen
        self.table, self.order = table, order
        self.virtual_size = Size(self.size.width, len(order))
        self.cursor = order.index(before) if before in order else 0
        self.refresh()
        self.post_message(self.Chosen(self.chosen))

    @property
    def chosen(self) -> int | None:
        """The number of the rollout under the cursor, None in an empty list."""
        return self.order[self.cursor] if self.cursor < len(self.order) else None

    def render_line(self, y: int) -> Strip:
        """Return a line of the widget."""
        place, width = y + self.scroll_offset.y, self.size.width
        if place >= len(self.order):
            return Strip.blank(width)
        style = _CHOSEN if place == self.cursor else Style()
        reward, rest, colour = self._cells(self.order[place], width - 7)
        return Strip(
            [Segment(f"{reward:>6} ", style + colour), Segment(rest, style)]
        ).adjust_cell_length(width, style)

    def _cells(self, i: int, width: int) -> tuple[str, str, Style]:
        columns = self.table.columns
        success, reward = columns["success"][i], columns["reward"][i]
        shown = one_line(columns["status"][i], 6) if reward is None else figure(reward)[:6]
        place = f"{'e' if columns['phase'][i] == 'evaluation' else ' '}{columns['iteration'][i]:<6}"
        prompt = one_line(
            self.table.prompts[columns["prompt"][i]][-200:], int(width * _PROMPT_SHARE)
        )
        rest = f"{place}{prompt} → {one_line(columns['completion'][i], width)}"
        return shown, rest, Style() if success is None else _GOOD if success else _BAD

    def action_move(self, lines: int) -> None:
        """Move the cursor."""
        self.cursor = max(0, min(len(self.order) - 1, self.cursor + lines))

    def action_page(self, pages: int) -> None:
        """Move the cursor by pages."""
        self.action_move(pages * max(1, self.size.height - 1))

    def watch_cursor(self) -> None:
        """Keep the cursor in sight, and tell of it."""
        top, height = self.scroll_offset.y, self.size.height
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False)
        elif self.cursor >= top + height:
            self.scroll_to(y=self.cursor - height + 1, animate=False)
        self.refresh()
        self.post_message(self.Chosen(self.chosen))

    def on_click(self, event: Click) -> None:
        """Put the cursor where the mouse was."""
        place = event.y + self.scroll_offset.y
        if place < len(self.order):
            self.cursor = place
