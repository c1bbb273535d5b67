"""Workspaces without an event loop: in threads and beside a running event loop."""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentic_isolation import (
    AgenticWorkspace,
    ClosedError,
    Exited,
    FileChange,
    Files,
    FileWatch,
    InvalidArgumentError,
    IsolationError,
    JsonLine,
    Output,
    Process,
    SecurityConfig,
    Started,
    TerminalSize,
    TransferProgress,
    WorkspaceFileNotFoundError,
    WorkspaceNotFoundError,
    sync,
)
from agentic_isolation.stream import LineStream
from agentic_isolation.sync import Workspace
from tests.support import proc
from tests.support.eventually import eventually
from tests.support.jobs import TREE_SIZE, new_mark, sleep_for_ever, tree
from tests.support.service import ServedProcess

COUNTERPARTS = {
    AgenticWorkspace: sync.Workspace,
    Files: sync.Files,
    FileWatch: sync.FileWatch,
    LineStream: sync.Stream,
    Process: sync.Process,
}
SIZE = TerminalSize(80, 24)
WITHOUT = {"aclose", "take"}
"""`close` is what `aclose` is elsewhere, and steps are taken many at a time by themselves."""


def our_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("agentic-isolation")]


@pytest.fixture(autouse=True)
def the_thread_ends() -> Iterator[None]:
    yield
    assert our_threads() == []


@pytest.fixture
def ws(ground: None) -> Iterator[Workspace]:
    with local() as ws:
        yield ws


def local(**settings: str) -> Workspace:
    """Makes a workspace of the service that this process embeds."""
    return Workspace.create(provider="local", lease=60, target="", environment=settings)


def exists(ws: Workspace) -> bool:
    """Whether the workspace's directory is there."""
    return Path(ws.info.host_path).exists()


def wait_until_gone(mark: str) -> None:
    asyncio.run(eventually(lambda: not proc.mentioning(mark), "the command is gone"))


@pytest.mark.parametrize("original", COUNTERPARTS)
def test_everything_is_there(original: type) -> None:
    """Under the same names, with the same arguments."""
    for name in (name for name in dir(original) if not name.startswith("_") and name not in WITHOUT):
        counterpart = getattr(COUNTERPARTS[original], name)
        assert inspect.getdoc(counterpart)
        assert not inspect.iscoroutinefunction(counterpart)
        if inspect.isfunction(method := inspect.getattr_static(original, name)):
            assert inspect.signature(counterpart).parameters == inspect.signature(method).parameters


def test_commands(ws: Workspace) -> None:
    result = ws.execute("echo $0; cat; exit 3", stdin="in")
    assert (result.stdout, result.exit_code) == ("/bin/sh\nin", 3)
    assert ws.execute(["sleep", "60"], timeout=0.1).timed_out
    with pytest.raises(InvalidArgumentError) as raised:
        ws.execute("true", cwd="relative")
    assert raised.value.field == "command.working_dir"


def test_streams(ws: Workspace) -> None:
    with ws.stream("seq 20000; echo err >&2; exit 4") as stream:
        assert next(stream) == "1"
        assert list(stream) == [str(number) for number in range(2, 20001)]
    assert stream.exit_code == 4
    assert stream.termination is not None
    assert list(stream) == []
    kinds = [type(event) for event in ws.stream("echo out").events()]
    assert kinds == [Started, Output, Exited]
    lines = list(ws.stream("echo '[1]'; echo one", parse="jsonl"))
    assert lines == [JsonLine("[1]", [1], is_json=True), JsonLine("one", None, is_json=False)]
    with pytest.raises(ClosedError):
        next(stream.events())


def test_lines_come_while_the_command_runs(ws: Workspace) -> None:
    """It waits for a file after each line: it could not end if its lines came late."""
    command = "for i in 1 2 3; do echo $i; while ! [ -e $i ]; do sleep 0.01; done; done"
    for line in ws.stream(command):
        ws.write_file(line, "")


