"""A watch on the event loop: our code raises where it makes a call that blocks it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from blockbuster import BlockBuster

import agentic_isolation
import agentic_isolation_service

# What may block, as (function, file, callers) with the reason. The library itself allows what asyncio and the import
# system do; this list is ours.
ALLOWED: tuple[tuple[str, str, set[str]], ...] = (
    # One look at a file of the installed package, which takes microseconds.
    ("os.stat", "agentic_isolation_service/guest/binary.py", {"guest_binary"}),
    # aiodocker reads its own version when the first Docker workspace imports it.
    ("io.TextIOWrapper.read", "importlib/metadata/__init__.py", {"metadata"}),
    # Synchronous workspaces are there for programs that wait, beside whatever event loop their thread has.
    ("threading.Lock.acquire", "agentic_isolation/_loop_thread.py", {"run", "stop"}),
    # gRPC joins its poller when its last channel or server is collected, which may happen below any frame.
    ("threading.Lock.acquire", "threading.py", {"join"}),
)


@contextlib.contextmanager
def watch_for_blocking_calls() -> Iterator[None]:
    """Makes blocking calls below our packages raise while an event loop runs."""
    watch = BlockBuster([agentic_isolation, agentic_isolation_service])
    for function, file, callers in ALLOWED:
        watch.functions[function].can_block_in(file, callers)
    watch.activate()
    try:
        yield
    finally:
        watch.deactivate()
