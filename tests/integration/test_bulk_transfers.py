"""Large transfers: flat memory everywhere, many files in one go, and nothing half there when one is cut short."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentic_isolation import AgenticWorkspace, SecurityConfig, TransferProgress
from tests.support import proc
from tests.support.eventually import eventually
from tests.support.program import Program
from tests.support.service import ServedProcess

GIB = 1 << 30
GROWTH = 48 << 20
"""Bytes that a process's memory may grow by, whatever the size of what goes through it."""
MARK = b"not all zeros"


@pytest.fixture
async def ws(service: ServedProcess) -> AsyncIterator[AgenticWorkspace]:
    async with AgenticWorkspace.create(provider="local", target=service.target, lease=60) as ws:
        yield ws


def sparse(path: Path, size: int) -> Path:
    """Makes a file that is large and takes no room, with something in it that is told from zeros."""
    with path.open("wb") as file:
        for place in range(0, size, 64 << 20):
            file.seek(place)
            file.write(MARK + str(place).encode())
        file.truncate(size)
    return path


def is_like(path: Path, other: Path) -> bool:
    """Whether two files have the same content, read in pieces."""
    with path.open("rb") as first, other.open("rb") as second:
        while piece := first.read(1 << 20):
            if piece != second.read(1 << 20):
                return False
        return not second.read(1)


@pytest.mark.timeout(180)
async def test_a_gibibyte_up_and_down_with_flat_memory(
    ws: AgenticWorkspace, service: ServedProcess, tmp_path: Path
) -> None:
    source = sparse(tmp_path / "source", GIB)
    (guest,) = [process.pid for process in proc.belonging_to(Path(ws.info.host_path).parent)][:1]
    everybody = {"client": os.getpid(), "service": service.pid, "guest": guest}
    before = {}
    for name, pid in everybody.items():
        proc.reset_peak(pid)
        before[name] = proc.resident_bytes(pid)
    assert (await ws.upload(source, "there")).content_bytes == GIB
    await ws.download("there", tmp_path / "back")
    growth = {name: proc.peak_bytes(pid) - before[name] for name, pid in everybody.items()}
    assert await asyncio.to_thread(is_like, source, tmp_path / "back")
    assert all(grown < GROWTH for grown in growth.values()), growth


@pytest.mark.timeout(180)
@pytest.mark.docker
async def test_bulk_through_a_container_with_flat_memory(service: ServedProcess, tmp_path: Path) -> None:
    source = sparse(tmp_path / "source", GIB // 4)
    async with AgenticWorkspace.create(
        target=service.target, security=SecurityConfig(use_gvisor=False), lease=60
    ) as ws:
        proc.reset_peak(os.getpid())
        proc.reset_peak(service.pid)
        before = [proc.resident_bytes(pid) for pid in (os.getpid(), service.pid)]
        await ws.upload(source, "there")
        await ws.download("there", tmp_path / "back")
        peaks = [proc.peak_bytes(pid) for pid in (os.getpid(), service.pid)]
        (line,) = [line for line in (await ws.execute("cat /proc/1/status")).stdout.splitlines() if "VmHWM" in line]
        assert all(peak - was < GROWTH for peak, was in zip(peaks, before, strict=True))
        assert int(line.split()[1]) << 10 < GROWTH
    assert await asyncio.to_thread(is_like, source, tmp_path / "back")


@pytest.mark.timeout(180)
async def test_twenty_thousand_small_files(ws: AgenticWorkspace, tmp_path: Path) -> None:
    for number in range(200):
        directory = tmp_path / "many" / str(number)
        directory.mkdir(parents=True)
        for name in range(100):
            (directory / str(name)).write_bytes(b"small")
    up = await ws.upload(tmp_path / "many", "there")
    assert (up.files, up.directories) == (20_000, 200)
    assert len(await ws.files.list("there", depth=2)) == 20_200
    down = await ws.download("there", tmp_path / "back")
    assert (down.files, down.directories) == (20_000, 200)
    await ws.files.remove("there", recursive=True)


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_cut_short_nothing_half_is_left(
    ws: AgenticWorkspace, service: ServedProcess, tmp_path: Path, direction: str
) -> None:
    """By cancelling, and by killing the program."""
    place = Path(ws.info.host_path)
    source = sparse((tmp_path if direction == "up" else place) / "source", GIB // 2)
    under_way = asyncio.Event()

    def note(progress: TransferProgress) -> None:
        if progress.done_bytes > 1 << 20:
            under_way.set()

    up, down = ("half", source), ("source", tmp_path / "half")
    remote, local = up if direction == "up" else down
    move = ws.upload(local, remote, progress=note) if direction == "up" else ws.download(remote, local, progress=note)
    moving = asyncio.create_task(move)
    await under_way.wait()
    moving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await moving
    left = {"source"} if direction == "down" else set()
    await eventually(lambda: set(os.listdir(place)) == left, "the workspace has nothing of it")
    assert set(os.listdir(tmp_path)) == {"source"} - left
    with Program(
        "tests.support.transferring_client", direction, service.target, ws.id, str(local), remote,
        name="the program that transfers",
    ) as program:  # fmt: skip
        assert program.announcement == "moving"
        program.kill()
    await eventually(lambda: set(os.listdir(place)) == left, "the workspace has nothing of it")
    assert set(os.listdir(tmp_path)) == {"source"} - left
