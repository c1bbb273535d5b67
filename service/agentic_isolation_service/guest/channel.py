"""One channel of a link: one operation, with credit in both directions."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from agentic_isolation_service.guest.frames import (
    DATA_TYPES,
    MAX_DATA,
    MAX_PAYLOAD,
    WINDOW,
    FrameType,
    ProtocolError,
    decode_json,
    decode_uint32,
    decode_uint64,
    encode,
    encode_credit,
    encode_json,
)

MAX_JOINED = 2 * MAX_DATA
"""Longest message of data, in bytes. Longer ones are cheaper still, but what is under way when a stream breaks would
come close to what a guest keeps for those who resume."""
_WORTH_AN_OBJECT = 4 << 10
"""Bytes. Shorter pieces are copied together as they come: a guest that sends a byte a frame must not fill memory."""
_GRANT_AT = WINDOW // 4
_MAX_UNCREDITED = 1024
_MAX_EVENTS = MAX_PAYLOAD
"""Bytes of all events of a channel. Operations have one each; what JSON is read into takes up to twenty times its size,
and time that is everybody's."""
_MAX_CREDIT = 4 * WINDOW
"""Bytes. More credit than the window is no guest's that grants as it consumes: it would only fill memory here."""


class Message(NamedTuple):
    """What a channel received: `data` of data frames, `value` of JSON frames, `number` of GAP."""

    type: FrameType
    data: bytes = b""
    value: dict[str, object] = {}  # noqa: RUF012  never written to
    number: int = 0


class _Batch:
    """Data frames of one type that came one after the other and wait to be received together."""

    __slots__ = ("_pieces", "size", "type")

    def __init__(self, kind: FrameType, data: bytes) -> None:
        self.type = kind
        self.size = len(data)
        self._pieces: list[bytes | bytearray] = [data]

    def add(self, piece: bytes) -> None:
        """Takes the next piece."""
        self.size += len(piece)
        if len(piece) >= _WORTH_AN_OBJECT:
            self._pieces.append(piece)
        elif isinstance(last := self._pieces[-1], bytearray):
            last += piece
        else:
            self._pieces.append(bytearray(piece))

    def joined(self) -> bytes:
        """Returns all of it."""
        return b"".join(self._pieces)


