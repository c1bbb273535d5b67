"""The codec of the guest protocol: examples, and arbitrary bytes in arbitrary cuts."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentic_isolation_service.guest.frames import (
    DATA_TYPES,
    MAX_DATA,
    MAX_PAYLOAD,
    Frame,
    FrameDecoder,
    FrameType,
    ProtocolError,
    decode_json,
    decode_uint32,
    decode_uint64,
    encode,
    encode_credit,
    encode_json,
)

channels = st.integers(0, 2**32 - 1)
frames = st.builds(Frame, st.sampled_from(FrameType), channels, st.binary(max_size=300))


def decode(*pieces: bytes) -> list[Frame]:
    decoder = FrameDecoder()
    return [frame for piece in pieces for frame in decoder.feed(piece)]


def cut(data: bytes, places: list[int]) -> Iterator[bytes]:
    """Yields the data in pieces that end at the places."""
    start = 0
    for place in sorted(place % (len(data) + 1) for place in places):
        yield data[start:place]
        start = place
    yield data[start:]


def test_frame_on_the_wire_is_as_documented() -> None:
    assert encode(FrameType.STDOUT, 0x01020304, b"hi") == b"\x00\x00\x02\x05\x01\x02\x03\x04hi"


def test_numbers_of_the_types_are_as_documented() -> None:
    documented = "HELLO OPEN EVENT DATA STDOUT STDERR END CREDIT GAP RESULT ERROR CLOSE PING PONG".split()
    assert [kind.name for kind in FrameType] == documented
    assert [int(kind) for kind in FrameType] == list(range(1, 15))


def test_json_on_the_wire_is_utf8_and_compact() -> None:
    assert encode_json(FrameType.OPEN, 1, {"op": "stat", "path": "ä"})[8:] == '{"op":"stat","path":"ä"}'.encode()


def test_empty_payload() -> None:
    assert decode(encode(FrameType.END, 7)) == [Frame(FrameType.END, 7, b"")]


def test_frame_in_single_bytes() -> None:
    data = encode(FrameType.STDERR, 3, b"abc")
    assert decode(*(bytes([byte]) for byte in data)) == [Frame(FrameType.STDERR, 3, b"abc")]


def test_several_frames_at_once_and_a_rest() -> None:
    data = encode(FrameType.PING, 0, b"1") + encode(FrameType.PONG, 0) + encode(FrameType.END, 1)[:5]
    assert decode(data) == [Frame(FrameType.PING, 0, b"1"), Frame(FrameType.PONG, 0, b"")]


def test_longest_frames() -> None:
    for kind, length in ((FrameType.RESULT, MAX_PAYLOAD), (FrameType.STDOUT, MAX_DATA)):
        assert decode(encode(kind, 1, bytes(length))) == [Frame(kind, 1, bytes(length))]


@pytest.mark.parametrize("kind", FrameType)
def test_too_long_a_frame_is_refused_by_its_header_alone(kind: FrameType) -> None:
    longest = MAX_DATA if kind in DATA_TYPES else MAX_PAYLOAD
    header = encode(kind, 1, bytes(longest + 1))[:8]
    with pytest.raises(ProtocolError, match=rf"{kind.name} frame of {longest + 1} bytes"):
        decode(header)


@pytest.mark.parametrize("number", [0, 0x0F, 0x7F, 0xFF])
def test_unknown_type_is_refused(number: int) -> None:
    with pytest.raises(ProtocolError, match=f"0x{number:02x}"):
        decode(b"\0\0\0" + bytes([number]) + b"\0\0\0\1")


def test_frames_before_a_broken_one_are_given_out() -> None:
    decoder = FrameDecoder()
    stream = decoder.feed(encode(FrameType.END, 1) + b"\0\0\0\0\0\0\0\1")
    assert next(stream) == Frame(FrameType.END, 1, b"")
    with pytest.raises(ProtocolError):
        next(stream)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"nonsense",
        b"[]",
        b"1",
        b"null",
        b'"text"',
        b"\xff\xfe\x00",
        b"{'a': 1}",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"a": ' + b"9" * 10_000 + b"}",
    ],
    ids=lambda payload: repr(payload[:12]),
)
def test_payload_that_is_no_json_object_is_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_json(payload)


@pytest.mark.parametrize("length", [0, 3, 5, 8])
def test_credit_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ProtocolError, match="4 bytes"):
        decode_uint32(bytes(length))


@pytest.mark.parametrize("length", [0, 4, 7, 9])
def test_gap_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ProtocolError, match="8 bytes"):
        decode_uint64(bytes(length))


def test_numbers_are_unsigned_and_big_endian() -> None:
    assert decode_uint32(encode_credit(1, 0xFEDCBA98)[8:]) == 0xFEDCBA98
    assert decode_uint64(b"\xff" + bytes(7)) == 0xFF << 56


@given(st.lists(frames, max_size=20), st.lists(st.integers(0), max_size=20))
def test_frames_survive_any_cuts(sent: list[Frame], places: list[int]) -> None:
    data = b"".join(encode(*frame) for frame in sent)
    assert decode(*cut(data, places)) == sent


@settings(max_examples=500)
@given(st.binary(max_size=2000), st.lists(st.integers(0), max_size=10))
def test_arbitrary_bytes_raise_nothing_but_protocol_errors(data: bytes, places: list[int]) -> None:
    decode_or_refuse(cut(data, places))


@settings(max_examples=300)
@given(
    st.lists(frames, min_size=1, max_size=5), st.integers(0), st.integers(0, 255), st.lists(st.integers(0), max_size=5)
)
def test_frames_with_one_byte_changed_raise_nothing_but_protocol_errors(
    sent: list[Frame], place: int, byte: int, places: list[int]
) -> None:
    data = bytearray(b"".join(encode(*frame) for frame in sent))
    data[place % len(data)] = byte
    decode_or_refuse(cut(bytes(data), places))


def decode_or_refuse(pieces: Iterator[bytes]) -> None:
    with contextlib.suppress(ProtocolError):
        for frame in decode(*pieces):
            assert len(frame.payload) <= (MAX_DATA if frame.type in DATA_TYPES else MAX_PAYLOAD)
            assert 0 <= frame.channel < 2**32


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_arbitrary_payloads_are_objects_or_refused(payload: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert isinstance(decode_json(payload), dict)


@given(st.dictionaries(st.text(), st.integers(-(2**63), 2**64) | st.text() | st.booleans(), max_size=5))
def test_objects_survive(value: dict[str, object]) -> None:
    (frame,) = decode(encode_json(FrameType.EVENT, 5, value))
    assert decode_json(frame.payload) == value
