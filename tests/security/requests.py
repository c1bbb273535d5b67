"""Requests as a hostile client may send them: strategies of hypothesis, made from the contract's descriptors.

What comes out are the bytes of messages, as the wire carries them, so that they need not be messages at all.
"""

from __future__ import annotations

import functools
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.internal.encoder import _VarintBytes  # type: ignore[attr-defined]
from hypothesis import strategies as st

from tests.support.messages import METHODS, is_map, is_repeated

WORKSPACE, PROCESS = "ws-" + "y" * 20, "p-" + "5" * 16
"""Stand for a workspace and a process that are there: who sends a request puts their ids in place of these."""

_T = TypeVar("_T")
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
"""Wire types."""
_WEIRD_NUMBERS = [0, 1, 2, 9, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
_FIRST_UNKNOWN, _LAST_FIELD = 1000, 2**29 - 1
_LONG = 70_000
_SHOWN = 300

# A shell line, a program and a path are what this machine would run and touch: only these.
_LINES = ["true", "echo x", "exit 3", "sleep 0.01", "echo $A; cat", "head -c 100000 /dev/zero", "kill -9 $$"]
_PATHS = ["a", "d/e", "d", "./a/", "d//e", "é", "/workspace/a", "-rf", "*", "a\nb", "\u202e", "..."]
_WEIRD_PATHS = [
    *("x" * 300, "x/" * 2500, "a\0b", "", ".", "~"),
    *("../nowhere-1", "/nowhere-1/x", "a/../../nowhere-1", "/../nowhere-1"),
]
_TEXTS = ["x", "A", "é", "a-b"]
_WEIRD_TEXTS = ["", "=", "\0", "\U0010ffff", " ", "x" * _LONG, "%s%n", "{}", "\r\n"]
_ID = ["ws-" + "a" * 20, "", "é", "x" * _LONG, WORKSPACE.upper(), WORKSPACE + "\0"]
_STRINGS = {
    "workspace_id": ([WORKSPACE], _ID),
    "process_id": ([PROCESS], ["p-" + "0" * 16, "r-" + "0" * 32, "", "\0", "x" * _LONG, "../x"]),
    "request_id": (["", "one", "two", "three"], ["\n", "é", "x" * 129, "x" * _LONG]),
    "provider": (["local"], ["docker", "", "podman", "LOCAL", "\0"]),
    "image": ([""], ["x", "no/such:image", "x" * _LONG]),
    "working_dir": (["", "/workspace", "/workspace/d"], ["relative", "/workspace/../x", "/nowhere-1", "\0"]),
    "shell": (_LINES, ["", " ", "\0", "x" * 600_000]),
    "args": (["echo", "true"], ["x", "", "no-such-program", "\0", "é", "-n", "x" * 200_000]),
    "user": ([""], ["0", "1000:1000", "root", "99999999999:1", "-1"]),
    "page_token": ([""], ["é", "YSBiIGM=", "x" * _LONG, "\0"]),
    "ignore_patterns": (["*.pyc", "**", "a/**/b"], ["!", "[", "\\", "x" * _LONG, "(" * 500, "[a-" * 100]),
}
"""What strings are, by the names of their fields: what makes sense, and what does not."""
_BYTES = ([b"x", b"", b"x" * _LONG], [bytes(32), b"\xff" * 64, bytes(1_100_000)])
_NUMBERS = {
    "seconds": [5, 60],
    "nanos": [0],
    "mode": [0o644, 0o755],
    "signal": [18, 17],
    "columns": [80],
    "rows": [24],
    "page_size": [0, 10],
    "depth": [0, 2],
    "output_limit_bytes": [1000],
    "length_bytes": [10],
    "size_bytes": [1],
    "offset": [0],
    "offset_bytes": [0],
}
_OFTEN = {
    *("workspace_id", "process_id", "provider", "path", "source_path", "destination_path", "mode", "signal", "start"),
    *("command", "shell", "args", "key", "value", "seconds", "columns", "rows"),
}
"""Fields without which most messages are refused."""


class Sending:
    """A call as it is sent.

    Args:
        method: Its RPC.
        messages: The messages of its request, of which there is one unless it is a stream.
    """

    def __init__(self, method: str, messages: tuple[bytes, ...]) -> None:
        self.method = method
        self.messages = messages

    def __repr__(self) -> str:
        shown = [f"{message[:_SHOWN]!r}{'…' * (len(message) > _SHOWN)}" for message in self.messages]
        return f"{self.method}({', '.join(shown)})"


def sendings() -> st.SearchStrategy[Sending]:
    """Returns calls of every RPC."""
    return st.sampled_from(sorted(METHODS)).flatmap(lambda name: _calls(METHODS[name]))


def _calls(method: MethodDescriptor) -> st.SearchStrategy[Sending]:
    message = _mangled(message_bytes(method.input_type))
    if method.client_streaming:
        # Mostly in the right order, as else nothing but the first message is ever looked at.
        orderly = st.tuples(_first(method.input_type), st.lists(message, max_size=4).map(tuple)).map(
            lambda parts: (parts[0], *parts[1])
        )
        messages = _weighted(orderly, st.lists(message, max_size=4).map(tuple), times=4)
    else:
        messages = message.map(lambda one: (one,))
    return messages.map(lambda sent: Sending(method.name, sent))


def _first(descriptor: Descriptor) -> st.SearchStrategy[bytes]:
    opening = descriptor.fields_by_number[1]
    return _of_length(opening, message_bytes(_message_of(opening)))


def _message_of(field: FieldDescriptor) -> Any:
    return field.message_type


@functools.cache
def message_bytes(descriptor: Descriptor) -> st.SearchStrategy[bytes]:
    """Returns the bytes of messages, each field of which may be there, repeatedly and with a value out of its range."""
    chosen = [
        st.one_of(
            *[st.just(b"")] * (1 if field.name in _OFTEN else 3), *[_field(field)] * (9 if field.name in _OFTEN else 1)
        )
        for field in descriptor.fields
    ]
    return st.tuples(*chosen).map(b"".join) if chosen else st.just(b"")


def _field(field: FieldDescriptor) -> st.SearchStrategy[bytes]:
    if is_map(field):
        pair = st.tuples(*map(_field, _message_of(field).fields)).map(b"".join)
        one = _of_length(field, pair)
    elif field.message_type is not None:
        one = _of_length(field, st.deferred(lambda: message_bytes(_message_of(field))))
    else:
        one = _scalar(field)
    return st.lists(one, max_size=3).map(b"".join) if is_repeated(field) else one


def _scalar(field: FieldDescriptor) -> st.SearchStrategy[bytes]:
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        if field.type == field.TYPE_BYTES:
            return _of_length(field, _mostly(*_BYTES))
        sane, weird = _STRINGS.get(
            field.name, (_PATHS, _WEIRD_PATHS) if "path" in field.name else (_TEXTS, _WEIRD_TEXTS)
        )
        return _of_length(field, _mostly([text.encode() for text in sane], [text.encode() for text in weird]))
    few = [0, 1] if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL else _NUMBERS.get(field.name, [1])
    tag = _VarintBytes(field.number << 3 | VARINT)
    return _mostly(few, _WEIRD_NUMBERS).map(lambda number: tag + _VarintBytes(number))


def _mostly(sane: list[_T], weird: list[_T]) -> st.SearchStrategy[_T]:
    """Returns values that make sense, and now and then one that does not."""
    return _weighted(st.sampled_from(sane), st.sampled_from(weird), times=20)


def _of_length(field: FieldDescriptor, content: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    tag = _VarintBytes(field.number << 3 | LENGTH)
    return content.map(lambda data: tag + _VarintBytes(len(data)) + data)


def _mangled(message: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Returns messages, some of which were damaged on their way or are of another protocol."""
    damaged = st.one_of(
        st.tuples(message, _unknown()).map(b"".join),
        st.tuples(message, message).map(b"".join),
        st.tuples(message, st.integers(0, 200)).map(lambda parts: parts[0][: parts[1]]),
        st.tuples(message, st.integers(0, 200), st.integers(0, 255)).map(_overwritten),
        st.binary(max_size=40),
        st.sampled_from([b"\x0b" * 200, b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x04\xff\xfe\xfd\xfc", bytes(5_000_000)]),
    )
    return _weighted(message, damaged, times=4)


def _weighted(often: st.SearchStrategy[_T], rarely: st.SearchStrategy[_T], *, times: int) -> st.SearchStrategy[_T]:
    """Returns values of two strategies, of the first one `times` as often."""
    turns = [often] * (times // 2) + [rarely] + [often] * (times - times // 2)  # hypothesis prefers the ends
    return st.integers(0, times).flatmap(turns.__getitem__)


def _unknown() -> st.SearchStrategy[bytes]:
    number = st.one_of(st.integers(_FIRST_UNKNOWN, _LAST_FIELD), st.just(0))
    contents = {VARINT: b"\x01", FIXED64: bytes(8), LENGTH: b"\x02hi", FIXED32: bytes(4), 3: b"", 4: b"", 7: b"\x01"}
    field = st.tuples(number, st.sampled_from(sorted(contents))).map(
        lambda tag: _VarintBytes(tag[0] << 3 | tag[1]) + contents[tag[1]]
    )
    return st.lists(field, min_size=1, max_size=4).map(b"".join)


def _overwritten(parts: tuple[bytes, int, int]) -> bytes:
    data, position, value = parts
    return data[:position] + bytes([value]) + data[position + 1 :] if position < len(data) else data
