"""Lines of output as JSON documents: what is one, what is none, and that no line is lost."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_isolation import (
    Exited,
    Gap,
    JsonLine,
    Output,
    OutputSource,
    ProcessEvent,
    Started,
    Termination,
    TerminationCause,
)
from agentic_isolation._lines import MAX_LINE
from agentic_isolation._resume import ResumedEvents
from agentic_isolation._retry import Patience
from agentic_isolation.jsonl import parse_line
from agentic_isolation.stream import JsonStream

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
DEEP = 100_000
DOCUMENTS = {
    '{"step": 1, "text": "grüße"}': {"step": 1, "text": "grüße"},
    "[1, 2.5, -0.0, true, null]": [1, 2.5, -0.0, True, None],
    "null": None,
    "false": False,
    '"text"': "text",
    "17": 17,
    '  {"indented": true}\t': {"indented": True},
    '{"from": "windows"}\r': {"from": "windows"},
    r'"\ud83d\ude00"': "\U0001f600",
    r'"\ud83d"': "�",
    r'{"\uDE00 and \ud83d\ude00": ["\udc80"]}': {"� and \U0001f600": ["�"]},
    r'"no escape: \\ud800"': r"no escape: \ud800",
    "9" * 4300: int("9" * 4300),
    "1e308": 1e308,
    "1e-999": 0.0,
}
OTHERS = [
    "",
    " ",
    "\r",
    "Traceback (most recent call last):",
    '{"cut": ',
    '{"a": 1} {"b": 2}',
    "{'a': 1}",
    "NaN",
    '{"loss": NaN}',
    "[Infinity]",
    "-Infinity",
    "1e999",
    "[-1e999]",
    "9" * 5000,
    "01",
    "\ufeff{}",
    '"a\tb"',
    "[" * DEEP + "]" * DEEP,
    '{"a":' * DEEP + "1" + "}" * DEEP,
]


@pytest.mark.parametrize("raw", DOCUMENTS, ids=lambda raw: raw[:20])
def test_documents(raw: str) -> None:
    assert parse_line(raw) == JsonLine(raw, DOCUMENTS[raw], is_json=True)
    assert str(parse_line(raw)) == raw


@pytest.mark.parametrize("raw", OTHERS, ids=lambda raw: repr(raw[:20]))
def test_others_are_kept_as_they_are(raw: str) -> None:
    assert parse_line(raw) == JsonLine(raw, None, is_json=False)


@given(st.text(alphabet='{}[]",:\\udDcC80eE1.-NaInfity ', max_size=40) | st.text(max_size=40))
def test_whatever_comes_has_a_value_that_can_be_sent_on(raw: str) -> None:
    line = parse_line(raw)
    assert line.raw == raw
    if line.is_json:
        json.dumps(line.value, allow_nan=False, ensure_ascii=False).encode()
    else:
        assert line.value is None


async def lines_of(*pieces: bytes | Gap) -> list[JsonLine]:
    """Returns what a stream gives for a command with such output."""

    async def events() -> AsyncGenerator[ProcessEvent, None]:
        yield Started("p-1", NOW)
        for piece in pieces:
            yield piece if isinstance(piece, Gap) else Output(OutputSource.STDOUT, 0, piece)
        yield Exited(Termination(TerminationCause.EXITED, exit_code=0, signal=None, started_at=NOW, duration_ms=1))

    stream = JsonStream(lambda lines: ResumedEvents(events, lambda process_id, offset: events(), Patience(0), None))
    return [line async for line in stream]


async def test_lines_that_are_too_long_are_pieces_and_not_json() -> None:
    """A piece of a document may look like one."""
    long = b"1" * (MAX_LINE + 10) + b"\n" + b'{"a": 1}\r\n' + b"2" * MAX_LINE + b"\n[3]"
    lines = await lines_of(*(long[start : start + (1 << 20)] for start in range(0, len(long), 1 << 20)))
    pieces = "".join(line.raw for line in lines if not line.is_json)
    assert pieces == "1" * (MAX_LINE + 10) + "2" * MAX_LINE
    assert [line.value for line in lines if line.is_json] == [{"a": 1}, [3]]


@pytest.mark.parametrize("character", ["é", "€", "\U0001f600"])
async def test_pieces_of_a_long_line_hold_whole_characters(character: str) -> None:
    text = "x" + character * (MAX_LINE // len(character.encode()) + 10)
    data = text.encode() + b"\n"
    lines = await lines_of(*(data[start : start + (1 << 16)] for start in range(0, len(data), 1 << 16)))
    assert len(lines) == 2
    assert "".join(line.raw for line in lines) == text


async def test_a_long_line_that_is_no_utf8_comes_in_pieces_too() -> None:
    lines = await lines_of(*[b"\x80" * (1 << 20)] * (2 * MAX_LINE >> 20))
    assert len(lines) >= 2
    assert sum(len(line.raw) for line in lines) == 2 * MAX_LINE


async def test_lines_of_which_output_is_lost_are_pieces_and_not_json() -> None:
    lines = await lines_of(b"[1]\n[2", Gap(5), b"3]\n[4]\n", Gap(5), b"5\n6\n7", Gap(5))
    assert [(line.raw, line.is_json) for line in lines] == [
        ("[1]", True),
        ("[2", False),
        ("3]", False),
        ("[4]", True),
        ("5", False),
        ("6", True),
        ("7", False),
    ]
