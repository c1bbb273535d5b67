"""Bulk on its way into or out of a workspace: as fast as the slower side goes, and complete or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from agentic_isolation.errors import IsolationError, UnavailableError
from agentic_isolation.models import FileInfo
from agentic_isolation_service.guest import payloads
from agentic_isolation_service.guest.channel import Channel
from agentic_isolation_service.guest.frames import FrameType, ProtocolError
from agentic_isolation_service.guest.link import LinkLostError
from agentic_isolation_service.guest.session import GuestSession

_T = TypeVar("_T")
Explain = Callable[[IsolationError], IsolationError]
"""Makes of a guest's error what the contract says of it."""


class _Transfer(Generic[_T]):
    """An operation that moves bulk over its channel. Left early, it stops the guest.

    Args:
        session: The tie to the guest.
        channel: Of the operation.
        parse: Makes of its RESULT what it has come to.
        explain: Makes of a guest's error what the contract says of it.
    """

    def __init__(
        self, session: GuestSession, channel: Channel, parse: Callable[[dict[str, object]], _T], explain: Explain
    ) -> None:
        self._session = session
        self._channel = channel
        self._parse = parse
        self._explain = explain

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._channel.abandon()


class Download(_Transfer[_T]):
    """Content on its way out: `begin`, then `chunks`, then `result`."""

    result: _T
    """What the guest says of what it has sent; after the last chunk."""

    async def begin(self) -> FileInfo:
        """Returns the file or directory as it was opened; to be asked first, once.

        Raises:
            FileError, PathEscapesError: It is not there, is of another kind, or may not be read.
        """
        try:
            kind, _, value, _ = await self._channel.receive()
            if kind is FrameType.ERROR:
                raise self._explain(self._session.error(value))
            if kind is not FrameType.EVENT:
                raise ProtocolError("content that does not begin with its entry")
            return payloads.file_info(value)
        except (LinkLostError, ProtocolError) as error:
            await self._session.raise_lost(error)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields the content in order.

        Raises:
            FileError: It could not be read to its end.
        """
        try:
            while True:
                kind, data, value, _ = await self._channel.receive()
                if kind is FrameType.DATA:
                    self._session.counts.traffic["download"] += len(data)
                    yield data
                elif kind is FrameType.ERROR:
                    raise self._explain(self._session.error(value))
                elif kind is FrameType.RESULT:
                    self.result = self._parse(value)
                    return
        except (LinkLostError, ProtocolError) as error:
            await self._session.raise_lost(error)


class Upload(_Transfer[_T]):
    """Content on its way in. Left without `finish`, it does not count as complete."""

    async def write(self, data: bytes) -> None:
        """Sends the next bytes as fast as the guest takes them.

        Raises:
            FileError, PathEscapesError: They cannot be written.
        """
        self._session.counts.traffic["upload"] += len(data)
        if not await self._channel.send(data):
            await self._outcome()
            raise UnavailableError("the guest ended the upload early")

    async def finish(self, expected: dict[str, object] | None = None) -> _T:
        """Says that the content is complete and returns what it has come to.

        Args:
            expected: What the guest is to compare it with.

        Raises:
            FileError, PathEscapesError: It cannot be written, or is not what was expected.
        """
        self._channel.finish(expected)
        return await self._outcome()

    async def _outcome(self) -> _T:
        try:
            while True:
                kind, _, value, _ = await self._channel.receive()
                if kind is FrameType.RESULT:
                    return self._parse(value)
                if kind is FrameType.ERROR:
                    raise self._explain(self._session.error(value))
        except (LinkLostError, ProtocolError) as error:
            await self._session.raise_lost(error)
