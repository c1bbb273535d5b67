"""What a chaos run stands on: commands that print what is said of them, journals, the network path."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from tests.chaos.findings import complaints
from tests.chaos.jobs import LOG, Job
from tests.chaos.journal import Journal, operations
from tests.chaos.network import NetworkPath
from tests.engine import Engine
from tests.support.engine_leaks import held_for_nobody

JOBS = [
    Job(token="a-1", stdout_lines=1),
    Job(token="a-2", stdout_lines=3, pause=0.01),
    Job(token="a-3", stdout_lines=2, stderr_lines=2, pause=0.01, exit_code=3),
    Job(token="a-4", stdout_lines=100_000, stderr_lines=1000, exit_code=255),
]


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.token)
def test_command_does_what_is_said_of_it(job: Job, tmp_path: Path) -> None:
    done = subprocess.run(["/bin/sh", "-c", job.script], cwd=tmp_path, capture_output=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == (job.stdout, job.stderr, job.exit_code)
    assert (tmp_path / LOG).read_text() == f"{job.token}\n"
    assert Job.from_record(job.record()) == job


def test_command_that_has_to_be_killed(tmp_path: Path) -> None:
    """It has done all that it does, and does not end."""
    job = Job(token="a-1", stdout_lines=1, timeout=3)
    command = ["/bin/sh", "-c", job.script]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, start_new_session=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == job.stdout
        assert running.poll() is None
        os.killpg(running.pid, signal.SIGKILL)
        assert running.stdout.read() == b""


def test_journal_that_a_kill_has_cut(tmp_path: Path) -> None:
    path = tmp_path / "client.jsonl"
    with Journal(path) as journal:
        journal.write("start", op="1", kind="write", workspace="w", runtime="runc", asked={"path": "f"})
        journal.write("ok", op="1", answer={})
        journal.write("start", op="2", kind="read", workspace="w", runtime="runc", asked={"path": "f"})
        journal.write("fail", op="2", reason="UNAVAILABLE", message="?")
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"UNAVAILABLE")])
    first, second = operations([path])
    assert (first.acknowledged, first.client, first.started < second.started) == (True, "client", True)
    assert (second.acknowledged, second.reason, second.ended) == (False, None, None)


@pytest.mark.parametrize(
    ("log", "count"),
    [
        ("2026-01-01T00:00:00Z [info     ] workspace created\n2026-01-01T00:00:00Z [warning  ] not yet\n", 0),
        ("2026-01-01T00:00:00Z [error    ] a defect of the service\n", 1),
        ("2026-01-01T00:00:00Z [error    ] ExecuteBatchError raised in core by x\n╭── Traceback ──╮\n", 0),
        ("Traceback (most recent call last):\n", 1),
    ],
)
def test_log_that_tells_of_defects(log: str, count: int, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(log)
    assert len(complaints(path)) == count


class ListingEngine:
    """An engine that lists containers with these volumes, and these volumes as being held."""

    def __init__(self, mounted: list[str], held: list[str]) -> None:
        self.api = self
        self._mounted = mounted
        self._held = held

    def json(self, method: str, path: str, *, query: dict[str, str]) -> Any:
        if path == "/containers/json":
            assert query == {"all": "1"}
            mounts = [{"Type": "volume", "Name": name} for name in self._mounted]
            return [{"Id": "c", "Mounts": [{"Type": "bind", "Source": "/"}, *mounts]}]
        assert json.loads(query["filters"]) == {"label": ["l=1"], "dangling": ["false"]}
        return {"Volumes": [{"Name": name} for name in self._held] or None}


@pytest.mark.parametrize(
    ("mounted", "held", "found"),
    [([], [], []), (["a", "b"], ["a"], []), (["a"], ["a", "b"], ["b"]), ([], ["a"], ["a"])],
)
def test_volume_that_an_engine_holds_for_nobody(mounted: list[str], held: list[str], found: list[str]) -> None:
    assert held_for_nobody(cast(Engine, ListingEngine(mounted, held)), "l=1") == found


@asynccontextmanager
async def path_to_an_echo() -> AsyncIterator[tuple[NetworkPath, list[BaseException]]]:
    """A network path to a service that sends everything back, and what that service has met."""
    errors: list[BaseException] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
        except ConnectionError as error:
            errors.append(error)
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, NetworkPath(server.sockets[0].getsockname()[1]) as path:
        yield path, errors


async def test_network_passes_on() -> None:
    data = bytes(range(256)) * 4096
    async with path_to_an_echo() as (path, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", path.port)
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        assert path.connection_count == 1
        assert path.byte_count == 2 * len(data)


async def test_network_that_is_reset() -> None:
    async with path_to_an_echo() as (path, errors):
        reader, writer = await asyncio.open_connection("127.0.0.1", path.port)
        writer.write(b"x")
        await reader.readexactly(1)
        await path.reset()
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()
        await asyncio.sleep(0.05)
        assert [type(error) for error in errors] == [ConnectionResetError]


async def test_network_that_is_a_black_hole() -> None:
    """What was sent meanwhile comes afterwards."""
    async with path_to_an_echo() as (path, _):
        before = await asyncio.open_connection("127.0.0.1", path.port)
        before[1].write(b"x")
        await before[0].readexactly(1)
        async with path.blackholed():
            during = await asyncio.open_connection("127.0.0.1", path.port)
            for _, writer in (before, during):
                writer.write(b"y")
            answers = [asyncio.create_task(reader.readexactly(1)) for reader, _ in (before, during)]
            done, _ = await asyncio.wait(answers, timeout=0.2)
            assert not done
        assert await asyncio.gather(*answers) == [b"y", b"y"]
        for _, writer in (before, during):
            writer.close()


async def test_network_that_is_slow() -> None:
    async with path_to_an_echo() as (path, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", path.port)
        async with path.delayed(0.4):
            began = time.monotonic()
            for number in range(4):
                writer.write(bytes([number]))
                assert await reader.readexactly(1) == bytes([number])
            assert time.monotonic() - began > 0.1
        writer.close()
