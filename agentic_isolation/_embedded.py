"""The embedded service: one in this process for each event loop, while any workspace of it needs one.

Its callers call its methods without a network between, and its answers and errors are those that a remote one gives.
"""

from __future__ import annotations

import asyncio
import weakref
from contextlib import AbstractAsyncContextManager

from agentic_isolation._connection import Connects
from agentic_isolation._shared import Shared

_services: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Shared[Connects]] = weakref.WeakKeyDictionary()


def embedded_service() -> AbstractAsyncContextManager[Connects]:
    """Yields what connects to this event loop's service, which runs until its last user has left."""
    return _services.setdefault(asyncio.get_running_loop(), Shared(_open)).use()


def _open() -> AbstractAsyncContextManager[Connects]:
    # Imported here: programs that use a remote service never load one.
    from agentic_isolation_service.app import open_embedded

    return open_embedded()
