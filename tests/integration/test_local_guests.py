"""Guests of the local provider as processes: stopped, killed, left, adopted, and ended all the same."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agentic_isolation import PreconditionError, ProviderUnavailableError, UnavailableError, WorkspaceConfig
from agentic_isolation_service.core.ports import Place, PlaceSpec
from agentic_isolation_service.providers.local import LocalProvider
from agentic_isolation_service.providers.local.peer import has_listener
from tests.support import proc
from tests.support.eventually import PATIENCE, eventually
from tests.support.jobs import TREE_SIZE, new_mark, tree
from tests.support.places import PlaceMaker, session_of, spec_of, start
from tests.support.program import announced
from tests.turns import WAITS

pytestmark = WAITS
PLACE = Place("ws-one", "local")
SOON = 10.0
"""Seconds: less than a guest is given to end by itself."""
# Listens as a guest does, and does not end when it is asked to.
STUBBORN = """
import signal, socket, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("ready", flush=True)
time.sleep(1e6)
"""


@contextlib.asynccontextmanager
async def providing(directory: Path) -> AsyncIterator[LocalProvider]:
    provider = LocalProvider(directory)
    try:
        yield provider
    finally:
        await provider.aclose()


async def test_path_that_is_too_long_for_a_socket(directory: Path) -> None:
    """Ids with a replica's name have up to 21 characters more; what does not fit is said before anything is made."""
    deep = directory / ("x" * 60)
    deep.mkdir()
    async with providing(deep) as provider:
        with pytest.raises(PreconditionError, match="shorter --state-dir"):
            await provider.create(PlaceSpec(f"ws-{'n' * 20}-{'a' * 20}", WorkspaceConfig(provider="local"), bytes(32)))
    assert not list(deep.iterdir())