def test_processes(ws: Workspace) -> None:
    with ws.start("while read line; do echo got $line; done; exit 5") as process:
        assert (process.id, process.exit_code) == (ws.processes()[0].id, None)
        lines = process.lines()
        for word in ("one", "two"):
            process.write(f"{word}\n")
            assert next(lines) == f"got {word}"
        process.send_eof()
        assert process.wait().exit_code == process.exit_code == ws.wait(process.id).exit_code == 5
    with ws.attach(process.id, read_only=True) as again:
        events = list(again)
        assert b"".join(event.data for event in events if isinstance(event, Output)) == b"got one\ngot two\n"
        assert again.offset == 16
        assert isinstance(events[-1], Exited)
    with ws.start("echo '{}'; echo no") as process:
        assert [line.is_json for line in process.lines(parse="jsonl")] == [True, False]
    with ws.start("trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done", terminal=SIZE) as process:
        lines = process.lines()
        assert next(lines) == "ready"
        process.resize(100, 30)
        assert next(lines) == "30 100"


def test_waiting_for_a_process_that_another_thread_reads(ws: Workspace) -> None:
    with ws.start("for i in 1 2 3; do echo $i; sleep 0.1; done") as process, ThreadPoolExecutor(1) as thread:
        events = iter(process)
        assert isinstance(next(events), Output)
        waiting = thread.submit(process.wait)
        time.sleep(0.05)
        assert b"".join(event.data for event in events if isinstance(event, Output)) == b"2\n3\n"
        assert waiting.result().exit_code == 0


def test_processes_end_with_their_block_or_go_on(ws: Workspace) -> None:
    marks = [new_mark() for _ in range(3)]
    with ws.start(sleep_for_ever(marks[0])), ws.start(sleep_for_ever(marks[1]), detached=True) as detached:
        ws.start(sleep_for_ever(marks[2])).kill()
        assert not proc.mentioning(marks[2])
        detached.detach()
    assert not proc.mentioning(marks[0])
    assert proc.mentioning(marks[1])
    ws.signal(detached.id, signal.SIGTERM)
    assert ws.wait(detached.id).signal == signal.SIGTERM


def test_files(ws: Workspace) -> None:
    ws.write_file("d/file", "text")
    assert ws.read_file("d/file") == b"text"
    assert ws.file_exists("d")
    assert not ws.file_exists("e")
    ws.files.copy("d", "e", recursive=True)
    assert [file.name for file in ws.files.iterate(depth=2)] == ["d", "file", "e", "file"]
    assert ws.files.list() == list(ws.files.iterate())
    with pytest.raises(WorkspaceFileNotFoundError) as raised:
        ws.files.read("missing")
    frames = [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)]
    assert (frames[0], "read" in frames) == ("test_files", True)


def test_watching(ws: Workspace) -> None:
    with ws.files.watch() as changes:
        ws.write_file("file", "")
        change = next(changes)
        assert isinstance(change, FileChange)
        assert "file" in change.path
    assert list(changes) == []
    with pytest.raises(ClosedError):
        next(ws.files.watch())


def test_transfers(ws: Workspace, directory: Path) -> None:
    (directory / "file").write_bytes(b"x" * 1000)
    told: list[TransferProgress] = []
    ws.upload(directory / "file", progress=told.append)
    assert told
    ws.download("file", directory / "again")
    assert (directory / "again").read_bytes() == b"x" * 1000


def test_finding_workspaces(service: ServedProcess) -> None:
    with Workspace.create(provider="local", target=service.target, labels={"for": "sync"}) as ws:
        assert [info.id for info in Workspace.list({"for": "sync"}, target=service.target)] == [ws.id]
        ws.write_file("file", "shared")
        with Workspace.connect(ws.id, target=service.target) as again:
            assert again.read_file("file") == b"shared"
            assert again.describe().id == ws.id
        assert exists(ws)
        assert ws.config.labels == ws.info.labels
    assert Workspace.list({"for": "sync"}, target=service.target) == []
    with pytest.raises(WorkspaceNotFoundError):
        Workspace.connect(ws.id, target=service.target)