class Channel:
    """An open operation. One coroutine receives, another may send."""

    def __init__(self, channel_id: int, post: Callable[[bytes], None]) -> None:
        self.id = channel_id
        self.ended = False
        """Whether the guest has closed the channel, or the link is lost. What was received can still be read."""
        self._post = post
        self._inbox: deque[Message | _Batch] = deque()
        self._uncredited = 0
        self._events = 0
        self._changed = asyncio.Event()
        self._loss: Exception | None = None
        self._receive_credit = WINDOW
        self._consumed = 0
        self._held = 0
        """Bytes that were received last. They count as consumed when more is wanted: until then they are on the way."""
        self._send_credit = WINDOW
        self.taken = 0
        """Bytes that the guest says it has taken of what was sent, by granting credit for them."""
        self._sendable = asyncio.Event()
        self._sendable.set()
        self._abandoned = False

    async def receive(self) -> Message:
        """Waits for the channel's next message; RESULT or ERROR is the last one.

        Raises:
            LinkLostError: The link was lost before the channel ended.
        """
        if self._held:
            self._consume(self._held)
            self._held = 0
        while not self._inbox:
            if self._loss is not None:
                raise self._loss
            self._changed.clear()
            await self._changed.wait()
        message = self._inbox.popleft()
        if isinstance(message, Message):
            self._uncredited -= 1
            return message
        self._held = message.size
        return Message(message.type, data=message.joined())

    async def progress(self, taken: int) -> None:
        """Waits until more than `taken` bytes of what was sent have been taken, or there is something to receive."""
        while self.taken <= taken and not self._inbox and self._loss is None:
            self._changed.clear()
            await self._changed.wait()

    async def send(self, data: bytes) -> bool:
        """Sends data as credit allows. Returns whether all was sent: the guest may end the channel before."""
        view = memoryview(data)
        while view and not self.ended:
            if self._send_credit <= 0:
                self._sendable.clear()
                await self._sendable.wait()
                continue
            piece = bytes(view[:MAX_DATA])
            view = view[MAX_DATA:]
            self._send_credit -= len(piece)
            self._post(encode(FrameType.DATA, self.id, piece))
        return not view

    def finish(self, expected: dict[str, object] | None = None) -> None:
        """Says that no more data will be sent, and what the guest is to compare it with."""
        if not self.ended:
            payload = encode_json(FrameType.END, self.id, expected) if expected else encode(FrameType.END, self.id)
            self._post(payload)

    def abandon(self) -> None:
        """Tells the guest that nobody is interested any more. The channel lives on until the guest ends it."""
        if not self.ended and not self._abandoned:
            self._abandoned = True
            self._post(encode(FrameType.CLOSE, self.id))
            for message in self._inbox:
                if isinstance(message, _Batch):
                    self._held += message.size
            self._consume(self._held)
            self._inbox.clear()
            self._uncredited = 0

    def accept(self, kind: FrameType, payload: bytes) -> None:
        """Takes a frame from the link.

        Raises:
            ProtocolError: The frame is malformed, of a type that guests do not send, or exceeds the credit.
        """
        if kind in DATA_TYPES:
            if not payload or self._receive_credit <= 0:
                raise ProtocolError("a data frame without credit or content")
            self._receive_credit -= len(payload)
            if self._abandoned:
                self._consume(len(payload))
                return
            self._deliver_data(kind, payload)
            return
        if kind is FrameType.CREDIT:
            granted = decode_uint32(payload)
            self.taken += granted
            self._changed.set()
            self._send_credit = min(self._send_credit + granted, _MAX_CREDIT)
            if self._send_credit > 0:
                self._sendable.set()
            return
        self._deliver_uncredited(kind, payload)

    def lose(self, reason: Exception) -> None:
        """Ends the channel because the link is lost."""
        self.ended = True
        self._loss = reason
        self._changed.set()
        self._sendable.set()

    def _deliver_uncredited(self, kind: FrameType, payload: bytes) -> None:
        if kind in (FrameType.RESULT, FrameType.ERROR):
            message = Message(kind, value=decode_json(payload))
            self.ended = True
            self._sendable.set()
        elif kind is FrameType.EVENT:
            self._events += len(payload)
            if self._events > _MAX_EVENTS:
                raise ProtocolError("more events than an operation has")
            message = Message(kind, value=decode_json(payload))
        elif kind is FrameType.GAP:
            message = Message(kind, number=decode_uint64(payload))
        elif kind is FrameType.END and not payload:
            message = Message(kind)
        else:
            raise ProtocolError(f"{kind.name} frame from a guest")
        if self._abandoned:
            return
        self._uncredited += 1
        if self._uncredited > _MAX_UNCREDITED:
            raise ProtocolError("too many frames that nobody has read")
        self._deliver(message)

    def _deliver_data(self, kind: FrameType, payload: bytes) -> None:
        # Frames that wait are joined: a slow reader gets them batched, and small ones don't cost a message each.
        last = self._inbox[-1] if self._inbox else None
        if isinstance(last, _Batch) and last.type is kind and last.size + len(payload) <= MAX_JOINED:
            last.add(payload)
        else:
            self._deliver(_Batch(kind, payload))

    def _deliver(self, message: Message | _Batch) -> None:
        self._inbox.append(message)
        self._changed.set()

    def _consume(self, length: int) -> None:
        self._consumed += length
        if self._consumed >= _GRANT_AT and not self.ended:
            self._post(encode_credit(self.id, self._consumed))
            self._receive_credit += self._consumed
            self._consumed = 0
