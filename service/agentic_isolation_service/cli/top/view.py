"""The full-screen view of `top`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from typing import ClassVar

from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.css.query import NoMatches
from textual.widgets import DataTable, Footer, Input, Label, Log

from agentic_isolation import AgenticWorkspace, Exited, Gap, IsolationError, Output, ServiceClient
from agentic_isolation_service.cli import render
from agentic_isolation_service.cli.top.choice import Choice
from agentic_isolation_service.cli.top.listing import Listing
from agentic_isolation_service.cli.top.printable import PrintableText
from agentic_isolation_service.cli.top.tables import PROCESS_COLUMNS, WORKSPACE_COLUMNS, process_cells, workspace_cells
from agentic_isolation_service.cli.top.watching import Watcher, WorkspaceRow

_TAIL_BYTES = 32 << 10
_MOST_LINES = 2000
_ACTION_TIMEOUT = 60.0
_SIGNALS = (
    ("Cancel", 0, False),
    ("SIGINT to its foreground", signal.SIGINT, False),
    ("SIGTERM to its foreground", signal.SIGTERM, False),
    ("SIGTERM to its whole tree", signal.SIGTERM, True),
    ("SIGKILL to its whole tree", signal.SIGKILL, True),
)


class TopView(App[None]):
    """Workspaces above, the processes of the selected one below, and what the selected process prints at the bottom.

    Args:
        target: The service's address.
        labels: Only workspaces that have all of these.
        interval: Seconds between looks.
    """

    TITLE = "agentic-isolation top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Label { padding: 0 1; width: 100%; }
    #status { background: $primary; color: $text; }
    #status.failed { background: $error; }
    #workspaces { height: 1fr; }
    #below { height: 2fr; }
    #processes { height: 1fr; }
    #output { height: 1fr; }
    .title { background: $panel; text-style: bold; }
    #filter { display: none; }
    #filter.shown { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("tab", "app.focus_next", "Next pane"),
        Binding("slash", "filter", "Filter"),
        Binding("k", "signal", "Signal"),
        Binding("d", "destroy", "Destroy"),
    ]

    def __init__(self, target: str, labels: Mapping[str, str], interval: float) -> None:
        super().__init__()
        self._target = target
        self._interval = interval
        self._labels = labels
        self._rows: list[WorkspaceRow] = []
        self._filter = ""
        self._followed: tuple[str, str] | None = None
        self._changed = asyncio.Event()

    def compose(self) -> ComposeResult:
        """Builds the panes."""
        yield Label(f"{self._target}: connecting", id="status", markup=False)
        yield Listing(WORKSPACE_COLUMNS, id="workspaces")
        with Vertical(id="below"):
            yield Label("Processes", id="processes-title", classes="title", markup=False)
            yield Listing(PROCESS_COLUMNS, id="processes")
            yield Label("Output", id="output-title", classes="title", markup=False)
            yield Log(max_lines=_MOST_LINES, id="output")
        yield Input(placeholder="Workspaces with …", id="filter")
        yield Footer()

    def on_mount(self) -> None:
        """Begins to look."""
        self.query_one("#workspaces", Listing).focus()
        self._watch()

    @property
    def _workspaces(self) -> Listing:
        return self.query_one("#workspaces", Listing)

    @property
    def _processes(self) -> Listing:
        return self.query_one("#processes", Listing)

    @work(exclusive=True, group="watch")
    async def _watch(self) -> None:
        try:
            await self._keep_watching()
        except NoMatches:
            if self.is_running:
                raise  # else the panes went first, and this task is about to be cancelled

    async def _keep_watching(self) -> None:
        async with Watcher(self._target, self._labels) as watcher:
            while True:
                try:
                    self._rows = await watcher.workspaces()
                except (IsolationError, TimeoutError) as error:
                    self._tell(f"{self._target}: {_words_of(error)}", failed=True)
                else:
                    self._show_workspaces()
                await self._look_at_processes(watcher)
                await self._pause()

    async def _pause(self) -> None:
        """Waits for the next look, or until another workspace is selected."""
        self._changed.clear()
        try:
            async with asyncio.timeout(self._interval):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _show_workspaces(self) -> None:
        rows = {row.info.id: workspace_cells(row) for row in self._rows}
        wanted = self._filter.casefold()
        shown = {key: cells for key, cells in rows.items() if wanted in " ".join(cells).casefold()}
        self._workspaces.show(shown)
        note = f", {len(shown)} with {self._filter!r}" if self._filter else ""
        self._tell(f"{self._target}: {len(rows)} workspaces{note}")

    async def _look_at_processes(self, watcher: Watcher) -> None:
        workspace_id = self._workspaces.selected
        if workspace_id is None:
            self._processes.show({})
            self._follow(None)
            return
        try:
            processes = await watcher.processes(workspace_id)
        except (IsolationError, TimeoutError) as error:
            self._tell(f"{workspace_id}: {_words_of(error)}", failed=True)
            return
        if workspace_id != self._workspaces.selected:
            self._changed.set()
            return
        self.query_one("#processes-title", Label).update(f"Processes of {workspace_id}")
        self._processes.show({row.info.id: process_cells(row) for row in processes})
        self._follow_selected()

    def _tell(self, text: str, *, failed: bool = False) -> None:
        status = self.query_one("#status", Label)
        status.update(render.printable(text))
        status.set_class(failed, "failed")

    @on(DataTable.RowHighlighted, "#workspaces")
    def _workspace_selected(self) -> None:
        self._changed.set()

    @on(DataTable.RowHighlighted, "#processes")
    def _process_selected(self) -> None:
        self._follow_selected()

    @on(DataTable.RowSelected, "#workspaces")
    def _enter_workspace(self) -> None:
        self._processes.focus()

    @on(DataTable.RowSelected, "#processes")
    def _enter_process(self) -> None:
        self.query_one("#output", Log).focus()

    def _follow_selected(self) -> None:
        workspace_id, process_id = self._workspaces.selected, self._processes.selected
        self._follow((workspace_id, process_id) if workspace_id and process_id else None)

    def _follow(self, wanted: tuple[str, str] | None) -> None:
        if wanted == self._followed:
            return
        self._followed = wanted
        self.query_one("#output", Log).clear()
        self.query_one("#output-title", Label).update("Output" if wanted is None else f"Output of {wanted[1]}")
        self.workers.cancel_group(self, "output")
        if wanted is not None:
            self._show_output(*wanted)

    @work(exclusive=True, group="output")
    async def _show_output(self, workspace_id: str, process_id: str) -> None:
        """Shows the latest of what a process has printed, and what it prints from now on, until another is selected."""
        log, text = self.query_one("#output", Log), PrintableText()
        try:
            async with AgenticWorkspace.connect(workspace_id, target=self._target) as workspace:
                end = next((found.output_bytes for found in await workspace.processes() if found.id == process_id), 0)
                begin = max(0, end - _TAIL_BYTES)
                async with await workspace.attach(process_id, offset=begin, observe=True) as reader:
                    async for event in reader:
                        if isinstance(event, Output):
                            log.write(text.feed(event.data))
                        elif isinstance(event, Gap):
                            log.write_line(f"[{event.lost_bytes} bytes are not shown]")
                        elif isinstance(event, Exited):
                            log.write_line(f"[{render.process_state(event.termination)}]")
        except IsolationError as error:
            log.write_line(f"[{render.printable(str(error))}]")

    def action_filter(self) -> None:
        """Asks which workspaces to show."""
        filter_input = self.query_one("#filter", Input)
        filter_input.add_class("shown")
        filter_input.focus()

    @on(Input.Changed, "#filter")
    def _filter_changed(self, event: Input.Changed) -> None:
        self._filter = event.value
        self._show_workspaces()
        self._changed.set()

    @on(Input.Submitted, "#filter")
    def _filter_submitted(self) -> None:
        self.query_one("#filter", Input).set_class(bool(self._filter), "shown")
        self._workspaces.focus()

    @work(exclusive=True, group="action")
    async def action_signal(self) -> None:
        """Asks which signal to send to the selected process, and sends it."""
        workspace_id, process_id = self._workspaces.selected, self._processes.selected
        if workspace_id is None or process_id is None:
            return
        answers = [answer for answer, _, _ in _SIGNALS]
        chosen = await self.push_screen_wait(Choice(f"Send to process {process_id}:", answers))
        if not chosen:
            return
        _, number, tree = _SIGNALS[chosen]
        try:
            async with (
                asyncio.timeout(_ACTION_TIMEOUT),
                AgenticWorkspace.connect(workspace_id, target=self._target, retry_timeout=0) as workspace,
            ):
                await workspace.signal(process_id, number, tree=tree)
        except (IsolationError, TimeoutError) as error:
            self.notify(_words_of(error), severity="error", markup=False)
        self._changed.set()

    @work(exclusive=True, group="action")
    async def action_destroy(self) -> None:
        """Asks whether to destroy the selected workspace, and does."""
        workspace_id = self._workspaces.selected
        if workspace_id is None:
            return
        question = f"Kill everything in {workspace_id} and remove it with its files?"
        if await self.push_screen_wait(Choice(question, ["Cancel", "Destroy it"])) != 1:
            return
        try:
            async with asyncio.timeout(_ACTION_TIMEOUT), ServiceClient(self._target, retry_timeout=0) as service:
                await service.destroy_workspace(workspace_id)
        except (IsolationError, TimeoutError) as error:
            self.notify(_words_of(error), severity="error", markup=False)
        self._changed.set()


def _words_of(error: Exception) -> str:
    return render.printable(str(error)) or "there was no answer in time"
