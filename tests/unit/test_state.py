"""The state directory: private, held by one service, and swept when nobody holds it any more."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import json
import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentic_isolation_service.state import StateDirectory

PREFIX = "agentic-isolation-"


@pytest.fixture(autouse=True)
def temporary_directories(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary directories are made and swept: a place of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


def abandoned(parent: Path, name: str = "old") -> Path:
    """Makes a temporary directory as a service leaves it that was killed."""
    path = parent / (PREFIX + name)
    (path / "w").mkdir(parents=True, mode=0o700)
    (path / "lock").touch(0o600)
    (path / "grpc.sock").touch()
    return path


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Holds a directory's lock, as its service does while it runs."""
    with (path / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


async def test_wait_that_is_cancelled_while_it_looks(directory: Path) -> None:
    """It ends at once, and nothing is complained of."""
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with StateDirectory.open(directory / "state"):
        waiting = asyncio.ensure_future(StateDirectory.open(directory / "state", patience=60).__aenter__())
        for _ in range(2):  # it begins, and it looks, in a task of its own
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        del waiting
        gc.collect()
    assert not complaints


async def test_temporary_directory_is_private_and_goes_with_its_service(temporary_directories: Path) -> None:
    async with StateDirectory.open(None) as state:
        assert state.temporary
        assert state.path.parent == temporary_directories
        assert state.path.stat().st_mode & 0o777 == 0o700
        assert (state.path / "lock").stat().st_mode & 0o777 == 0o600
        (state.path / "w").mkdir()
    assert not state.path.exists()


async def test_temporary_directory_that_there_are_too_few_descriptors_for_leaves_nothing(
    temporary_directories: Path,
) -> None:
    """There are some for its lock, and too few to start what watches over it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(lowest := os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 3, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            async with StateDirectory.open(None):
                pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not os.listdir(temporary_directories)


async def test_temporary_directory_goes_when_its_service_fails_or_is_cancelled() -> None:
    for error in (RuntimeError("x"), asyncio.CancelledError()):
        with contextlib.suppress(RuntimeError, asyncio.CancelledError):
            async with StateDirectory.open(None) as state:
                raise error
        assert not state.path.exists()


async def test_lasting_directory_is_made_private_and_stays(directory: Path) -> None:
    path = directory / "deep" / "state"
    async with StateDirectory.open(path) as state:
        assert (state.path, state.temporary) == (path, False)
        assert path.stat().st_mode & 0o777 == 0o700
        (path / "kept").touch()
    assert (path / "kept").exists()


async def test_directory_of_a_relative_name_has_an_absolute_one(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guests, which are in other directories, take no other."""
    monkeypatch.chdir(directory)
    async with StateDirectory.open(Path("state")) as state:
        assert state.path == directory / "state"


async def test_identity_that_has_no_room_leaves_nothing(directory: Path) -> None:
    """A service that is started again and again on a full disk must not fill it with what it could not finish."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*/state/identity'"):
            async with StateDirectory.open(directory / "state"):
                pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (directory / "state").iterdir()] == ["lock"]


async def test_permissions_of_a_directory_that_is_there_are_tightened(directory: Path) -> None:
    path = directory / "state"
    path.mkdir(mode=0o755)
    async with StateDirectory.open(path):
        assert path.stat().st_mode & 0o777 == 0o700


async def test_directory_of_others_is_not_closed_to_them(directory: Path) -> None:
    """Such as /var/lib, named by mistake."""
    path = directory / "lib"
    (path / "other").mkdir(parents=True)
    path.chmod(0o755)
    with pytest.raises(OSError, match=r"other things in it, as other,.*--state-dir"):
        await StateDirectory.open(path).__aenter__()
    assert path.stat().st_mode & 0o777 == 0o755
    (path / "identity").write_text(json.dumps({"service_id": "a", "secret": "00" * 32}))  # a backup's
    async with StateDirectory.open(path) as state:
        assert state.identity.service_id == "a"


async def test_second_service_is_refused_until_the_first_has_ended(directory: Path) -> None:
    path = directory / "state"
    async with StateDirectory.open(path):
        with pytest.raises(OSError, match=r"another service uses.*--state-dir"):
            await StateDirectory.open(path).__aenter__()
    async with StateDirectory.open(path):
        pass


async def test_lock_that_is_a_symlink_is_refused(directory: Path) -> None:
    target = directory / "target"
    (directory / "state").mkdir()
    (directory / "state" / "lock").symlink_to(target)
    with pytest.raises(OSError, match="lock"):
        await StateDirectory.open(directory / "state").__aenter__()
    assert not target.exists()


async def test_path_that_is_a_file_is_refused(directory: Path) -> None:
    (directory / "file").touch()
    with pytest.raises(OSError, match="file"):
        await StateDirectory.open(directory / "file").__aenter__()


async def test_abandoned_directories_are_swept(temporary_directories: Path) -> None:
    old = abandoned(temporary_directories)
    async with StateDirectory.open(None):
        assert not old.exists()


async def test_directory_that_is_held_is_never_swept(temporary_directories: Path) -> None:
    old = abandoned(temporary_directories)
    with held(old):
        async with StateDirectory.open(None):
            assert (old / "grpc.sock").exists()
    async with StateDirectory.open(None) as first, StateDirectory.open(None) as second:
        assert first.path.exists()
        assert second.path.exists()


async def test_directory_with_a_workspace_is_left_to_the_workspaces_lease(temporary_directories: Path) -> None:
    old = abandoned(temporary_directories)
    (old / "w" / "ws-1").mkdir()
    async with StateDirectory.open(None):
        assert (old / "w" / "ws-1").exists()


async def test_lasting_directories_and_foreign_ones_are_not_swept(temporary_directories: Path) -> None:
    """Only what has the name and the lock of a temporary directory is one; a symlink leads nowhere."""
    elsewhere = temporary_directories / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lock").touch()
    (temporary_directories / f"{PREFIX}link").symlink_to(elsewhere)
    without_lock = temporary_directories / f"{PREFIX}no-lock"
    without_lock.mkdir()
    (temporary_directories / f"{PREFIX}file").touch()
    async with StateDirectory.open(None):
        pass
    left = set(os.listdir(temporary_directories))
    assert left == {f"{PREFIX}link", f"{PREFIX}no-lock", f"{PREFIX}file", "elsewhere"}
    assert (elsewhere / "lock").exists()


async def test_services_that_start_at_the_same_time_do_not_sweep_each_other() -> None:
    async with contextlib.AsyncExitStack() as stack:
        states = await asyncio.gather(*(stack.enter_async_context(StateDirectory.open(None)) for _ in range(20)))
        assert len({state.path for state in states}) == 20
        assert all((state.path / "lock").exists() for state in states)


async def test_directory_of_another_user_is_not_swept(
    temporary_directories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = abandoned(temporary_directories)
    monkeypatch.setattr(os, "getuid", lambda: theirs.stat().st_uid + 1)
    async with StateDirectory.open(None):
        assert theirs.exists()
