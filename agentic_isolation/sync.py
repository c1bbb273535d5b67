"""Workspaces for programs without an event loop: scripts, notebooks, threads.

    from agentic_isolation.sync import Workspace

    with Workspace.create(provider="local") as ws:
        print(ws.execute("echo hi").stdout)
        for line in ws.stream("make test"):
            print(line)

Everything is as with AgenticWorkspace, and waited for: same arguments, results and errors. What runs runs on a thread
with an event loop of its own, which starts with the first workspace and ends with the last, so that all of this also
works where an event loop runs already, as in notebooks, and several threads may use one workspace.

* Ctrl-C, or whatever else a signal's handler raises in the main thread, cancels what that thread waits for: the command
  dies, and then the exception is raised.
* Workspaces that are open when the main thread ends are closed then, whichever threads still use them.
* In a process that was forked, its parent's workspaces raise ClosedError and are left to the parent. gRPC does not bear
  being forked while it is in use, so where any workspaces of a service (`target`) were open those that are to be one's
  raise UnsupportedError: start processes by `multiprocessing`'s "spawn" or "forkserver", and make workspaces there.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from agentic_isolation import files, process
from agentic_isolation._blocking import Facade, Steps, blocking, making, opening, standalone
from agentic_isolation._loop_thread import Call, Hold, LoopThread, shared_loop
from agentic_isolation.changes import FileChange, WatchOverflow
from agentic_isolation.errors import ClosedError
from agentic_isolation.models import WorkspaceConfig, WorkspaceInfo
from agentic_isolation.runs import Exited, Gap, Output, Termination
from agentic_isolation.stream import LineStream
from agentic_isolation.workspace import AgenticWorkspace

__all__ = ["FileWatch", "Files", "Process", "Stream", "Workspace"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


# With one argument, type checkers go through all overloads of a method.
def _stepping(
    method: Callable[Concatenate[Any, _P], AsyncGenerator[_T, None]],
) -> Callable[Concatenate[Any, _P], Steps[_T]]:
    return making(method, Steps)


def _streaming(method: Callable[Concatenate[Any, _P], LineStream[_T]]) -> Callable[Concatenate[Any, _P], Stream[_T]]:
    return making(method, Stream)


class Stream(Steps[_T]):
    """A command that runs as it is read: OutputStream or JsonStream, step by step.

    Iterate over it once: over itself for stdout's lines, or over `events()`. Leaving it early kills the command's
    process tree, `with` or `close` at a definite moment.
    """

    def __init__(self, wrapped: LineStream[_T], loop: LoopThread, owner: object) -> None:
        super().__init__(wrapped, loop, owner)
        self._stream = wrapped
        self._taken: deque[_T] = deque()

    def __next__(self) -> _T:
        while not self._taken:
            lines = self._loop.run(self._stream.take())
            if not lines:
                raise StopIteration
            self._taken.extend(lines)
        return self._taken.popleft()

    @property
    def termination(self) -> Termination | None:
        """How the command ended; None while it has not."""
        return self._stream.termination

    @property
    def exit_code(self) -> int | None:
        """0 to 255, 128+n for signal n, 124 after a timeout; None while the command has not ended."""
        return self._stream.exit_code

    events = _stepping(LineStream.events)
    """Yields every event: Started, Output of both sources in the order of arrival, Gap, Exited."""


class Process(Facade[process.Process]):
    """A process in a workspace that is interacted with; see agentic_isolation.Process.

    Iterate over it for its events, or over `lines()`. Leaving `with` kills the process tree if it was started here and
    neither detached nor started detached.
    """

    def __iter__(self) -> Steps[Output | Gap | Exited]:
        return Steps(aiter(self._wrapped), self._loop, self)

    def __next__(self) -> Output | Gap | Exited:
        try:
            return self._loop.run(self._wrapped.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def id(self) -> str:
        """Its id in its workspace."""
        return self._wrapped.id

    @property
    def offset(self) -> int:
        """Place of the next byte of its output that an iteration will give; to be attached from later."""
        return self._wrapped.offset

    @property
    def termination(self) -> Termination | None:
        """How it ended; None while that is not known here."""
        return self._wrapped.termination

    @property
    def exit_code(self) -> int | None:
        """0 to 255, 128+n for signal n, 124 after a timeout; None while it has not ended."""
        return self._wrapped.exit_code

    lines = _stepping(process.Process.lines)
    """Yields the lines of its standard output, or of its terminal, as text without their newlines."""
    write = blocking(process.Process.write)
    """Writes to its standard input, or types into its terminal; text as UTF-8."""
    send_eof = blocking(process.Process.send_eof)
    """Ends its standard input; in a terminal, types its end-of-file character (Ctrl-D)."""
    resize = blocking(process.Process.resize)
    """Gives its terminal another size, in characters."""
    signal = blocking(process.Process.signal)
    """Sends a signal to the foreground of its terminal, or to the command where it has none."""
    kill = blocking(process.Process.kill)
    """Kills its whole process tree and returns when nothing of it is left."""
    wait = blocking(process.Process.wait)
    """Waits for its end and returns how it ended."""
    detach = blocking(process.Process.detach)
    """Lets go of it without killing it."""
    close = blocking(process.Process.aclose)
    """Lets go of it, and kills it where leaving `with` does. May be called twice."""


class FileWatch(Steps[FileChange | WatchOverflow]):
    """What changes in a directory; see agentic_isolation.FileWatch. Enter it by `with`, then iterate over it."""

    def __init__(self, wrapped: files.FileWatch, loop: LoopThread, owner: object) -> None:
        super().__init__(wrapped, loop, owner)
        self._watch = wrapped

    def __enter__(self) -> Self:
        self._loop.run(self._watch.__aenter__())
        return self


class Files(Facade[files.Files]):
    """The files of a workspace; see agentic_isolation.Files."""

    write = blocking(files.Files.write)
    """Writes a file atomically; missing parents are made."""
    read = blocking(files.Files.read)
    """Returns a file's content, from a byte on and so many bytes at most."""
    exists = blocking(files.Files.exists)
    """Returns whether anything has that path."""
    stat = blocking(files.Files.stat)
    """Describes a file or directory."""
    list = blocking(files.Files.list)
    """Returns a directory's entries, sorted by name."""
    iterate = _stepping(files.Files.iterate)
    """Yields a directory's entries as `list` returns them, page by page: for trees of any size."""
    make_directory = blocking(files.Files.make_directory)
    """Makes a directory."""
    move = blocking(files.Files.move)
    """Moves a file or directory, atomically."""
    copy = blocking(files.Files.copy)
    """Copies a file, a symlink itself, or a directory."""
    chmod = blocking(files.Files.chmod)
    """Sets permission bits."""
    remove = blocking(files.Files.remove)
    """Removes a file, a symlink itself, or a directory."""
    watch = making(files.Files.watch, FileWatch)
    """Watches a directory for changes; enter the result, then iterate over it."""


