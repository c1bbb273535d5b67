"""Just enough of HTTP/2 (RFC 9113) to do what no client of gRPC does."""

from __future__ import annotations

import asyncio

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY = 0, 1, 4, 6, 7
"""Kinds of frames."""
ACKNOWLEDGED = END_STREAM = 1
END_HEADERS = 4
FRAME = 16_384
"""Bytes of a frame's content at most, where nothing else was agreed."""
WINDOW_OF_NOTHING = (4).to_bytes(2) + bytes(4)
"""The setting that streams may send nothing."""


def frame(kind: int, content: bytes = b"", flags: int = 0, *, stream: int = 0) -> bytes:
    """Returns a frame; without a stream it is about the whole connection."""
    return len(content).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + content


def call_headers(path: str) -> bytes:
    """Returns the headers of a call of gRPC, as literals that nobody remembers (RFC 7541, section 6.2.2)."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return b"".join(literal(name, value) for name, value in headers.items())


def literal(name: str, value: str) -> bytes:
    """Returns a header as a literal that nobody remembers."""
    return b"\0" + _text(name) + _text(value)


async def kind_of_next(reader: asyncio.StreamReader) -> tuple[int, int]:
    """Reads a frame and returns its kind and flags."""
    head = await reader.readexactly(9)
    await reader.readexactly(int.from_bytes(head[:3]))
    return head[3], head[4]


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()
