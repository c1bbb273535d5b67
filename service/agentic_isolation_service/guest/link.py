"""One link to a guest: a byte stream, multiplexed into channels.

What comes is decoded and given to its channel in the event loop's own call, and what goes is written at once: the link
has no task. It never waits for a channel's reader: what a channel may hold is bounded by its credit, and a guest that
exceeds it has broken the protocol.
"""

from __future__ import annotations

import asyncio

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
from agentic_isolation_service.guest.handshake import Handshake, Peer
from agentic_isolation_service.guest.stream import ByteStream

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
_MAX_CHANNEL = (1 << 32) - 1
MAX_CHANNELS = 4096
"""Channels that may be open at a time; a guest closes a link with more."""
_MOST_UNANSWERED = 1 << 16
"""Bytes that a guest may leave untaken and still be sent answers to its pings."""
_LONGEST_REASON = 64
_LONGEST_EVENT = 4 << 10
"""Bytes of what a guest tells of itself."""


class LinkLostError(Exception):
    """The link has ended; `protocol_error` tells a guest that misbehaved from a stream that broke."""

    def __init__(self, message: str, *, protocol_error: bool = False) -> None:
        super().__init__(message)
        self.protocol_error = protocol_error


class ChannelLimitError(Exception):
    """The link has MAX_CHANNELS open channels."""


class GuestLink:
    """An open link. Made by `GuestLink.open`."""

    def __init__(self, stream: ByteStream, key: bytes) -> None:
        self.ending = ""
        """Why the guest has begun to end by itself; empty while it has not said so."""
        self._stream = stream
        self._handshake: Handshake | None = Handshake(key, stream.write)
        self._peer = Peer("", "", 0)
        self._decoder = FrameDecoder()
        self._channels: dict[int, Channel] = {}
        self._last_channel = 0
        self._lost: LinkLostError | None = None
        self._ended = asyncio.Event()
        self._heard = False
        self._silence = 0.0
        self._look: asyncio.TimerHandle | None = None

    @classmethod
    async def open(cls, stream: ByteStream, key: bytes) -> GuestLink:
        """Shakes hands with the guest at the other end of `stream`, which the link owns from now on.

        Raises:
            LinkLostError: The stream ended, took longer than HANDSHAKE_TIMEOUT, or the other end is not the guest that
                holds `key`. The stream is closed then, and when the call is cancelled.
        """
        link = cls(stream, key)
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                await link._shake_hands()
        except TimeoutError:
            await link.aclose()
            raise LinkLostError(f"the guest did not shake hands within {HANDSHAKE_TIMEOUT:g} s") from None
        except BaseException:
            await link.aclose()
            raise
        return link

    @property
    def workspace_id(self) -> str:
        """The workspace that the guest says it is."""
        return self._peer.workspace_id

    @property
    def boot_id(self) -> str:
        """What the guest has made up for itself when it started."""
        return self._peer.boot_id

    @property
    def version(self) -> int:
        """Of the protocol."""
        return self._peer.version

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
        """Sends a frame. What waits is bounded by the channels' credits, as only they send data."""
        if self._lost is None:
            self._stream.write(frame)

    def end(self, reason: LinkLostError) -> None:
        """Ends the link and its channels for a reason."""
        if self._lost is not None:
            return
        self._lost = reason
        self._ended.set()
        if self._look is not None:
            self._look.cancel()
        if self._handshake is not None and not self._handshake.peer.done():
            self._handshake.peer.set_exception(reason)
        for channel in self._channels.values():
            channel.lose(reason)
        self._channels.clear()
        self._stream.abort()

    async def aclose(self) -> None:
        """Ends the link and its channels; may be called twice."""
        self.end(LinkLostError("the link was closed"))
        await self._stream.aclose()

    def received(self, data: bytes) -> None:
        """Takes what has come over the stream."""
        self._heard = True
        try:
            for frame in self._decoder.feed(data):
                self._dispatch(frame)
                if self._lost is not None:
                    return
        except ProtocolError as error:
            self.end(self._broken(error))

    def ended(self, error: OSError | None) -> None:
        """Takes note of the stream's end."""
        if error is not None:
            self.end(LinkLostError(f"the link broke: {error}"))
        elif self._handshake is not None:
            self.end(LinkLostError("the guest closed the link during the handshake"))
        else:
            self.end(LinkLostError("the guest closed the link"))

    async def _shake_hands(self) -> None:
        if self._handshake is None:
            raise AssertionError("hands are shaken once")
        peer = self._handshake.peer
        self._stream.start(self)
        try:
            await asyncio.wait([peer])
        finally:
            peer.cancel()
        peer.result()
        self._look_again()

    def _broken(self, error: ProtocolError) -> LinkLostError:
        if self._handshake is None:
            return LinkLostError(f"the guest broke the protocol: {error}", protocol_error=True)
        if self._handshake.begun:
            return LinkLostError(str(error), protocol_error=True)
        # An engine that could not start what connects us says so in words, where frames are expected.
        return LinkLostError(f"no guest answered: {error}")

    def _look_again(self) -> None:
        self._look = asyncio.get_running_loop().call_later(SILENCE_TO_LOSE / _LOOKS, self._listen)

    def _listen(self) -> None:
        """Asks the guest whether it is there when nothing has come for a while, and ends the link when it is not."""
        asked = self._silence >= SILENCE_TO_PING
        self._silence = 0.0 if self._heard else self._silence + SILENCE_TO_LOSE / _LOOKS
        self._heard = False
        if self._silence >= SILENCE_TO_LOSE:
            self.end(LinkLostError(f"nothing came from the guest for {SILENCE_TO_LOSE:g} s"))
            return
        if self._silence >= SILENCE_TO_PING and not asked:
            self.post(encode(FrameType.PING, 0))
        self._look_again()

    def _dispatch(self, frame: Frame) -> None:
        if self._handshake is not None:
            self._greet(self._handshake, frame)
            return
        if frame.channel == 0:
            self._dispatch_link(frame)
            return
        channel = self._channels.get(frame.channel)
        if channel is None:
            raise ProtocolError(f"{frame.type.name} frame on channel {frame.channel}, which is not open")
        channel.accept(frame.type, frame.payload)
        if channel.ended:
            del self._channels[frame.channel]

    def _greet(self, handshake: Handshake, frame: Frame) -> None:
        handshake.accept(frame)
        if handshake.peer.done() and not handshake.peer.cancelled():
            self._peer = handshake.peer.result()
            self._handshake = None

    def _dispatch_link(self, frame: Frame) -> None:
        if frame.type is FrameType.PING and len(frame.payload) <= 64:
            if self._stream.backlog < _MOST_UNANSWERED:
                self.post(encode(FrameType.PONG, 0, frame.payload))
        elif frame.type is FrameType.EVENT and self.version >= 2 and len(frame.payload) <= _LONGEST_EVENT:
            self._note(decode_json(frame.payload))
        elif frame.type is not FrameType.PONG:
            raise ProtocolError(f"{frame.type.name} frame on channel 0")

    def _note(self, event: dict[str, object]) -> None:
        """Takes note of what a guest tells of itself. Later versions may tell more."""
        reason = event.get("reason")
        if event.get("event") == "ending" and isinstance(reason, str):
            self.ending = reason[:_LONGEST_REASON]
