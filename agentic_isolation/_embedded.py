"""The embedded service: one in this process for each event loop, while any workspace of it needs one.

It listens on a unix socket in a private directory (mode 0700), so its callers speak to it exactly as to a remote one.
"""

from __future__ import annotations

import asyncio
import weakref
from contextlib import AbstractAsyncContextManager

from agentic_isolation._forking import refuse_forked
from agentic_isolation._shared import Shared

_services: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Shared[str]] = weakref.WeakKeyDictionary()


def embedded_target() -> AbstractAsyncContextManager[str]:
    """Yields the address of this event loop's service, which runs until its last user has left.

    Raises:
        UnsupportedError: This process was forked while gRPC was in use.
    """
    refuse_forked()
    return _services.setdefault(asyncio.get_running_loop(), Shared(_serve)).use()


def _serve() -> AbstractAsyncContextManager[str]:
    # Imported here: programs that use a remote service never load one.
    from agentic_isolation_service.app import serve_embedded

    return serve_embedded()
