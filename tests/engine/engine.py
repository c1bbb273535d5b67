"""The engine that the tests use: the developer's where DOCKER_HOST names one, else a private one."""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

from tests.engine import images, processes
from tests.engine.api import Api
from tests.engine.daemon import Daemon
from tests.engine.errors import EngineError
from tests.engine.images import IMAGES, Images
from tests.engine.packages import say

SHARED = "shared"
"""The name of the private engine that all tests share, unless they need one of their own to break."""


class Engine:
    """A Docker Engine that answered when this was made, and has the test images.

    Only a private engine can be stopped, killed, paused and started; a developer's is left alone.
    """

    def __init__(self, docker_host: str, daemon: Daemon | None) -> None:
        self.docker_host = docker_host
        self.api = Api(docker_host)
        self.images: Images = IMAGES
        self.version: str = self.api.json("GET", "/version")["Version"]
        self.runtimes: frozenset[str] = frozenset(self.api.json("GET", "/info")["Runtimes"])
        self._daemon = daemon

    def __repr__(self) -> str:
        return f"Engine({self.docker_host!r}, version={self.version!r}, runtimes={sorted(self.runtimes)})"

    @property
    def private(self) -> bool:
        """Whether this is a private engine."""
        return self._daemon is not None

    @property
    def host_address(self) -> str | None:
        """Where a server in this process has to bind to be reached from containers on a bridge network, if anywhere."""
        if self._daemon is not None:
            return self._daemon.link.host_address
        for network in self.api.json("GET", "/networks/bridge")["IPAM"]["Config"]:
            with contextlib.suppress(OSError, KeyError), socket.socket() as probe:
                probe.bind((network["Gateway"], 0))
                return str(network["Gateway"])
        return None

    @property
    def link_local_address(self) -> str | None:
        """As `host_address`, in 169.254.0.0/16: what a workspace must not reach. Only a private engine has one."""
        return None if self._daemon is None else self._daemon.link.link_local_address

    @property
    def pid(self) -> int | None:
        """The pid of a private engine's dockerd, None while it does not run."""
        return self._private().pid

    def processes(self) -> set[int]:
        """The pids of a private engine and of all that runs in its containers, for accounts that leave them out."""
        return processes.remains(self._private().directory)

    def keeps(self, container_id: str) -> bool:
        """Whether the engine has a container's files; taken for granted of one that is not private."""
        return self._daemon is None or (self._daemon.directory / "data" / "containers" / container_id).exists()

    def start(self) -> None:
        """Starts the engine again after `stop` or `kill`, and waits until it answers."""
        with _locked(state()):
            self._private().start(state=state())

    def stop(self) -> None:
        """Stops dockerd in good order: containers end, unless the engine has live restore."""
        self._private().stop()

    def restart(self) -> None:
        """`stop`, then `start`."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """SIGKILL for dockerd. Containers run on; whether the next `start` keeps them depends on live restore."""
        self._private().kill()

    def pause(self) -> None:
        """Stops dockerd with SIGSTOP: connections are accepted by the kernel and nothing answers."""
        self._private().signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Ends `pause`."""
        self._private().signal(signal.SIGCONT)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """`pause`, and `resume` at the end."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def nsenter(self, *command: str) -> list[str]:
        """The command that runs `command` in a private engine's network namespace: `iptables`, `ip`, `tcpdump`."""
        return self._private().nsenter(*command)

    def _private(self) -> Daemon:
        if self._daemon is None:
            raise EngineError(
                f"DOCKER_HOST={self.docker_host} is a developer's engine and left alone: give the engine a name, as in "
                "ensure('faults'), to have a private one."
            )
        return self._daemon


