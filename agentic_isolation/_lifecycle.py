"""The life of a workspace in its user's program: opened once, used, and closed whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from agentic_isolation import _convert as convert
from agentic_isolation._cleanup import finish
from agentic_isolation._commands import Commands
from agentic_isolation._connection import Connection
from agentic_isolation._lease import end, keep_renewed, patience_of
from agentic_isolation._loops import same_loop
from agentic_isolation.errors import ClosedError, ProviderUnavailableError, WorkspaceNotFoundError
from agentic_isolation.models import WorkspaceConfig, WorkspaceInfo
from agentic_isolation.v1 import workspace_pb2 as pb

Connect = Callable[[], AbstractAsyncContextManager[Connection]]
"""Opens the connection to a workspace's service."""
_CREATE_TIMEOUT = 600.0
_TAKE_BACK_TIMEOUT = 3.0
"""Seconds that a cancelled creation has to end by itself; then its call is cancelled."""
_NOT_OPEN = "the workspace is not open; use `async with` or `await` on AgenticWorkspace.create(...)"


class Lifecycle:
    """A workspace from its opening to its closing.

    Args:
        connect: Opens the connection to its service.
        wanted: How to make it; or the id of one that is there, which goes on when this is closed.
    """

    def __init__(self, connect: Connect, wanted: WorkspaceConfig | str) -> None:
        self._connect = connect
        self._wanted = wanted
        self._resources = contextlib.AsyncExitStack()
        self._connection: Connection | None = None
        self._commands: Commands | None = None
        self._info: WorkspaceInfo | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Task[object] | None = None
        """Who is opening it."""
        self._interrupted = False
        """Whether it was closed meanwhile."""
        self._closed = False
        self._left = asyncio.Event()
        """Whether all that was opened has been given up."""

    @property
    def info(self) -> WorkspaceInfo:
        """The workspace as it was made or found; known after it was closed, too.

        Raises:
            ClosedError: It was not opened.
        """
        if self._info is None:
            raise ClosedError(_NOT_OPEN)
        return self._info

    @property
    def connection(self) -> Connection:
        """The connection to its service.

        Raises:
            ClosedError: It is not open.
        """
        if self._connection is None or self._closed:
            raise ClosedError(_NOT_OPEN)
        return self._connection

    @property
    def commands(self) -> Commands:
        """The commands that run through it.

        Raises:
            ClosedError: It is not open.
        """
        if self._commands is None or self._closed:
            raise ClosedError(_NOT_OPEN)
        return self._commands

    async def open(self) -> None:
        """Makes the workspace and keeps its lease renewed, or finds it. Cancelled, it leaves nothing behind.

        Raises:
            ClosedError: It was opened before, or is closed meanwhile.
            IsolationError: It cannot be made or found.
            RuntimeError: There is no event loop of asyncio.
        """
        if self._loop is not None or self._closed:
            raise ClosedError("the workspace was opened before; create another one")
        self._loop = same_loop(None)
        opening = self._opening = asyncio.current_task()
        before = 0 if opening is None else opening.cancelling()
        try:
            connection = self._connection = await self._resources.enter_async_context(self._connect())
            if isinstance(self._wanted, str):
                await self._find(connection, self._wanted)
            else:
                await self._make(connection, self._wanted)
        except BaseException as error:
            self._closed = True
            # As for asyncio.timeout: one cancellation is that of `close`, and there may be others.
            alone = self._interrupted and opening is not None and opening.uncancel() <= before
            await finish(self._give_up())
            if alone and isinstance(error, asyncio.CancelledError):
                raise ClosedError("the workspace was closed while it was opened") from None
            raise
        finally:
            self._opening = None

    async def close(self) -> None:
        """Gives up what was opened, or is being opened. Goes on when cancelled.

        May be called twice: who calls while somebody closes it waits for that.

        Raises:
            RuntimeError: It was opened on another event loop.
        """
        if self._closed:
            await self._left.wait()
            return
        same_loop(self._loop)
        self._closed = True
        if self._opening is None:
            await finish(self._give_up())
            return
        self._interrupted = True
        self._opening.cancel()
        await self._left.wait()

    async def _give_up(self) -> None:
        try:
            await self._resources.aclose()
        finally:
            self._left.set()

    async def _find(self, connection: Connection, workspace_id: str) -> None:
        request = pb.GetWorkspaceRequest(workspace_id=workspace_id)
        response = await connection.call(connection.stub.GetWorkspace, request)
        self._info = convert.workspace_from_pb(response.workspace)
        self._commands = Commands(connection, workspace_id)
        self._resources.push_async_callback(self._commands.aclose)
        # First of all: who has let go of a process knows nothing more of it.
        self._resources.push_async_callback(self._commands.kill_all)

    async def _make(self, connection: Connection, config: WorkspaceConfig) -> None:
        request = convert.config_to_pb(config)
        request.request_id = uuid.uuid4().hex
        creation = asyncio.ensure_future(
            connection.call(
                connection.stub.CreateWorkspace,
                request,
                timeout=_CREATE_TIMEOUT,
                at_once=(ProviderUnavailableError,),  # an engine that is not there is told at once
            )
        )
        try:
            response = await asyncio.shield(creation)
        except asyncio.CancelledError:
            await finish(_take_back(connection, creation))
            raise
        info = self._info = convert.workspace_from_pb(response.workspace)
        self._commands = Commands(connection, info.id)
        self._resources.push_async_callback(_destroy, connection, info.id)
        self._resources.push_async_callback(self._commands.aclose)

        async def renew() -> None:
            renewal = pb.RenewWorkspaceRequest(workspace_id=info.id)
            await connection.call(connection.stub.RenewWorkspace, renewal, timeout=patience_of(config.lease))

        # In a context of its own: renewals go on for hours after the span that the workspace was made in.
        renewing = asyncio.create_task(
            keep_renewed(info.id, config.lease, renew), name=f"renew:{info.id}", context=contextvars.Context()
        )
        self._resources.push_async_callback(end, renewing)


async def _take_back(connection: Connection, creation: asyncio.Future[pb.CreateWorkspaceResponse]) -> None:
    """Sees to the end of a creation that was cancelled: the workspace may be there, with the answer on its way."""
    await asyncio.wait([creation], timeout=_TAKE_BACK_TIMEOUT)
    if creation.cancel():
        await asyncio.wait([creation])
    elif creation.exception() is None:
        await _destroy(connection, convert.workspace_from_pb(creation.result().workspace).id)


async def _destroy(connection: Connection, workspace_id: str) -> None:
    request = pb.DestroyWorkspaceRequest(workspace_id=workspace_id)
    with contextlib.suppress(WorkspaceNotFoundError):
        await connection.call(connection.stub.DestroyWorkspace, request)