def _opening(make: Callable[_P, AgenticWorkspace]) -> classmethod[Any, _P, Workspace]:
    @functools.wraps(make)
    def opened(cls: type[Workspace], /, *args: _P.args, **kwargs: _P.kwargs) -> Workspace:
        return cls(make(*args, **kwargs))

    opened.__doc__ = f"Opens it; everything as AgenticWorkspace.{make.__name__}."
    return classmethod(opened)


class Workspace(Facade[AgenticWorkspace]):
    """A workspace of its own for an agent; see AgenticWorkspace, and the module for what is different.

        with Workspace.create(provider="docker") as ws:
            ...

        ws = Workspace.create(provider="docker")
        ...
        ws.close()

    Args:
        workspace: What is to be opened.
    """

    create = _opening(AgenticWorkspace.create)
    """Makes a workspace; arguments and errors as AgenticWorkspace.create."""
    connect = _opening(AgenticWorkspace.connect)
    """Finds one that is there; arguments and errors as AgenticWorkspace.connect."""
    list = staticmethod(standalone(AgenticWorkspace.list))
    """Returns the workspaces of a service; arguments and errors as AgenticWorkspace.list."""

    def __init__(self, workspace: AgenticWorkspace) -> None:
        self._hold = shared_loop.use()
        super().__init__(workspace, self._hold.loop)
        self._loop.closing.add(workspace.close)
        self._forgetting = weakref.finalize(self, _forget, workspace, self._hold)
        self._forgetting.atexit = False
        try:
            self._loop.run(workspace.__aenter__())
        except BaseException:
            self.close()  # interrupted, it may have been opened at the same moment
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def id(self) -> str:
        """The workspace's id on its service."""
        return self._wrapped.id

    @property
    def info(self) -> WorkspaceInfo:
        """The workspace as it was made; its `isolation` is what is in force."""
        return self._wrapped.info

    @property
    def config(self) -> WorkspaceConfig:
        """How it was to be made."""
        return self._wrapped.config

    execute = blocking(AgenticWorkspace.execute)
    """Runs a command to its end. Interrupted, it kills the command's whole process tree."""
    stream = _streaming(AgenticWorkspace.stream)
    """Runs a command and gives its output as it is printed: iterate over the result for stdout's lines."""
    start = opening(AgenticWorkspace.start, Process)
    """Starts a command to be interacted with, and returns when it runs."""
    attach = opening(AgenticWorkspace.attach, Process)
    """Attaches to a process that was started before, by this program or another one."""
    processes = blocking(AgenticWorkspace.processes)
    """Returns the processes that were started in the workspace and are remembered, oldest first."""
    wait = blocking(AgenticWorkspace.wait)
    """Waits for the end of a process and returns how it ended."""
    signal = blocking(AgenticWorkspace.signal)
    """Sends a signal to a process."""
    describe = blocking(AgenticWorkspace.describe)
    """Returns the workspace as it is now: its state, its lease, and what it uses."""
    write_file = blocking(AgenticWorkspace.write_file)
    """Writes a file atomically; missing parents are made."""
    read_file = blocking(AgenticWorkspace.read_file)
    """Returns a file's content."""
    file_exists = blocking(AgenticWorkspace.file_exists)
    """Returns whether anything has that path."""
    upload = blocking(AgenticWorkspace.upload)
    """Copies a file, or all that lies in a directory, into the workspace; `progress` is called on another thread."""
    download = blocking(AgenticWorkspace.download)
    """Copies a file, or all that lies in a directory, to this machine; `progress` is called on another thread."""

    @property
    def files(self) -> Files:
        """The files in the workspace.

        Raises:
            ClosedError: It was closed.
        """
        return Files(self._wrapped.files, self._loop, self)

    def close(self) -> None:
        """Kills everything in the workspace and removes it. May be called twice."""
        if self._forgetting.detach() is None:
            return
        try:
            with contextlib.suppress(ClosedError):
                self._loop.run(self._wrapped.close())
        finally:
            _let_go(self._wrapped, self._hold)


def _let_go(workspace: AgenticWorkspace, hold: Hold) -> None:
    hold.loop.closing.discard(workspace.close)
    hold.release()


def _forget(workspace: AgenticWorkspace, hold: Hold) -> None:
    """Closes a workspace that nobody has any more."""
    call = Call(workspace.close())
    call.done.add_done_callback(lambda _: _let_go(workspace, hold))
    hold.loop.submit(call)
    warnings.warn(f"workspace {workspace.id} was not closed", ResourceWarning, stacklevel=2)
