"""What a command prints: whole, apart, in order, as it comes, and as bytes."""

from __future__ import annotations

import hashlib

import pytest

from agentic_isolation import Exited, Gap, InvalidArgumentError, Output, OutputSource, Started
from tests.support.jobs import python
from tests.support.ways import Workspace

# Prints a line wherever it is told to, each after the test has seen the one before and made the next file.
CONVERSATION = """
import os, time
for number in range(6):
    while not os.path.exists(f"go-{number}"):
        time.sleep(0.002)
    os.write(1 + number % 2, b"line %d\\n" % number)
"""

# The same for the two halves of a character.
HALVES = """
import os, time
os.write(1, b"caf\\xc3")
while not os.path.exists("go"):
    time.sleep(0.002)
os.write(1, b"\\xa9\\nend")
"""


async def test_stdout_and_stderr_are_apart(ws: Workspace) -> None:
    result = await ws.execute("echo out; echo err >&2; echo out again; echo err again >&2")
    assert (result.stdout, result.stderr) == ("out\nout again\n", "err\nerr again\n")
    assert not result.truncated


async def test_each_source_is_in_order(ws: Workspace) -> None:
    code = "import sys\nfor n in range(20000): print(n, flush=n % 100 == 0); print(-n, file=sys.stderr)"
    result = await ws.execute(python(code))
    assert result.stdout.splitlines() == [str(number) for number in range(20000)]
    assert result.stderr.splitlines() == [str(-number) for number in range(20000)]


async def test_events_come_as_printed_and_both_sources_in_the_order_of_arrival(ws: Workspace) -> None:
    await ws.write_file("go-0", "")
    seen: list[tuple[OutputSource, str]] = []
    async for event in ws.stream(python(CONVERSATION)).events():
        if isinstance(event, Output):
            seen.append((event.source, event.data.decode()))
            await ws.write_file(f"go-{len(seen)}", "")
    sources = [OutputSource.STDOUT, OutputSource.STDERR] * 3
    assert seen == [(source, f"line {number}\n") for number, source in enumerate(sources)]


async def test_lines_come_while_the_command_runs(ws: Workspace) -> None:
    """It waits for the reader after each line: it could not end if its lines came late."""
    for number in (1, 3, 5):
        await ws.write_file(f"go-{number}", "")
    await ws.write_file("go-0", "")
    lines: list[str] = []
    async for line in ws.stream(python(CONVERSATION)):
        lines.append(line)
        await ws.write_file(f"go-{2 * len(lines)}", "")
    assert lines == ["line 0", "line 2", "line 4"]


async def test_events_are_framed_by_started_and_exited(ws: Workspace) -> None:
    events = [event async for event in ws.stream("echo hi").events()]
    first, *middle, last = events
    assert isinstance(first, Started)
    assert first.process_id
    assert isinstance(last, Exited)
    assert last.termination.exit_code == 0
    assert all(isinstance(event, Output) for event in middle)


async def test_offsets_count_both_sources_in_one_sequence(ws: Workspace) -> None:
    expected = 0
    async for event in ws.stream("for n in 1 2 3 4; do echo out $n; echo error $n >&2; done").events():
        assert not isinstance(event, Gap)
        if isinstance(event, Output):
            assert event.offset == expected
            expected += len(event.data)
    assert expected == 4 * len("out 1\n") + 4 * len("error 1\n")


async def test_invalid_utf8_is_replaced_in_text_and_kept_in_bytes(ws: Workspace) -> None:
    command = r"printf 'a\377\376b\n\303\n'"
    result = await ws.execute(command)
    assert result.stdout == "a��b\n�\n"
    assert result.output[0].head == b"a\xff\xfeb\n\xc3\n"
    assert [line async for line in ws.stream(command)] == ["a��b", "�"]
    written = [event.data async for event in ws.stream(command).events() if isinstance(event, Output)]
    assert b"".join(written) == b"a\xff\xfeb\n\xc3\n"


async def test_character_that_is_written_in_two_halves(ws: Workspace) -> None:
    pieces: list[bytes] = []
    async for event in ws.stream(python(HALVES)).events():
        if isinstance(event, Output):
            pieces.append(event.data)
            await ws.write_file("go", "")
    assert b"".join(pieces) == "café\nend".encode()
    # `go` is there by now; both halves come at once, or not, and a line is whole either way.
    assert [line async for line in ws.stream(python(HALVES))] == ["café", "end"]
    assert (await ws.execute(python(HALVES))).stdout == "café\nend"


async def test_characters_across_the_borders_of_large_chunks(ws: Workspace) -> None:
    text = "€" * 100_000
    code = "import sys; sys.stdout.buffer.write('€'.encode() * 100_000)"
    assert (await ws.execute(python(code))).stdout == text
    assert [line async for line in ws.stream(python(code))] == [text]


