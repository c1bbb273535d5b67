"""`top`: the full-screen view over a real service, driven by keys."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from textual.coordinate import Coordinate
from textual.pilot import Pilot
from textual.widgets import Label, Log, OptionList

from agentic_isolation import AgenticWorkspace, WorkspaceInfo
from agentic_isolation import _convert as convert
from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation_service.cli.top import watching
from agentic_isolation_service.cli.top.listing import Listing
from agentic_isolation_service.cli.top.printable import PrintableText
from agentic_isolation_service.cli.top.view import TopView
from agentic_isolation_service.cli.top.watching import Watcher
from tests.integration.cli import run
from tests.support.eventually import eventually
from tests.support.scripted_service import SILENCE, WORKSPACE, ScriptedService
from tests.support.service import ServedProcess
from tests.support.terminal import Terminal

PRINTS = "printf '\\033[31mone\\033[0m\\n\\033]0;title\\007two\\n'; while read x; do echo got $x; done"


class Viewer:
    """Somebody in front of the view."""

    def __init__(self, app: TopView, pilot: Pilot[None]) -> None:
        self.app = app
        self.press = pilot.press

    def column(self, name: str, title: str) -> list[str]:
        listing = self.app.query_one(f"#{name}", Listing)
        return [
            str(listing.get_cell_at(Coordinate(row, listing.get_column_index(title))))
            for row in range(listing.row_count)
        ]

    def output(self) -> str:
        return "\n".join(self.app.query_one("#output", Log).lines)

    def status(self) -> str:
        return str(self.app.query_one("#status", Label).content)


@contextlib.asynccontextmanager
async def viewed(target: str) -> AsyncIterator[Viewer]:
    app = TopView(target, {}, 0.2)
    async with app.run_test(size=(140, 40)) as pilot:
        yield Viewer(app, pilot)


async def test_view_of_a_service(service: ServedProcess) -> None:
    """Rows come and go, output streams, what is printed is never obeyed; signals and destruction are asked about."""
    target = service.target
    async with (
        AgenticWorkspace.create("local", labels={"team": "red"}, target=target) as first,
        AgenticWorkspace.create("local", labels={"team": "blue"}, target=target) as second,
        await first.start(PRINTS) as echoing,
        viewed(target) as viewer,
    ):
        await eventually(lambda: viewer.column("workspaces", "WORKSPACE") == [first.id, second.id], "both are there")
        assert "2 workspaces" in viewer.status()
        await eventually(lambda: viewer.column("processes", "STATE") == ["running"], "its process is there")
        await eventually(lambda: "two" in viewer.output(), "what was printed is shown")
        assert viewer.output().split() == ["one", "two"]
        await echoing.write("more\n")
        await eventually(lambda: "got more" in viewer.output(), "what is printed now is shown, too")

        await viewer.press("slash", *"blue", "enter")
        await eventually(lambda: viewer.column("workspaces", "WORKSPACE") == [second.id], "one is filtered")
        await eventually(lambda: viewer.column("processes", "STATE") == [], "it has no processes")
        await viewer.press("slash", *["backspace"] * 4, "enter")
        await eventually(lambda: viewer.column("workspaces", "WORKSPACE") == [first.id, second.id], "both are back")
        await viewer.press("up")
        await eventually(lambda: viewer.column("processes", "STATE") == ["running"], "the first one is selected")

        await viewer.press("k", "escape")
        await viewer.press("k", "enter")
        await viewer.press("k", "down", "down", "enter")
        await eventually(lambda: viewer.column("processes", "STATE") == ["signal 15"], "only the third one signals")
        await eventually(lambda: "[signal 15]" in viewer.output(), "its end is shown")

        await viewer.press("d", "enter")
        await viewer.press("d")
        await eventually(lambda: isinstance(viewer.app.focused, OptionList), "it asks")
        await viewer.press("down", "enter")
        await eventually(lambda: viewer.column("workspaces", "WORKSPACE") == [second.id], "the other one is left")


async def test_words_of_callers_are_no_markup(service: ServedProcess) -> None:
    words = "[/b] [red]é"
    async with (
        AgenticWorkspace.create("local", labels={"note": words}, target=service.target) as workspace,
        await workspace.start(["sleep", "1000", words]),
        viewed(service.target) as viewer,
    ):
        await eventually(lambda: viewer.column("workspaces", "LABELS") == [f"note={words}"], "its label is there")
        await eventually(lambda: viewer.column("processes", "COMMAND") == [f"sleep 1000 '{words}'"], "and its process")


async def test_view_of_a_service_that_goes_away() -> None:
    """It says so, keeps what it knows, and goes on when the service is back."""
    with ServedProcess("--address", "127.0.0.1:0") as service:
        target = service.target
        async with viewed(target) as viewer:
            await eventually(lambda: "0 workspaces" in viewer.status(), "it is there")
            service.stop()
            await eventually(lambda: viewer.app.query_one("#status").has_class("failed"), "it is gone")
            with ServedProcess("--address", target):
                await eventually(lambda: not viewer.app.query_one("#status").has_class("failed"), "it is back")


async def test_view_that_ends_while_it_looks() -> None:
    """At whatever moment: nothing is shown in panes that are gone."""
    with ServedProcess("--address", "127.0.0.1:0") as service:
        for moment in range(10):
            app = TopView(service.target, {}, 0.001)
            async with app.run_test(size=(140, 40)):
                await asyncio.sleep(moment / 50)


async def test_top_once(service: ServedProcess) -> None:
    async with AgenticWorkspace.create("local", labels={"team": "red"}, target=service.target) as workspace:
        lines = await in_table(service, workspace.info)
    assert lines[0].split()[:3] == ["WORKSPACE", "PROVIDER", "IMAGE"]
    assert lines[1].split()[:2] == [workspace.id, "local"]
    assert "team=red" in lines[1]


async def in_table(service: ServedProcess, info: WorkspaceInfo) -> list[str]:
    done = await asyncio.to_thread(run, "top", "--once", "--target", service.target)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if "WORKSPACE" in line or info.id in line]


def test_top_in_a_terminal(service: ServedProcess) -> None:
    """The terminal is given back, by q and by a signal."""
    for ends in (True, False):
        with Terminal("top", "--target", service.target, columns=120) as terminal:
            terminal.expect("workspaces")
            terminal.expect("Quit")
            if ends:
                terminal.type("q")
            else:
                terminal.signal(signal.SIGTERM)
            assert terminal.wait() == (0 if ends else 128 + signal.SIGTERM)
            assert terminal.modes() == terminal.settings


def test_top_without_a_terminal(service: ServedProcess) -> None:
    done = run("top", "--target", service.target)
    assert (done.returncode, done.stdout) == (1, "")
    assert "needs a terminal; `top --once`" in done.stderr


def test_what_is_printed_becomes_plain_text() -> None:
    printed = "a\x1b[1;31mb\x1b[0m\r\n\x1b]0;title\x07c\x1b(B\x1b7\td\x00\x9b\r\ne\x1b[2J é\n".encode()
    whole = PrintableText().feed(printed)
    assert whole == "ab\nc    d\ne é\n"
    bytewise = PrintableText()
    assert "".join(bytewise.feed(bytes([byte])) for byte in printed) == whole
    assert PrintableText().feed(b"\xff10%\r20%\r\n") == "\ufffd10%\n20%\n"


async def test_workspaces_that_do_not_answer_keep_no_other_from_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_CALL_TIMEOUT", 0.5)
    monkeypatch.setattr(watching, "_LOOK_TIMEOUT", 1.2)
    infos = [replace(WORKSPACE, id=f"ws-{number:020}") for number in range(60)]
    async with ScriptedService() as service:
        listed = pb.ListWorkspacesResponse(workspaces=map(convert.workspace_to_pb, infos))
        service.will_answer("ListWorkspaces", listed)
        service.will_answer("GetWorkspace", *[SILENCE] * len(infos))
        async with Watcher(service.target, {}) as watcher:
            rows = await watcher.workspaces()
    assert [row.info.id for row in rows] == [info.id for info in infos]
    assert {row.memory_bytes for row in rows} == {None}