def test_workspaces_share_one_thread_and_service(ws: Workspace) -> None:
    with local() as other:
        assert our_threads().count("agentic-isolation") == 1
        assert {info.id for info in Workspace.list(target="")} == {ws.id, other.id}
    assert ws.execute("true").success


def test_closing(ws: Workspace) -> None:
    mark = new_mark()
    with ThreadPoolExecutor() as threads:
        command = threads.submit(ws.execute, tree(mark))
        asyncio.run(eventually(lambda: len(proc.mentioning(mark)) == TREE_SIZE, "all of it runs"))
        ws.close()
        assert not proc.mentioning(mark)
        with pytest.raises(IsolationError, match="workspace"):
            command.result()
    ws.close()
    assert not exists(ws)
    assert ws.id, "what it was is still known"
    for use in (lambda: ws.execute("true"), lambda: ws.stream("true"), ws.describe):
        with pytest.raises(ClosedError):
            use()


def test_several_threads_use_one_workspace(ws: Workspace) -> None:
    with ThreadPoolExecutor(8) as threads:
        results = threads.map(lambda number: ws.execute(f"echo {number}").stdout, range(40))
        assert list(results) == [f"{number}\n" for number in range(40)]


def test_threads_with_workspaces_of_their_own() -> None:
    def use(number: int) -> str:
        with local(NUMBER=str(number)) as ws:
            return "".join(ws.stream("echo $NUMBER"))

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(use, range(8))) == [str(number) for number in range(8)]


async def test_beside_a_running_event_loop() -> None:
    """As in a notebook, also where that loop has workspaces of its own."""
    async with AgenticWorkspace.create(provider="local", target="") as own:
        with local() as ws:
            assert ws.execute("echo hi").stdout == "hi\n"
            assert list(ws.stream("seq 3")) == ["1", "2", "3"]
            assert (await own.execute("echo ho")).stdout == "ho\n"
            assert {info.id for info in Workspace.list(target="")} == {ws.id}


@pytest.mark.parametrize("how", ["lines", "events", "close"])
def test_a_stream_that_is_left_early_is_killed(ws: Workspace, how: str) -> None:
    mark = new_mark()
    command = f"echo ready; exec sleep {mark}"
    if how == "lines":
        for line in ws.stream(command):
            assert line == "ready"
            break
    elif how == "events":
        for event in ws.stream(command).events():
            if isinstance(event, Output):
                break
        del event
    else:
        with ws.stream(command) as stream:
            assert next(stream) == "ready"
        assert not proc.mentioning(mark)
        stream.close()
    wait_until_gone(mark)


def test_what_is_refused_leaves_nothing() -> None:
    with pytest.raises(InvalidArgumentError):
        Workspace.create(provider="nothing", target="")
    with pytest.raises(InvalidArgumentError):
        Workspace.create(provider="local", target="", retry_timeout=-1)


def test_a_workspace_that_nobody_has_any_more_is_closed() -> None:
    kept = [local()]
    path = Path(kept[0].info.host_path)
    with pytest.warns(ResourceWarning, match=kept[0].id):
        kept.clear()
    asyncio.run(eventually(lambda: not path.exists(), "the workspace is gone"))
    asyncio.run(eventually(lambda: not our_threads(), "the thread has ended"))


def test_use_in_what_its_own_event_loop_calls(ws: Workspace) -> None:
    """It would wait for itself."""

    async def call_from_within() -> None:
        ws.execute("true")

    with pytest.raises(RuntimeError, match="own event loop"):
        ws._loop.run(call_from_within())


@pytest.mark.docker
def test_in_a_container() -> None:
    with Workspace.create(security=SecurityConfig(use_gvisor=False), target="") as ws:
        assert ws.info.isolation.runtime == "runc"
        assert list(ws.stream(["echo", "hi"])) == ["hi"]
