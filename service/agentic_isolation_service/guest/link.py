"""One link to a guest: a byte stream, multiplexed into channels.

The link owns three tasks, which `aclose` ends and awaits: a reader, a writer and one that looks for silence. It never
waits for a channel's reader: what a channel may hold is bounded by its credit, and a guest that exceeds it has broken
the protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import re
import secrets
from collections import deque
from collections.abc import Iterator
from typing import Protocol

from agentic_isolation_service.guest.channel import Channel
from agentic_isolation_service.guest.frames import (
    MAX_PAYLOAD,
    Frame,
    FrameDecoder,
    FrameType,
    ProtocolError,
    decode_json,
    encode,
    encode_json,
)

LOWEST_VERSION, HIGHEST_VERSION = 1, 3
"""Versions of the protocol that the service speaks: guests outlive its upgrades."""
HANDSHAKE_TIMEOUT = 10.0
"""Seconds."""
SILENCE_TO_PING = 5.0
"""Seconds without a byte from the guest after which the service asks whether it is there. A guest answers at once,
whatever its commands do and however slowly it takes data."""
SILENCE_TO_LOSE = 10.0
"""Seconds without a byte from the guest after which the link is lost: the guest, its container or the engine between
is stopped, or the connection is half-dead. Whatever arrives meanwhile, on any channel, starts the count again."""
_LOOKS = 4
"""How often silence is looked for until a link is lost. An event loop that was held up counts as one look."""
_RECEIVE_SIZE = 1 << 18
_MAX_CHANNEL = (1 << 32) - 1
MAX_CHANNELS = 4096
"""Channels that may be open at a time; a guest closes a link with more."""
_LONGEST_REASON = 64
_NONCE = re.compile(r"[0-9a-f]{32}")


class ByteStream(Protocol):
    """A connection to a guest, as a provider opens it."""

    async def receive(self, size: int) -> bytes:
        """Returns 1 to `size` bytes, or none at the stream's end. Raises OSError where the stream broke."""

    async def send(self, data: bytes) -> None:
        """Sends all of `data`. Raises OSError where the stream broke."""

    async def aclose(self) -> None:
        """Closes the stream; may be called twice."""


class LinkLostError(Exception):
    """The link has ended; `protocol_error` tells a guest that misbehaved from a stream that broke."""

    def __init__(self, message: str, *, protocol_error: bool = False) -> None:
        super().__init__(message)
        self.protocol_error = protocol_error


class ChannelLimitError(Exception):
    """The link has MAX_CHANNELS open channels."""


