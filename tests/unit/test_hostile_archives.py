"""Tar streams of workspaces that mean harm: what is unpacked on this machine stays where it belongs, and bounded."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentic_isolation import BadArchiveError, InvalidArgumentError
from agentic_isolation._local_files import unpack
from agentic_isolation._tar import Tally, TarReader
from agentic_isolation._transfers import _name_of

Member = tuple[tarfile.TarInfo, bytes]


def member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = "", **fields: object
) -> Member:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.size = kind, target, len(content)
    for field, value in fields.items():
        setattr(entry, field, value)
    return entry, content


def link(name: str, target: str) -> Member:
    return member(name, kind=tarfile.SYMTYPE, target=target)


def directory(name: str, mode: int = 0o755) -> Member:
    return member(name, kind=tarfile.DIRTYPE, mode=mode)


def stream(*members: Member) -> bytes:
    out = io.BytesIO()
    for entry, content in members:
        out.write(entry.tobuf(tarfile.PAX_FORMAT) + content + bytes(-len(content) % 512))
    return out.getvalue() + bytes(1024)


def reading(data: bytes, size: int = 700) -> Callable[[], bytes]:
    pieces = iter([data[start : start + size] for start in range(0, len(data), size)])
    return lambda: next(pieces, b"")


def unpacked(into: Path, data: bytes) -> Tally:
    tally = Tally()
    unpack(str(into), TarReader(reading(data)), tally)
    return tally


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where things are unpacked; beside it nothing may change."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("untouched")
    yield tmp_path / "place"
    assert os.listdir(tmp_path / "outside") == ["file"]
    assert (tmp_path / "outside/file").read_text() == "untouched"
    assert set(os.listdir(tmp_path)) <= {"outside", "place"}
    assert not [name for _, _, names in os.walk(tmp_path) for name in names if name.endswith(".part")]


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "..", "a/..", "//x"])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE])
def test_names_that_lead_out(place: Path, name: str, kind: bytes) -> None:
    with pytest.raises(BadArchiveError):
        unpacked(place, stream(member(name, kind=kind, target="x")))
    assert os.listdir(place) == []


@pytest.mark.parametrize(
    "kind", [tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE]
)
def test_kinds_that_nobody_asked_for(place: Path, kind: bytes) -> None:
    with pytest.raises(BadArchiveError):
        unpacked(place, stream(member("x", kind=kind, target="/etc/passwd")))
    assert os.listdir(place) == []


TARGETS = ["/etc", "..", "../outside", "sub/../..", "a/../../outside", "up/..", "up/../outside", "./../x", "../place"]


@pytest.mark.parametrize("target", TARGETS)
def test_links_that_may_lead_out_are_left_out(place: Path, target: str) -> None:
    members = [directory("sub"), link("sub/up", ".."), link("up", "sub/up"), link("evil", target)]
    assert unpacked(place, stream(*members)).skipped == 1
    assert not (place / "evil").is_symlink()


def test_links_that_stay_within(place: Path) -> None:
    members = [
        directory("a/b"),
        link("a/b/top", "../.."),
        link("a/one", "../x"),
        link("dir", "./a/b"),
        link("lost", "z"),
    ]
    tally = unpacked(place, stream(*members))
    assert (tally.symlinks, tally.skipped) == (4, 0)
    for path in place.rglob("*"):
        assert path.resolve().is_relative_to(place)


def test_nothing_is_written_through_a_link(place: Path) -> None:
    """Neither one of the archive nor one that was there."""
    place.mkdir()
    (place / "door").symlink_to("../outside")
    (place / "file").symlink_to("../outside/file")
    for evil in (member("door/new", b"x"), directory("door/new"), directory("door"), link("door/new", "x")):
        with pytest.raises(OSError, match=r"door|directory|links"):
            unpacked(place, stream(evil))
    with pytest.raises(OSError, match=r"directory|links"):
        unpacked(place, stream(directory("sub"), link("in", "sub"), member("in/file", b"x")))
    unpacked(place, stream(member("file", b"replaced")))
    assert (place / "file").read_bytes() == b"replaced"
    assert not (place / "file").is_symlink()


def test_modes_carry_no_more_than_permission(place: Path) -> None:
    unpacked(place, stream(member("x", mode=0o7755), directory("d", mode=0o7000), directory("private", mode=0o700)))
    assert stat.S_IMODE((place / "x").stat().st_mode) & 0o7000 == 0
    assert stat.S_IMODE((place / "d").stat().st_mode) & 0o7000 == 0
    assert stat.S_IMODE((place / "private").stat().st_mode) == 0o700


def records(*pairs: str) -> bytes:
    """Returns pax records of lengths that are right."""
    found = b""
    for pair in pairs:
        body = len(pair.encode()) + 2
        length = next(size for size in range(body, body + 9) if size == body + len(str(size)))
        found += f"{length} {pair}\n".encode()
    return found


def with_records(data: bytes) -> bytes:
    return stream(member("pax", data, tarfile.XHDTYPE), member("file", b"content"))


@pytest.mark.parametrize(
    "data",
    [
        with_records(records("path=../x")),
        with_records(records("path=/x")),
        with_records(records("path=a\0b")),
        with_records(records("path=" + "d/" * 5000)),
        with_records(records("size=-1")),
        with_records(records("size=" + "9" * 5000)),
        with_records(records("size=9223372036854775807")),
        with_records(records("size=1e3")),
        with_records(records("mtime=nan")),
        with_records(records("mtime=inf")),
        with_records(records("mtime=1e300")),
        with_records(b"0 \n"),
        with_records(b"-5 a=b\n"),
        with_records(b"99 a=b\n"),
        with_records(b"6 ab=\xff"),
        with_records(b"7777777777777777 a=b\n"),
        with_records(b"no record"),
        stream(member("pax", bytes(2 << 20), tarfile.XHDTYPE)),
        stream(member("x", b"content"))[:700],
        stream(member("x", b"content"))[:-1024],
        b"",
        b"no tar stream" * 100,
        stream(member("dir", b"content", tarfile.DIRTYPE)),
    ],
    ids=lambda data: f"{data[600:620]!a}-{len(data)}",
)
def test_malformed_streams(place: Path, data: bytes) -> None:
    with pytest.raises(BadArchiveError):
        unpacked(place, data)
    assert [name for name in os.listdir(place) if name != "x"] == []


def test_records_by_the_hundred_thousand(place: Path) -> None:
    """Read in one go, as long as they are few enough for their limit; never by the square of their number."""
    pairs = records("a=") * 200_000
    tally = unpacked(place, with_records(pairs[: 5 * 200_000]))
    assert tally.files == 1


def test_memory_does_not_grow_with_a_member(place: Path) -> None:
    header = member("huge", mode=0o600)[0]
    header.size = 200 << 20
    left = [header.tobuf(tarfile.PAX_FORMAT), *[bytes(1 << 20)] * 200, bytes(1024)]
    tracemalloc.start()
    try:
        unpack(str(place), TarReader(lambda: left.pop(0) if left else b""), Tally())
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert (place / "huge").stat().st_size == 200 << 20


@pytest.mark.parametrize("told", ["../../.bashrc", "/etc/passwd", "..", "/", "", "a/../..", "x/\0"])
def test_name_of_a_download_is_only_a_name(told: str) -> None:
    assert _name_of("dir/file", told) == "file"
    with contextlib.suppress(InvalidArgumentError):
        name = _name_of(".", told)
        assert name not in ("", ".", "..")
        assert not set(name) & {"/", "\0"}
