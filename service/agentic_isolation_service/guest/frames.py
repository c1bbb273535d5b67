"""Frames of the guest protocol: the codec, which trusts nothing that it decodes."""

from __future__ import annotations

import json
import struct
from collections.abc import Generator
from enum import IntEnum
from typing import NamedTuple

MAX_PAYLOAD = 1 << 20
"""Longest payload of any frame, in bytes."""
MAX_DATA = 1 << 16
"""Longest payload of a data frame, in bytes."""
WINDOW = 1 << 18
"""Credit that each direction of a channel starts with, in bytes."""

_HEADER = struct.Struct(">II")
_UINT32 = struct.Struct(">I")
_UINT64 = struct.Struct(">Q")
_TO_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class FrameType(IntEnum):
    """What a frame means."""

    HELLO = 0x01
    OPEN = 0x02
    EVENT = 0x03
    DATA = 0x04
    STDOUT = 0x05
    STDERR = 0x06
    END = 0x07
    CREDIT = 0x08
    GAP = 0x09
    RESULT = 0x0A
    ERROR = 0x0B
    CLOSE = 0x0C
    PING = 0x0D
    PONG = 0x0E


DATA_TYPES = frozenset({FrameType.DATA, FrameType.STDOUT, FrameType.STDERR})
_TYPES: dict[int, FrameType] = {int(kind): kind for kind in FrameType}


class ProtocolError(Exception):
    """The guest broke the protocol. The link is closed; its workspace is lost."""


class Frame(NamedTuple):
    """One frame."""

    type: FrameType
    channel: int
    payload: bytes


def encode(kind: FrameType, channel: int, payload: bytes = b"") -> bytes:
    """Returns a frame's bytes."""
    return _HEADER.pack(len(payload) << 8 | kind, channel) + payload


def encode_json(kind: FrameType, channel: int, value: dict[str, object]) -> bytes:
    """Returns the bytes of a frame with a JSON payload."""
    return encode(kind, channel, _TO_JSON(value).encode())


def encode_credit(channel: int, credit: int) -> bytes:
    """Returns the bytes of a CREDIT frame."""
    return encode(FrameType.CREDIT, channel, _UINT32.pack(credit))


def decode_json(payload: bytes) -> dict[str, object]:
    """Returns a payload's JSON object.

    Raises:
        ProtocolError: It is none.
    """
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("a payload is not JSON") from error
    if not isinstance(value, dict):
        raise ProtocolError("a payload is not a JSON object")
    return value


def decode_uint32(payload: bytes) -> int:
    """Returns the number in a CREDIT frame.

    Raises:
        ProtocolError: The payload has another length than 4 bytes.
    """
    if len(payload) != _UINT32.size:
        raise ProtocolError("a CREDIT frame does not hold 4 bytes")
    value: int = _UINT32.unpack(payload)[0]
    return value


def decode_uint64(payload: bytes) -> int:
    """Returns the number in a GAP frame.

    Raises:
        ProtocolError: The payload has another length than 8 bytes.
    """
    if len(payload) != _UINT64.size:
        raise ProtocolError("a GAP frame does not hold 8 bytes")
    value: int = _UINT64.unpack(payload)[0]
    return value


class FrameDecoder:
    """Cuts a byte stream into frames. Holds one incomplete frame at most."""

    def __init__(self) -> None:
        self._begun = bytearray()

    def feed(self, data: bytes) -> Generator[Frame, None, None]:
        """Takes the stream's next bytes and yields the frames that they complete; to be used up before the next call.

        Raises:
            ProtocolError: A frame is longer than allowed or of no known type. Nothing after it can be trusted.
        """
        position, end = 0, len(data)
        begun = self._begun
        if begun:
            # Only as much as completes this frame: the bulk of the bytes is never copied but into its own payloads.
            while len(begun) < (size := _size(begun)):
                piece = data[position : position + size - len(begun)]
                if not piece:
                    return
                begun += piece
                position += len(piece)
            kind, _, channel = _header(begun, 0)
            self._begun = bytearray()
            yield Frame(kind, channel, bytes(memoryview(begun)[_HEADER.size :]))
        while end - position >= _HEADER.size:
            kind, length, channel = _header(data, position)
            body = position + _HEADER.size
            if end - body < length:
                break
            position = body + length
            yield Frame(kind, channel, data[body:position])
        self._begun += data[position:]


def _size(begun: bytearray) -> int:
    """Returns how long a frame is, as far as its bytes tell: at first its header alone."""
    return _HEADER.size if len(begun) < _HEADER.size else _HEADER.size + _header(begun, 0)[1]


def _header(data: bytes | bytearray, position: int) -> tuple[FrameType, int, int]:
    """Returns the type, the payload's length and the channel of the frame whose header lies there."""
    word, channel = _HEADER.unpack_from(data, position)
    kind = _TYPES.get(word & 0xFF)
    length = word >> 8
    if kind is None:
        raise ProtocolError(f"frame of unknown type 0x{word & 0xFF:02x}")
    if length > (MAX_DATA if kind in DATA_TYPES else MAX_PAYLOAD):
        raise ProtocolError(f"{kind.name} frame of {length} bytes")
    return kind, length, channel
