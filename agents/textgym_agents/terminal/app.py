"""The app behind `textgym view`: metrics, rollouts and alarms, read again while a run trains."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import ClassVar, NamedTuple

from rich.table import Table
from rich.text import Text
from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid, Horizontal, VerticalScroll
from textual.widgets import Footer, Header, Input, Label, Static, TabbedContent, TabPane

from textgym.errors import ConfigError
from textgym_agents.reports.curves import Curve, curves_of, panels_of
from textgym_agents.reports.document import read_rollout_files
from textgym_agents.reports.reading import FileCache, Run, read_run
from textgym_agents.reports.rollout_filter import parse_filter
from textgym_agents.reports.rollout_table import RolloutTable, make_table
from textgym_agents.reports.summary import (
    before_and_after,
    facts_of,
    is_share,
    phase_times,
    title_of,
)
from textgym_agents.reports.texts import figure, one_line, visible
from textgym_agents.terminal.plots import braille_plot
from textgym_agents.terminal.rollout_list import RolloutList
from textgym_agents.terminal.rollout_text import MEASURES, rollout_text

READ_EVERY = 2.0
_PLOT_LINES = 5


class Known(NamedTuple):
    """What was read of a run."""

    run: Run
    table: RolloutTable


class Plot(Static):
    """A curve with its title, last value and range."""

    def __init__(self, title: str, curve: Curve, *, share: bool) -> None:
        super().__init__(classes="plot")
        self.title, self.curve, self.share = title, curve, share

    def render(self) -> Text:
        """Return the plot in the size that there is."""
        known = [y for y in self.curve.y if y is not None]
        low, high = (figure(end, share=self.share) for end in (min(known), max(known)))
        width = max(4, self.size.width)
        lines = braille_plot(self.curve.x, self.curve.y, width=width, height=_PLOT_LINES)
        last = figure(known[-1], share=self.share)
        title = one_line(self.title, max(4, width - len(last) - 2))
        text = Text(f"{title}  ", "dim").append(f"{last}\n", "bold")
        text.append("\n".join(lines), "cyan")
        return text.append(f"\n{low} to {high}", "dim")


class RunApp(App[None]):
    """Shows one run.

    Args:
        path: of the run directory.
    """

    CSS = """
    #plots { grid-size: 1; grid-gutter: 1 2; grid-rows: 8; height: auto; padding: 1 2; }
    #summary { padding: 1 2 0 2; height: auto; }
    #filter { margin: 0 1; }
    #count { padding: 0 2; color: $text-muted; height: 1; }
    #panes { layout: vertical; }
    #list { height: 45%; padding: 0 1; overflow-x: hidden; }
    #detail { padding: 0 2; border-top: solid $primary; }
    .-normal #plots { grid-size: 2; }
    .-normal #panes, .-wide #panes { layout: horizontal; }
    .-normal #list, .-wide #list { width: 55%; height: 100%; }
    .-normal #detail, .-wide #detail { width: 45%; border-top: none; border-left: solid $primary; }
    .-wide #plots { grid-size: 3; }
    #alarms { padding: 1 2; }
    """
    # the base class declares it as an attribute of instances
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (90, "-normal"), (130, "-wide")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "tab('metrics')", "Metrics"),
        Binding("r", "tab('rollouts')", "Rollouts"),
        Binding("a", "tab('alarms-tab')", "Alarms"),
        Binding("slash", "search", "Filter"),
        Binding("c", "colour", "Colour"),
        Binding("escape", "leave", "List", show=False),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.measure = MEASURES[0]
        self.known: Known | None = None
        self._files = FileCache()
        self._version: object = None
        self._lock = threading.Lock()

    def compose(self) -> ComposeResult:
        """Lay out the app."""
        yield Header(icon="")
        with TabbedContent(initial="metrics"):
            with TabPane("Metrics", id="metrics"), VerticalScroll():
                yield Static(id="summary")
                yield Grid(id="plots")
            with TabPane("Rollouts", id="rollouts"):
                yield Input(id="filter", placeholder="words  reward<0.5  success:no  tokens>20")
                yield Label(id="count")
                with Horizontal(id="panes"):
                    yield RolloutList()
                    with VerticalScroll(id="detail"):
                        yield Static(id="rollout")
            with TabPane("Alarms", id="alarms-tab"), VerticalScroll():
                yield Static(id="alarms")
        yield Footer()

    def on_mount(self) -> None:
        """Read the run, and again from time to time."""
        self.read()
        self.set_interval(READ_EVERY, self.read)

    @work(thread=True)
    def read(self) -> None:
        """Read what is new of the run, beside the app."""
        version = run_version(self.path)
        if self._lock.locked() or version == self._version:
            return
        with self._lock:
            self._version = version
            try:
                run = read_run(self.path)
                table = make_table(read_rollout_files([run], self._files.read))
            except (ConfigError, OSError) as error:  # moved meanwhile; what was read stays
                self.call_from_thread(self.notify, str(error), severity="error", markup=False)
                return
            self.call_from_thread(self.show, Known(run, table))

    def show(self, known: Known) -> None:
        """Show what was read."""
        self.known = known
        run = known.run
        self.title, self.sub_title = visible(run.name), visible(title_of(run))
        self.query_one("#summary", Static).update(summary_table(run))
        grid = self.query_one("#plots", Grid)
        grid.remove_children()
        grid.mount_all(plots_of(run))
        lines = [f"{row['iteration']}  {visible(str(row.get('text', '')))}" for row in run.alarms]
        lines += [visible(problem) for problem in run.problems]
        self.query_one("#alarms", Static).update(Text("\n".join(lines) or "None was raised."))
        self.apply_filter()

    @on(Input.Changed, "#filter")
    def apply_filter(self) -> None:
        """Show the rollouts that the filter chooses; say what it does not understand."""
        if self.known is None:
            return
        table, count = self.known.table, self.query_one("#count", Label)
        try:
            order = parse_filter(self.query_one("#filter", Input).value, table).apply(len(table))
        except ConfigError as error:
            count.update(Text(visible(str(error)), "red"))
            return
        count.update(Text(f"{len(order):,} of {len(table):,} rollouts"))
        self.query_one(RolloutList).show(table, order)

    @on(Input.Submitted, "#filter")
    def leave_filter(self) -> None:
        """Go on to the list."""
        self.query_one(RolloutList).focus()

    @on(RolloutList.Chosen)
    def show_rollout(self) -> None:
        """Show the rollout under the cursor."""
        index = self.query_one(RolloutList).chosen
        text = Text("No rollout is like this.", "dim")
        if index is not None and self.known is not None:
            text = rollout_text(self.known.table, index, self.measure)
        self.query_one("#rollout", Static).update(text)
        self.query_one("#detail").scroll_home(animate=False)

    def action_tab(self, name: str) -> None:
        """Show a tab."""
        self.query_one(TabbedContent).active = name
        if name == "rollouts":
            self.query_one(RolloutList).focus()

    def action_search(self) -> None:
        """Go to the filter."""
        self.action_tab("rollouts")
        self.query_one("#filter", Input).focus()

    def action_leave(self) -> None:
        """Go back to the list."""
        self.query_one(RolloutList).focus()

    def action_colour(self) -> None:
        """Let the colours of tokens mean something else."""
        self.measure = MEASURES[(MEASURES.index(self.measure) + 1) % len(MEASURES)]
        self.show_rollout()


def run_version(path: Path) -> object:
    """Return something that changes when the files of a run do."""
    files = [path / "metrics.jsonl", *path.glob("rollouts/*.jsonl")]
    return sorted((f.name, f.stat().st_mtime_ns, f.stat().st_size) for f in files if f.exists())


def plots_of(run: Run) -> list[Plot]:
    """Return the plots of the metrics that say most, one per curve."""
    curves = curves_of(run)
    return [
        Plot(f"{panel['title']}{label and ', ' + label}", curves[key], share=is_share(key))
        for panel in panels_of([run], curves)
        if panel["main"]
        for key, label in panel["series"]
        if key in curves
    ]


def summary_table(run: Run) -> Table:
    """Return facts, and the figures before and after."""
    table = Table.grid(padding=(0, 3))
    table.add_row(Text("  ".join(f"{name} {visible(value)}" for name, value in facts_of(run))))
    figures = Table.grid(padding=(0, 3))
    for row in before_and_after(run):
        first, last = (figure(row[end]["value"], share=row["share"]) for end in ("first", "last"))
        figures.add_row(
            Text(f"{row['label']} {row['variant']}"), Text(first, "dim"), "→", Text(last, "bold")
        )
    table.add_row(figures)
    times = "  ".join(f"{name} {seconds:,.1f} s" for name, seconds in phase_times(run))
    table.add_row(Text(times, "dim"))
    return table