class GuestLink:
    """An open link. Made by `GuestLink.open`."""

    def __init__(
        self, stream: ByteStream, workspace_id: str, boot_id: str, version: int, decoder: FrameDecoder
    ) -> None:
        self.workspace_id = workspace_id
        self.boot_id = boot_id
        self.version = version
        self.ending = ""
        """Why the guest has begun to end by itself; empty while it has not said so."""
        self._stream = stream
        self._decoder = decoder
        self._channels: dict[int, Channel] = {}
        self._last_channel = 0
        self._outbox: deque[bytes] = deque()
        self._outbox_filled = asyncio.Event()
        self._lost: LinkLostError | None = None
        self._ended = asyncio.Event()
        self._heard = False
        self._tasks = (
            asyncio.create_task(self._read(), name=f"guest-link-read:{workspace_id}"),
            asyncio.create_task(self._write(), name=f"guest-link-write:{workspace_id}"),
            asyncio.create_task(self._listen(), name=f"guest-link-listen:{workspace_id}"),
        )

    @classmethod
    async def open(cls, stream: ByteStream, key: bytes) -> GuestLink:
        """Shakes hands with the guest at the other end of `stream`, which the link owns from now on.

        Raises:
            LinkLostError: The stream ended, took longer than HANDSHAKE_TIMEOUT, or the other end is not the guest that
                holds `key`. The stream is closed then, and when the call is cancelled.
        """
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                decoder = FrameDecoder()
                identity = await _shake_hands(stream, decoder, key)
        except TimeoutError:
            await stream.aclose()
            raise LinkLostError(f"the guest did not shake hands within {HANDSHAKE_TIMEOUT:g} s") from None
        except (ProtocolError, OSError) as error:
            await stream.aclose()
            raise LinkLostError(str(error), protocol_error=isinstance(error, ProtocolError)) from error
        except BaseException:
            await stream.aclose()
            raise
        return cls(stream, *identity, decoder)

    @property
    def lost(self) -> LinkLostError | None:
        """Why the link ended; None while it is open."""
        return self._lost

    async def wait_lost(self) -> LinkLostError:
        """Waits until the link has ended and returns why."""
        await self._ended.wait()
        if self._lost is None:
            raise AssertionError("a link ends with a reason")
        return self._lost

    def open_channel(self, operation: dict[str, object]) -> Channel:
        """Opens a channel for one operation. Sends nothing by itself that could block.

        Raises:
            LinkLostError: The link has ended.
            ChannelLimitError: It has as many channels as it may.
            ValueError: The operation is too large for a frame.
        """
        if self._lost is not None:
            raise self._lost
        if len(self._channels) >= MAX_CHANNELS:
            raise ChannelLimitError
        while True:
            self._last_channel = self._last_channel % _MAX_CHANNEL + 1
            if self._last_channel not in self._channels:
                break
        frame = encode_json(FrameType.OPEN, self._last_channel, operation)
        if len(frame) > MAX_PAYLOAD:
            raise ValueError(f"the operation takes {len(frame)} bytes, more than {MAX_PAYLOAD}")
        channel = Channel(self._last_channel, self.post)
        self._channels[channel.id] = channel
        self.post(frame)
        return channel

    def post(self, frame: bytes) -> None:
        """Queues a frame for the writer. Bounded by the channels' credits, as only they send data."""
        if self._lost is None:
            self._outbox.append(frame)
            self._outbox_filled.set()

    def end(self, reason: LinkLostError) -> None:
        """Ends the link and its channels for a reason that its user has found."""
        self._end(reason)
        self._tasks[0].cancel()

    async def aclose(self) -> None:
        """Ends the link and its channels; may be called twice."""
        self._end(LinkLostError("the link was closed"))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stream.aclose()

    def _end(self, reason: LinkLostError) -> None:
        if self._lost is not None:
            return
        self._lost = reason
        self._ended.set()
        self._outbox.clear()
        for channel in self._channels.values():
            channel.lose(reason)
        self._channels.clear()

    async def _read(self) -> None:
        reason = LinkLostError("the guest closed the link")
        try:
            data = b""  # the decoder may hold frames that came together with the handshake
            while True:
                for frame in self._decoder.feed(data):
                    self._dispatch(frame)
                if not (data := await self._stream.receive(_RECEIVE_SIZE)):
                    break
                self._heard = True
        except OSError as error:
            reason = LinkLostError(f"the link broke: {error}")
        except ProtocolError as error:
            reason = LinkLostError(f"the guest broke the protocol: {error}", protocol_error=True)
        finally:
            self._end(reason)
            for task in self._tasks[1:]:
                task.cancel()
            await self._stream.aclose()

    async def _write(self) -> None:
        outbox = self._outbox
        try:
            while True:
                await self._outbox_filled.wait()
                self._outbox_filled.clear()
                while outbox:
                    batch = b"".join(outbox) if len(outbox) > 1 else outbox[0]
                    outbox.clear()
                    await self._stream.send(batch)
        except OSError as error:
            # The reader sees the end as well, but only when the other side has closed its half.
            self._end(LinkLostError(f"the link broke: {error}"))
            self._tasks[0].cancel()
            await self._stream.aclose()

    async def _listen(self) -> None:
        """Ends the link when nothing has come for a while, though it was asked for."""
        silence = 0.0
        interval = SILENCE_TO_LOSE / _LOOKS
        while silence < SILENCE_TO_LOSE:
            asked = silence >= SILENCE_TO_PING
            await asyncio.sleep(interval)
            silence = 0.0 if self._heard else silence + interval
            self._heard = False
            if silence >= SILENCE_TO_PING and not asked:
                self.post(encode(FrameType.PING, 0))
        self.end(LinkLostError(f"nothing came from the guest for {SILENCE_TO_LOSE:g} s"))

    def _dispatch(self, frame: Frame) -> None:
        if frame.channel == 0:
            self._dispatch_link(frame)
            return
        channel = self._channels.get(frame.channel)
        if channel is None:
            raise ProtocolError(f"{frame.type.name} frame on channel {frame.channel}, which is not open")
        channel.accept(frame.type, frame.payload)
        if channel.ended:
            del self._channels[frame.channel]

    def _dispatch_link(self, frame: Frame) -> None:
        if frame.type is FrameType.PING and len(frame.payload) <= 64:
            if len(self._outbox) < 1024:
                self.post(encode(FrameType.PONG, 0, frame.payload))
        elif frame.type is FrameType.EVENT and self.version >= 2:
            self._note(decode_json(frame.payload))
        elif frame.type is not FrameType.PONG:
            raise ProtocolError(f"{frame.type.name} frame on channel 0")

    def _note(self, event: dict[str, object]) -> None:
        """Takes note of what a guest tells of itself. Later versions may tell more."""
        reason = event.get("reason")
        if event.get("event") == "ending" and isinstance(reason, str):
            self.ending = reason[:_LONGEST_REASON]


