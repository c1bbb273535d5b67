"""gRPC does not bear being forked while it is in use: there a call waits for ever, or the process crashes."""

from __future__ import annotations

import os
import weakref

from agentic_isolation.errors import UnsupportedError

_in_use: weakref.WeakSet[object] = weakref.WeakSet()
_forked_in_use = False


def uses_grpc(user: object) -> None:
    """Takes note of what uses gRPC until `ends_use`, or until nobody has it any more.

    Raises:
        UnsupportedError: As `refuse_forked`.
    """
    refuse_forked()
    _in_use.add(user)


def ends_use(user: object) -> None:
    """Takes note that it does not use gRPC any more."""
    _in_use.discard(user)


def refuse_forked() -> None:
    """Raises UnsupportedError in a process that was forked from one which used gRPC just then."""
    if _forked_in_use:
        raise UnsupportedError(
            "this process was forked while workspaces or clients were open, and gRPC does not work in here; start "
            "processes by multiprocessing's 'spawn' or 'forkserver'"
        )


def _after_fork() -> None:
    global _forked_in_use  # noqa: PLW0603  it is the process that was forked
    _forked_in_use = _forked_in_use or bool(_in_use)


os.register_at_fork(after_in_child=_after_fork)
