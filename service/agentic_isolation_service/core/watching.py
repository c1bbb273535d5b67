"""What changes in a directory, through the guest."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Self

from agentic_isolation.changes import WatchEvent, WatchStarted
from agentic_isolation.runs import KeepAlive
from agentic_isolation_service.core.files import naming
from agentic_isolation_service.core.validation import check_path
from agentic_isolation_service.guest import payloads
from agentic_isolation_service.guest.channel import Channel
from agentic_isolation_service.guest.frames import FrameType, ProtocolError, decode_json
from agentic_isolation_service.guest.link import LinkLostError
from agentic_isolation_service.guest.session import GuestSession

_MAX_LINE = 64 << 10
"""Bytes of one change, more than the longest paths take."""


class Watch:
    """Changes in a directory, from WatchStarted on. To be entered; left, it stops the guest.

    Args:
        session: The tie to its guest.
        channel: Of the guest's `watch` operation.
    """

    def __init__(self, session: GuestSession, channel: Channel) -> None:
        self._session = session
        self._channel = channel
        self._events: deque[WatchEvent] = deque()
        self._partial = b""
        self._ended = False

    @classmethod
    async def open(cls, session: GuestSession, path: str, *, recursive: bool) -> Watch:
        """Begins to watch a directory; `recursive`: with all below it.

        Raises:
            IsolationError: As GuestSession.open.
        """
        check_path(path, "path")
        return cls(session, await session.open({"op": "watch", "path": path, "recursive": recursive}, since=3))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._channel.abandon()

    async def next(self, keepalive: float | None = None) -> WatchEvent | KeepAlive | None:
        """Waits for the next event; None after the directory itself has gone.

        Args:
            keepalive: Seconds after which KeepAlive is returned when nothing happened.

        Raises:
            WatchLimitError: The kernel allows no more watches.
            FileError, PathEscapesError: It is no directory, or may not be looked at.
            IsolationError: The workspace was lost meanwhile.
        """
        try:
            while not self._events and not self._ended:
                async with asyncio.timeout(keepalive):
                    await self._receive()
        except TimeoutError:
            return KeepAlive()
        except (LinkLostError, ProtocolError) as error:
            await self._session.raise_lost(error)
        return self._events.popleft() if self._events else None

    async def _receive(self) -> None:
        kind, data, value, _ = await self._channel.receive()
        match kind:
            case FrameType.EVENT:
                self._events.append(WatchStarted(payloads.file_info(value)))
            case FrameType.DATA:
                *lines, self._partial = (self._partial + data).split(b"\n")
                if len(self._partial) > _MAX_LINE:
                    raise ProtocolError("an endless change from the guest")
                self._events += (payloads.change(decode_json(line)) for line in lines)
            case FrameType.RESULT:
                self._ended = True
            case FrameType.ERROR:
                raise naming("path")(self._session.error(value))