async def _shake_hands(stream: ByteStream, decoder: FrameDecoder, key: bytes) -> tuple[str, str, int]:
    """Proves both sides' knowledge of `key` to each other; returns workspace id, boot id and the protocol's version."""
    hello = await _receive_hello(stream, decoder)
    match hello:
        case {"versions": [int(lowest), int(highest)], "nonce": str(guest_nonce)} if _NONCE.fullmatch(guest_nonce):
            pass
        case _:
            raise ProtocolError("malformed HELLO")
    version = min(highest, HIGHEST_VERSION)
    if version < max(lowest, LOWEST_VERSION):
        raise ProtocolError(
            f"the guest speaks versions {lowest} to {highest}, this service {LOWEST_VERSION} to {HIGHEST_VERSION}"
        )
    nonce = secrets.token_hex(16)
    proof = _proof(key, "service", guest_nonce, nonce)
    await stream.send(encode_json(FrameType.HELLO, 0, {"version": version, "nonce": nonce, "proof": proof}))
    match await _receive_hello(stream, decoder):
        case {"workspace_id": str(workspace_id), "boot_id": str(boot_id), "proof": str(guest_proof)}:
            expected = _proof(key, "guest", guest_nonce, nonce)
            if not (guest_proof.isascii() and hmac.compare_digest(guest_proof, expected)):
                raise ProtocolError("the guest does not hold the workspace's key")
            return workspace_id, boot_id, version
        case _:
            raise ProtocolError("malformed HELLO")


async def _receive_hello(stream: ByteStream, decoder: FrameDecoder) -> dict[str, object]:
    while data := await stream.receive(_RECEIVE_SIZE):
        with contextlib.closing(decoder.feed(data)) as frames:
            for frame in _of_a_guest(frames):
                if frame.type is not FrameType.HELLO or frame.channel != 0:
                    raise ProtocolError("the handshake was not a HELLO frame")
                return decode_json(frame.payload)
    raise ConnectionError("the guest closed the link during the handshake")


def _of_a_guest(frames: Iterator[Frame]) -> Iterator[Frame]:
    """Passes frames on. An engine that could not start what connects us says so in words, where frames are expected."""
    try:
        yield from frames
    except ProtocolError as error:
        raise ConnectionError(f"no guest answered: {error}") from error


def _proof(key: bytes, side: str, guest_nonce: str, service_nonce: str) -> str:
    text = f"{side}:{guest_nonce}:{service_nonce}"
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
