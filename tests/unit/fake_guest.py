"""A guest that does what a script says, at the other end of a byte stream in memory."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self

from agentic_isolation_service.guest.frames import (
    Frame,
    FrameDecoder,
    FrameType,
    decode_json,
    encode,
    encode_credit,
    encode_json,
)
from agentic_isolation_service.guest.link import GuestLink
from agentic_isolation_service.guest.session import GuestSession
from agentic_isolation_service.guest.stream import Receiver

WORKSPACE_ID = "ws-fake"
KEY = bytes(range(32))
NONCE = "0123456789abcdef" * 2
PATIENCE = 20.0
"""Seconds after which what should long have happened has failed."""
ROOM = 1 << 18
"""Bytes that a stream takes before its sender waits for the reader, as a socket's buffers do."""

STARTED = {"event": "started", "process_id": "p-1", "pid": 7, "started_unix_ns": 10**18}
NO_OUTPUT = {"total": 0, "omitted": 0}
EXITED = {
    "process_id": "p-1",
    "exit_code": 0,
    "cause": "exited",
    "started_unix_ns": 10**18,
    "duration_us": 1500,
    "cpu_us": 500,
    "peak_memory_bytes": 1 << 20,
    "survivors": 0,
    "stdout": NO_OUTPUT,
    "stderr": NO_OUTPUT,
}
"""A proper RESULT of `run`."""
FILE = {"name": "f", "path": "/workspace/f", "type": "file", "size": 3, "mode": 0o644, "mtime_unix_ns": 10**18}
"""A proper file entry."""
INFO = {
    "uid": 1000,
    "gid": 1000,
    "groups": [1000],
    "capabilities": "0",
    "no_new_privs": True,
    "seccomp": 2,
    "root_read_only": True,
    "kernel": "6.1.0",
}
"""A proper RESULT of `info`."""