LINES = [
    ("printf 'no newline'", "no newline", ["no newline"]),
    ("printf 'one\\ntwo'", "one\ntwo", ["one", "two"]),
    ("printf '\\n\\nx\\n'", "\n\nx\n", ["", "", "x"]),
    ("printf 'dos\\r\\n'", "dos\r\n", ["dos\r"]),
    ("printf 'a\\0b\\n'", "a\0b\n", ["a\0b"]),
    ("printf ''", "", []),
    ("echo only to stderr >&2", "", []),
]


async def test_lines_and_ends(ws: Workspace) -> None:
    for command, stdout, lines in LINES:
        assert (await ws.execute(command)).stdout == stdout
        assert [line async for line in ws.stream(command)] == lines


async def test_lines_as_json(ws: Workspace) -> None:
    """Beside those that are something else; only stdout's."""
    printed = 'printf \'{"step": 1}\\r\\nnot json\\n\\n[NaN]\\n{"cut": "\\377"}\\n{"last": true}\'; echo "{}" >&2'
    async with ws.stream(printed, parse="jsonl") as stream:
        lines = [(line.raw, line.value, line.is_json) async for line in stream]
    assert lines == [
        ('{"step": 1}\r', {"step": 1}, True),
        ("not json", None, False),
        ("", None, False),
        ("[NaN]", None, False),
        ('{"cut": "\ufffd"}', {"cut": "\ufffd"}, True),
        ('{"last": true}', {"last": True}, True),
    ]
    assert stream.exit_code == 0
    with pytest.raises(InvalidArgumentError, match="jsonl") as raised:
        ws.stream(printed, parse="json")  # type: ignore[call-overload]
    assert raised.value.field == "parse"


async def test_no_output_at_all(ws: Workspace) -> None:
    result = await ws.execute("true")
    assert (result.stdout, result.stderr, result.truncated) == ("", "", False)
    events = [event async for event in ws.stream("true").events()]
    assert [type(event) for event in events] == [Started, Exited]


async def test_line_of_a_megabyte(ws: Workspace) -> None:
    code = "import sys; sys.stdout.write('0123456789' * 100_000 + '\\nshort\\n')"
    line = "0123456789" * 100_000
    assert (await ws.execute(python(code))).stdout == f"{line}\nshort\n"
    assert [line async for line in ws.stream(python(code))] == [line, "short"]


async def test_more_than_the_limit_keeps_head_and_tail(ws: Workspace) -> None:
    everything = "".join(f"{number:09d}\n" for number in range(10_000))
    code = "for n in range(10_000): print(f'{n:09d}')"
    for limit in (0, 1, 10, 100, 99_999):
        result = await ws.execute(python(code), output_limit=limit)
        output, errors = result.output
        head, tail = output.head.decode(), output.tail.decode()
        assert result.truncated
        assert output.truncated
        assert everything.startswith(head)
        assert everything.endswith(tail)
        assert len(head) + len(tail) == limit
        assert abs(len(head) - len(tail)) <= 1
        assert output.omitted_bytes == len(everything) - limit
        assert output.total_bytes == len(everything)
        assert result.stdout == f"{head}\n[... {output.omitted_bytes} bytes left out ...]\n{tail}"
        assert (errors.head, errors.tail, errors.truncated) == (b"", b"", False)


async def test_no_more_than_the_limit_is_kept_whole(ws: Workspace) -> None:
    for limit in (100_000, 100_001, 16 << 20):
        result = await ws.execute(["head", "-c", "100000", "/dev/zero"], output_limit=limit)
        assert not result.truncated
        assert result.output[0].head == bytes(100_000)
        assert result.output[0].tail == b""
        assert (result.output[0].omitted_bytes, result.output[0].total_bytes) == (0, 100_000)


async def test_each_source_has_the_limit_of_its_own(ws: Workspace) -> None:
    result = await ws.execute("printf 12345; printf 1234567890 >&2", output_limit=6)
    assert result.stdout == "12345"
    assert (result.output[1].head, result.output[1].tail, result.output[1].omitted_bytes) == (b"123", b"890", 4)
    assert result.truncated


async def test_largest_limit_on_both_sources(ws: Workspace) -> None:
    """Twice 16 MiB in one answer: what clients must be able to take."""
    code = "import os, sys\nfor f in (1, 2):\n for n in range(256): os.write(f, b'%d' % f * 65536)"
    result = await ws.execute(python(code), output_limit=16 << 20)
    assert [output.total_bytes for output in result.output] == [16 << 20, 16 << 20]
    assert hashlib.sha256(result.output[0].head).digest() == hashlib.sha256(b"1" * (16 << 20)).digest()
    assert hashlib.sha256(result.output[1].head).digest() == hashlib.sha256(b"2" * (16 << 20)).digest()