def state() -> Path:
    """The directory of everything that the tests keep on this machine."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache).resolve() / "agentic-isolation" / "engine"


def ensure(name: str | None = None, *, live_restore: bool = False, release: str | None = None) -> Engine:
    """Makes an engine usable: packages, daemon, images. Instant when all is there; safe in several processes at once.

    Args:
        name: None for DOCKER_HOST's engine, or the shared private one where DOCKER_HOST is not set. A name gives a
            private engine of that name, whatever DOCKER_HOST says: for tests that break it while others use the shared.
        live_restore: Whether containers survive the daemon; only taken into account when the engine is started. Engines
            before 24.0.8 remove AutoRemove containers all the same (moby/moby#46308): see `release`.
        release: A Debian release whose Docker Engine to use (`trixie` has 26.1) in a root directory of its own, instead
            of this machine's (bookworm's is 20.10). Only for an engine with a name.

    Raises:
        EngineError: It cannot be had; the message says what is missing and what would work.
    """
    with _locked(state()):
        return _ensure(name, live_restore=live_restore, release=release)


def keep() -> Engine:
    """`ensure()` for a developer: the engine stays up until `down`, also when test runs end."""
    engine = ensure()
    if engine.private:
        (_directory(SHARED) / "session").unlink(missing_ok=True)
    return engine


@contextlib.contextmanager
def session(name: str | None = None, *, live_restore: bool = False, release: str | None = None) -> Iterator[Engine]:
    """`ensure`, and the last of several test processes to leave takes the engine down, if one of them started it."""
    directory = _directory(name or SHARED)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (directory.parent / f"{directory.name}.users").open("ab") as users:
        with _locked(state()):
            was_up = _daemon(directory).pid is not None
            engine = _ensure(name, live_restore=live_restore, release=release)
            if engine.private and not was_up:
                (directory / "session").touch()
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield engine
        finally:
            with _locked(state()), contextlib.suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if (directory / "session").exists():
                    _remove(directory)


def down(*, purge: bool = False) -> None:
    """Takes all private engines down: containers, daemons, mounts, network. Archives and images stay, unless purged.

    Raises:
        EngineError: Something of them still runs or is mounted.
    """
    with _locked(state()):
        for directory in sorted(path.parent for path in state().glob("*/daemon.json")):
            _remove(directory)
        if purge:
            if left := processes.mounts(state()):
                raise EngineError(f"still mounted, so nothing is removed: {' '.join(left)}")
            shutil.rmtree(state())


def _ensure(name: str | None, *, live_restore: bool = False, release: str | None = None) -> Engine:
    daemon = Daemon(_directory(name or SHARED), live_restore=live_restore, release=release)
    docker_host = os.environ.get("DOCKER_HOST")
    if name is None and docker_host and docker_host != daemon.docker_host:
        api = Api(docker_host)
        try:
            api.request("GET", "/_ping", timeout=10)
        except EngineError as error:
            raise EngineError(
                f"DOCKER_HOST names an engine that does not answer ({error}): start it, or unset DOCKER_HOST to have "
                "the tests start a private one, as root on Debian."
            ) from error
        images.ensure(api, state())
        return Engine(docker_host, None)
    daemon.start(state=state())
    images.ensure(daemon.api, state())
    return Engine(daemon.docker_host, daemon)


def _remove(directory: Path) -> None:
    _daemon(directory).remove()
    (directory / "session").unlink(missing_ok=True)
    if left := processes.remains(directory):
        raise EngineError(f"processes of the engine in {directory} still run: {sorted(left)}")
    if points := processes.mounts(directory):
        raise EngineError(f"still mounted: {' '.join(points)}")


def _directory(name: str) -> Path:
    return state() / name


def _daemon(directory: Path) -> Daemon:
    """To look at an engine, or to take it down."""
    return Daemon(directory, live_restore=False, release=None)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One process at a time sets engines up; a process that dies gives the lock back."""
    directory.mkdir(parents=True, exist_ok=True)
    while True:
        with (directory / "lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("Waiting for another process that sets the engine up")
                fcntl.flock(lock, fcntl.LOCK_EX)
            # A purge may have taken the file away meanwhile; then the lock on it says nothing.
            if os.fstat(lock.fileno()).st_nlink:
                yield
                return
        directory.mkdir(parents=True, exist_ok=True)