def started(operation: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a proper EVENT of an operation that is a `run` or an `attach`."""
    return STARTED | {"process_id": operation["process_id"]}


class _Pipe:
    """Bytes on their way in one direction."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._changed = asyncio.Event()
        self.closed = False

    async def put(self, data: bytes) -> None:
        while len(self._bytes) >= ROOM and not self.closed:
            await self._changed.wait()
        if self.closed:
            raise BrokenPipeError("the other end is closed")
        self._bytes += data
        self._tell()

    async def get(self, size: int) -> bytes:
        while not self._bytes and not self.closed:
            await self._changed.wait()
        data = bytes(self._bytes[:size])
        del self._bytes[:size]
        self._tell()
        return data

    def put_at_once(self, data: bytes) -> None:
        self._bytes += data
        self._tell()

    def __len__(self) -> int:
        return len(self._bytes)

    def close(self) -> None:
        self.closed = True
        self._tell()

    def _tell(self) -> None:
        """Wakes all who wait now."""
        self._changed.set()
        self._changed = asyncio.Event()


class ServiceStream:
    """The service's end of a byte stream in memory, as providers open them."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._passing: asyncio.Task[None] | None = None

    @property
    def closed(self) -> bool:
        return self._incoming.closed and self._outgoing.closed

    @property
    def backlog(self) -> int:
        return len(self._outgoing)

    def start(self, receiver: Receiver) -> None:
        self._passing = asyncio.create_task(self._pass_on(receiver))

    def write(self, data: bytes) -> None:
        if not self._outgoing.closed:
            self._outgoing.put_at_once(data)

    def abort(self) -> None:
        self._incoming.close()
        self._outgoing.close()

    async def aclose(self) -> None:
        self.abort()
        if self._passing is not None:
            await asyncio.wait([self._passing])

    async def _pass_on(self, receiver: Receiver) -> None:
        while data := await self._incoming.get(1 << 18):
            receiver.received(data)
        receiver.ended(None)


def stream_in_memory() -> tuple[ServiceStream, MemoryStream]:
    """Returns both ends of a byte stream: the service's, and the fake guest's."""
    there, back = _Pipe(), _Pipe()
    return ServiceStream(back, there), MemoryStream(there, back)


class MemoryStream:
    """A fake guest's end of a byte stream."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._incoming = incoming
        self._outgoing = outgoing

    @property
    def closed(self) -> bool:
        return self._incoming.closed and self._outgoing.closed

    async def receive(self, size: int) -> bytes:
        return await self._incoming.get(size)

    async def send(self, data: bytes) -> None:
        await self._outgoing.put(data)

    async def aclose(self) -> None:
        self._incoming.close()
        self._outgoing.close()


class GuestEnd:
    """A script's end of one link."""

    def __init__(self, stream: MemoryStream, number: int) -> None:
        self.stream = stream
        self.number = number
        """How many links were opened before this one."""
        self.answers_pings = True
        """Whether `receive` answers PING by itself and passes it over, as a guest does on a slow machine too."""
        self._decoder = FrameDecoder()
        self._frames: list[Frame] = []

    async def receive(self) -> Frame:
        """Returns the service's next frame."""
        while True:
            while not self._frames:
                data = await self.stream.receive(1 << 18)
                if not data:
                    raise ConnectionError("the service has closed the link")
                self._frames += self._decoder.feed(data)
            frame = self._frames.pop(0)
            if frame.type is not FrameType.PING or not self.answers_pings:
                return frame
            await self.send(FrameType.PONG, 0, frame.payload)

    async def expect(self, kind: FrameType) -> Frame:
        """Returns the service's next frame, which must be of that type."""
        frame = await self.receive()
        assert frame.type is kind, f"{frame.type.name} instead of {kind.name}"
        return frame

    async def operation(self) -> tuple[int, dict[str, Any]]:
        """Returns the next operation and its channel; what else comes meanwhile is passed over."""
        while (frame := await self.receive()).type is not FrameType.OPEN:
            pass
        return frame.channel, decode_json(frame.payload)

    async def send(self, kind: FrameType, channel: int, payload: bytes = b"") -> None:
        await self.send_bytes(encode(kind, channel, payload))

    async def send_json(self, kind: FrameType, channel: int, value: dict[str, Any]) -> None:
        await self.send_bytes(encode_json(kind, channel, value))

    async def grant(self, channel: int, credit: int) -> None:
        await self.send_bytes(encode_credit(channel, credit))

    async def send_bytes(self, data: bytes) -> None:
        await self.stream.send(data)

    async def hang_up(self) -> None:
        await self.stream.aclose()

    async def shake_hands(self, workspace_id: str = WORKSPACE_ID, key: bytes = KEY) -> None:
        """Shakes hands as the protocol says."""
        await self.greet({"versions": [1, 4], "guest": "fake", "nonce": NONCE})
        answer = decode_json((await self.expect(FrameType.HELLO)).payload)
        assert answer["version"] == 4
        assert answer["proof"] == proof(key, "service", answer["nonce"])
        await self.greet({"workspace_id": workspace_id, "boot_id": "b", "proof": proof(key, "guest", answer["nonce"])})

    async def greet(self, value: dict[str, Any]) -> None:
        await self.send_json(FrameType.HELLO, 0, value)


def proof(key: bytes, side: str, service_nonce: object) -> str:
    return hmac.new(key, f"{side}:{NONCE}:{service_nonce}".encode(), hashlib.sha256).hexdigest()


Script = Callable[[GuestEnd], Awaitable[None]]


class FakeGuest:
    """Runs its script for every link that is opened to it. When the script has ended, it only listens.

    Args:
        script: What to do on a link after the handshake.
        handshake: Whether to shake hands first; else the script does, or does not.
        workspace_id: The workspace that it says it is.
        key: The secret of the handshake.
    """

    def __init__(
        self, script: Script, *, handshake: bool = True, workspace_id: str = WORKSPACE_ID, key: bytes = KEY
    ) -> None:
        self._script = script
        self._handshake = handshake
        self._workspace_id = workspace_id
        self._key = key
        self.streams: list[ServiceStream] = []
        """The service's end of each link that was opened."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception) and not isinstance(end, ConnectionError):
                raise end

    async def connect(self) -> ServiceStream:
        service_end, guest_end = stream_in_memory()
        end = GuestEnd(guest_end, number=len(self.streams))
        self.streams.append(service_end)
        self._tasks.add(asyncio.create_task(self._play(end)))
        return service_end

    async def _play(self, end: GuestEnd) -> None:
        try:
            if self._handshake:
                await end.shake_hands(self._workspace_id, self._key)
            await self._script(end)
            while await end.stream.receive(1 << 18):
                pass
        finally:
            await end.hang_up()


@contextlib.asynccontextmanager
async def link_to(script: Script, *, handshake: bool = True) -> AsyncIterator[GuestLink]:
    """Opens a link to a guest with that script; all of it must be over in time."""
    async with asyncio.timeout(PATIENCE), FakeGuest(script, handshake=handshake) as guest:
        link = await GuestLink.open(await guest.connect(), KEY)
        try:
            yield link
        finally:
            await link.aclose()


@contextlib.asynccontextmanager
async def session_with(script: Script, *, handshake: bool = True) -> AsyncIterator[GuestSession]:
    """Makes a session with a guest of that script; all of it must be over in time."""
    async with asyncio.timeout(PATIENCE), FakeGuest(script, handshake=handshake) as guest:
        session = GuestSession(WORKSPACE_ID, KEY, guest.connect)
        try:
            yield session
        finally:
            await session.aclose()
            assert all(stream.closed for stream in guest.streams), "a link was left open"


async def listen(_end: GuestEnd) -> None:
    """The script of a guest that takes everything and never answers."""


async def let_tasks_run() -> None:
    """Gives every task that can go on many turns to do so: afterwards all wait for something."""
    for _ in range(200):
        await asyncio.sleep(0)
