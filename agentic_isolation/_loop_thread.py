"""An event loop on a thread of its own, which programs without one share for as long as any of them needs it."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # its own end at the program's end is registered before ours, and comes after it
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Generic, TypeVar

from agentic_isolation.errors import ClosedError

_T = TypeVar("_T")

_END_TIMEOUT = 30.0
"""Seconds that the clean-up at a program's end may take; what it cannot reach by then ends with its lease."""
_ENDED = "the workspace was closed, or the program ends"


class Call(Generic[_T]):
    """A coroutine that runs on another thread's event loop."""

    def __init__(self, coroutine: Coroutine[Any, Any, _T]) -> None:
        self.done: concurrent.futures.Future[_T] = concurrent.futures.Future()
        self._coroutine = coroutine
        self._task: asyncio.Task[_T] | None = None

    def start(self, running: set[asyncio.Task[Any]]) -> None:
        """Starts it, on its event loop, and counts it among those that are running."""
        task = self._task = asyncio.get_running_loop().create_task(self._coroutine)
        running.add(task)
        task.add_done_callback(running.discard)
        task.add_done_callback(self._finish)

    def cancel(self) -> None:
        """Cancels it, on its event loop."""
        if self._task is not None:
            self._task.cancel()
        elif not self.done.done():
            self.refuse("the call was interrupted")

    def refuse(self, reason: str) -> None:
        """Ends it before it has started."""
        self._coroutine.close()
        self.done.set_exception(ClosedError(reason))

    def _finish(self, task: asyncio.Task[_T]) -> None:
        if task.cancelled():
            self.done.set_exception(ClosedError(_ENDED))
        elif (error := task.exception()) is not None:
            self.done.set_exception(error)
        else:
            self.done.set_result(task.result())


class LoopThread:
    """An event loop that runs on a thread from `start` to `stop`. Any other thread may call it.

    The thread is a daemon: a program whose clean-up does not come to its end is not held up by it for good.
    """

    def __init__(self) -> None:
        self.closing: set[Callable[[], Coroutine[Any, Any, object]]] = set()
        """What is called when it is stopped: it closes what nobody else has closed."""
        self._running: set[asyncio.Task[Any]] = set()
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._executor = concurrent.futures.ThreadPoolExecutor(thread_name_prefix="agentic-isolation")
        self._loop.set_default_executor(self._executor)
        self._stopping = asyncio.Event()
        # Garbage may be collected, and what it leaves be closed, at any moment of the thread that holds the lock.
        self._lock = threading.RLock()
        self.stopped = False
        """Whether it was told to end."""
        self._thread = threading.Thread(target=self._serve, name="agentic-isolation", daemon=True)

    def start(self) -> None:
        """Starts it, unless it was started."""
        if self._thread.ident is None:
            self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Runs a coroutine to its end and returns what it returns, or raises what it raises.

        Where a signal's handler raises meanwhile, as Ctrl-C does in the main thread, the coroutine is cancelled, and
        the exception raised when its clean-up has ended; a second one is raised at once.

        Raises:
            ClosedError: The event loop has ended, or belongs to the process that this one was forked from.
            RuntimeError: It is called on the event loop's own thread, which would wait for itself.
        """
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("a synchronous workspace cannot be used in what its own event loop calls")
        call = Call(coroutine)
        try:
            try:
                self.submit(call)
                call.done.exception()
            except BaseException:
                with self._lock:
                    if not self.stopped:
                        self._loop.call_soon_threadsafe(call.cancel)
                call.done.exception()
                raise
            return call.done.result()
        finally:
            # An exception holds this frame, which must not hold the exception.
            del call

    def submit(self, call: Call[Any]) -> None:
        """Starts a call and does not wait for it."""
        if os.getpid() != self._process:
            call.refuse(
                "the workspace is that of the process which this one was forked from, and gRPC does not work in here; "
                "start processes by multiprocessing's 'spawn' or 'forkserver', and make workspaces there"
            )
            return
        with self._lock:
            if self.stopped:
                call.refuse(_ENDED)
            else:
                self._loop.call_soon_threadsafe(call.start, self._running)

    def stop(self) -> None:
        """Tells it to end. May be called twice."""
        if os.getpid() != self._process:
            return
        with self._lock:
            if not self.stopped:
                self.stopped = True
                self._loop.call_soon_threadsafe(self._stopping.set)

    def join(self) -> None:
        """Waits for its end, on any thread but its own."""
        if threading.current_thread() is not self._thread and self._thread.is_alive():
            self._thread.join(_END_TIMEOUT)

    def _serve(self) -> None:
        # No asyncio.Runner: it ends the executor by a thread, and at a program's end there may be no new ones.
        try:
            self._loop.run_until_complete(self._until_stopped())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()
            self._executor.shutdown()

    async def _until_stopped(self) -> None:
        await self._stopping.wait()
        await asyncio.gather(*(close() for close in list(self.closing)), return_exceptions=True)
        # Calls first: each sees to what it has started.
        await _cancelled(set(self._running))
        await _cancelled(asyncio.all_tasks() - {asyncio.current_task()})


async def _cancelled(tasks: set[asyncio.Task[Any]]) -> None:
    """Cancels tasks and awaits their end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class SharedLoopThread:
    """One LoopThread for all who use it at a time: the first starts it, the last stops it.

    A signal's handler may raise anywhere in here. The order of what is done, which may be done again, is such that
    whoever lets go of its hold then sets everything right.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Starts anew, as in a process that was forked, where the thread is not."""
        self._lock = threading.RLock()
        self._thread: LoopThread | None = None
        self._users: set[object] = set()

    def use(self) -> Hold:
        """Returns a hold on the thread, which runs."""
        return Hold(self)

    def enter(self, user: object) -> LoopThread:
        """Starts the thread where it does not run, and keeps it running for a user."""
        with self._lock:
            if self._thread is None or self._thread.stopped:
                self._thread = LoopThread()
            self._users.add(user)
            self._thread.start()
            return self._thread

    def leave(self, user: object) -> None:
        """Stops the thread, and waits for its end, where nobody else uses it. May be called twice."""
        with self._lock:
            self._users.discard(user)
            if self._users or self._thread is None:
                return
            thread = self._thread
            thread.stop()
            self._thread = None
        thread.join()

    def end(self) -> None:
        """Stops it, whoever uses it: the program ends."""
        with self._lock:
            self._users.clear()
        self.leave(None)


class Hold:
    """One user's hold on the shared thread. It ends with `release`, or when nobody has it any more."""

    def __init__(self, shared: SharedLoopThread) -> None:
        self._shared = shared
        self._user = object()
        self._leaving = weakref.finalize(self, shared.leave, self._user)
        self._leaving.atexit = False
        self.loop = shared.enter(self._user)

    def __enter__(self) -> LoopThread:
        return self.loop

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Lets go of it. May be called twice."""
        self._shared.leave(self._user)
        self._leaving.detach()


shared_loop = SharedLoopThread()

# While threads can still be used, which they cannot in what atexit calls.
getattr(threading, "_register_atexit", atexit.register)(shared_loop.end)
os.register_at_fork(after_in_child=shared_loop.forget)