@contextlib.contextmanager
def stubborn_guest(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", STUBBORN, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd="/") as guest:
        try:
            announced(guest, "the stubborn guest")
            yield guest
        finally:
            guest.kill()


@contextlib.contextmanager
def full_listener(path: Path) -> Iterator[None]:
    """Something that listens and accepts nothing, with as many connections waiting as the kernel lets it have."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                waiting = sockets.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                waiting.connect(str(path))
        yield


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Lets this process open nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def mounted(path: Path) -> Iterator[None]:
    """Gives a path a file system of its own."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def fill(directory: Path) -> None:
    """Puts more directories into one, each in the other, than Python calls functions, and one without permissions."""
    around = os.open(directory, os.O_RDONLY)
    for _ in range(sys.getrecursionlimit() + 200):
        os.mkdir("d", dir_fd=around)
        os.close(os.open("file", os.O_CREAT, dir_fd=around))
        below = os.open("d", os.O_RDONLY, dir_fd=around)
        os.close(around)
        around = below
    os.mkdir("locked", dir_fd=around)
    os.mkdir("locked/d", dir_fd=around)
    os.chmod("locked", 0, dir_fd=around)
    os.close(around)


def only_guest(parent: int) -> int:
    """Returns the guest that a process has started. A shim that its guest is just starting looks like one, too."""
    found = [proc.find_process(pid) for pid in proc.guests_below(parent)]
    [pid] = [guest.pid for guest in found if guest is not None and guest.parent == parent]
    return pid


async def lists(provider: LocalProvider, workspaces: set[str]) -> bool:
    """Whether it lists these. A shim that a guest was starting when it was killed holds its socket a moment longer."""
    return await provider.list() == workspaces


def homes(directory: Path) -> set[str]:
    return {path.name for path in (directory / "w").glob("*")}


async def ended(pid: int) -> None:
    """Waits until a child has ended with its last thread, which may hold files a moment longer; does not reap it."""
    async with asyncio.timeout(PATIENCE):
        await asyncio.to_thread(os.waitid, os.P_PID, pid, os.WEXITED | os.WNOWAIT)


@pytest.mark.parametrize("adopted", [False, True])
async def test_stopped_guest_is_ended(directory: Path, adopted: bool) -> None:
    """With all that runs below it, and soon."""
    mark = new_mark()
    async with providing(directory) as maker, providing(directory) as provider:
        await maker.create(spec_of("local", PLACE.workspace_id))
        session = session_of(maker, PLACE)
        await start(session, tree(mark))
        await eventually(lambda: len(proc.mentioning(mark)) == TREE_SIZE, "the tree has grown")
        await session.aclose()
        pid = only_guest(os.getpid())
        os.kill(pid, signal.SIGSTOP)
        if adopted:
            await maker.aclose()
        else:
            provider = maker
        try:
            assert await provider.list() == {PLACE.workspace_id}
            async with asyncio.timeout(SOON):
                await provider.destroy(PLACE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        assert not proc.mentioning(mark)
        assert not homes(directory)
        assert proc.find_process(pid) is None, "it was reaped"


async def test_guest_that_does_not_end_is_killed(directory: Path) -> None:
    home = directory / "w" / PLACE.workspace_id
    home.mkdir(parents=True)
    with stubborn_guest(home / "guest.sock") as guest:
        async with providing(directory) as provider:
            await provider.destroy(PLACE)
        assert guest.wait(0) == -signal.SIGKILL
    assert not homes(directory)


async def test_what_a_killed_guest_left_is_removed(directory: Path) -> None:
    """By the next process of its service; what lives, and what is no directory, stays."""
    with (
        PlaceMaker("local", directory, "ws-dead", service_id="") as maker,
        PlaceMaker("local", directory, "ws-alive", service_id="") as other,
    ):
        dead = only_guest(maker.process.pid)
        maker.kill()
        other.kill()
        os.kill(dead, signal.SIGKILL)
        await ended(dead)
        (directory / "w" / "ws-half" / "root").mkdir(parents=True)
        (directory / "w" / "file").touch()
        async with providing(directory) as provider:
            await eventually(lambda: lists(provider, {"ws-alive"}), "the dead one is not listed")
            assert homes(directory) == {"ws-alive", "file"}
            await provider.destroy(Place("ws-alive", "local"))
        assert homes(directory) == {"file"}


async def test_what_a_killed_guest_left_is_removed_however_deep_it_is(directory: Path) -> None:
    """A workspace that was filled so keeps no service from starting."""
    with PlaceMaker("local", directory, "ws-deep", service_id="") as maker:
        guest = only_guest(maker.process.pid)
        await asyncio.to_thread(fill, directory / "w" / "ws-deep" / "root")
        maker.kill()
        os.kill(guest, signal.SIGKILL)
        await ended(guest)
        async with providing(directory) as provider:
            await eventually(lambda: lists(provider, set()), "it is not listed")
    assert not homes(directory)


async def test_guest_of_this_process_that_was_killed(directory: Path) -> None:
    """It is not listed, and whoever has the place removes it."""
    async with providing(directory) as provider:
        await provider.create(spec_of("local", PLACE.workspace_id))
        pid = only_guest(os.getpid())
        os.kill(pid, signal.SIGKILL)
        await ended(pid)
        await eventually(lambda: lists(provider, set()), "it is not listed")
        assert homes(directory) == {PLACE.workspace_id}
        await provider.destroy(PLACE)
        assert not homes(directory)
        assert proc.find_process(pid) is None, "it was reaped"


async def test_guest_that_ended_by_itself_is_reaped_by_closing(directory: Path) -> None:
    async with providing(directory) as provider:
        await provider.create(spec_of("local", PLACE.workspace_id))
        pid = only_guest(os.getpid())
        os.kill(pid, signal.SIGTERM)
        await ended(pid)
        assert not homes(directory), "it has removed its directory"
        assert proc.find_process(pid) is not None
    assert proc.find_process(pid) is None, "it was reaped"


async def test_guest_that_ends_after_its_provider_is_reaped_one_day(directory: Path) -> None:
    """By whatever the provider's successors do in this process; and it is not killed by a garbage collector."""
    async with providing(directory) as first:
        await first.create(spec_of("local", PLACE.workspace_id))
        pid = only_guest(os.getpid())
    del first
    gc.collect()
    process = proc.find_process(pid)
    assert process is not None
    assert process.state != "Z"
    async with providing(directory) as second:
        assert await second.list() == {PLACE.workspace_id}
        await second.destroy(PLACE)
    assert proc.find_process(pid) is None, "it was reaped"


async def test_directory_in_the_making_is_not_taken_for_a_dead_one(directory: Path) -> None:
    async with providing(directory) as provider:
        looks = 0
        for number in range(10):
            place = Place(f"ws-{number}", "local")
            making = asyncio.create_task(provider.create(spec_of("local", place.workspace_id)))
            while not making.done():
                await provider.list()
                looks += 1
            await making
            try:
                await (await provider.connect(place)).aclose()
            finally:
                await provider.destroy(place)
        assert looks > 10


async def test_making_that_is_cancelled_again_and_again(directory: Path) -> None:
    """At many points: nothing is left when that is told."""
    async with providing(directory) as provider:
        cancelled = 0
        for number in range(40):
            making = asyncio.create_task(provider.create(spec_of("local", PLACE.workspace_id)))
            await asyncio.sleep(number * 0.0005)
            while not making.done():
                making.cancel()
                await asyncio.sleep(0)
            if making.cancelled():
                cancelled += 1
            else:
                await provider.destroy(PLACE)
            assert not proc.guests_below(os.getpid())
            assert not homes(directory)
        assert cancelled > 5


async def test_guest_that_cannot_be_told_is_not_taken_for_a_dead_one(directory: Path) -> None:
    """It is stopped, and connections wait for it, as many as it takes."""
    home = directory / "w" / PLACE.workspace_id
    home.mkdir(parents=True)
    async with providing(directory) as provider:
        with full_listener(home / "guest.sock"):
            assert await provider.list() == {PLACE.workspace_id}
            with pytest.raises(UnavailableError, match=PLACE.workspace_id):
                await provider.destroy(PLACE)
        assert await provider.list() == frozenset()
    assert not homes(directory)


async def test_guest_is_not_taken_for_a_dead_one_for_want_of_descriptors(directory: Path) -> None:
    """Its workspace would be lost for good, and its directory removed."""
    async with providing(directory) as maker, providing(directory) as provider:
        await maker.create(spec_of("local", PLACE.workspace_id))
        session = session_of(provider, PLACE)
        try:
            with no_descriptors():
                assert has_listener(directory / "w" / PLACE.workspace_id / "guest.sock")
                with pytest.raises(ProviderUnavailableError, match="open files"):
                    await provider.list()
                with pytest.raises(UnavailableError, match="open files"):
                    await session.call({"op": "info"})
            assert await session.call({"op": "info"})
            assert await provider.list() == {PLACE.workspace_id}
        finally:
            await session.aclose()
            await maker.destroy(PLACE)


async def test_place_that_there_are_no_descriptors_for(directory: Path) -> None:
    """What was made of it and could not be removed for the same reason is, when it is looked for what there is."""
    async with providing(directory) as provider:
        with no_descriptors(), pytest.raises(ProviderUnavailableError, match="open files"):
            await provider.create(spec_of("local", PLACE.workspace_id))
        assert not await provider.list()
        assert not homes(directory)


async def test_directory_that_there_are_no_descriptors_to_remove_by(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever reads of it does not look for what is mounted there."""
    async with providing(directory) as provider:
        with no_descriptors(), pytest.raises(ProviderUnavailableError):
            await provider.create(spec_of("local", PLACE.workspace_id))
        [told] = [record.message for record in caplog.records if "a dead workspace is left" in record.message]
        assert told.endswith("cannot be removed for now: Too many open files")
        await provider.list()
        assert not homes(directory)


async def test_place_that_there_is_no_room_for(directory: Path) -> None:
    (directory / "w").touch()
    async with providing(directory) as provider:
        with pytest.raises(ProviderUnavailableError, match="cannot be made"):
            await provider.create(spec_of("local", PLACE.workspace_id))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
async def test_directory_that_cannot_be_removed_for_now(directory: Path) -> None:
    """Which is nothing that a workspace's end is given up for."""
    async with providing(directory) as provider:
        place = await provider.create(spec_of("local", PLACE.workspace_id))
        with mounted(Path(place.host_path) / "mounted"), pytest.raises(UnavailableError, match="mounted"):
            await provider.destroy(place)
        await provider.destroy(place)
        assert not homes(directory)
