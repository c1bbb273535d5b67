"""Which processes, mounts and containers belong to one private engine, found by looking rather than by remembering."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.engine.errors import EngineError
from tests.engine.packages import run


def wait_until(condition: Callable[[], bool], *, timeout: float) -> bool:
    """Polls a condition until it holds; False when it does not within `timeout` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def command_lines() -> dict[int, list[str]]:
    """The arguments of every process by pid; kernel threads and zombies have none."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if words := path.read_bytes().rstrip(b"\0").decode(errors="replace").split("\0"):
                found[int(path.parent.name)] = words
    return found


def find(program: str, mark: str) -> int | None:
    """The pid of the process that is `program` and has an argument `mark`."""
    for pid, words in command_lines().items():
        if os.path.basename(words[0]) == program and mark in words[1:]:
            return pid
    return None


def end(pid: int, *, timeout: float) -> None:
    """SIGTERM, and SIGKILL after `timeout` seconds; returns when the process is gone."""
    for number, patience in ((signal.SIGTERM, timeout), (signal.SIGKILL, 10.0)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            os.kill(pid, signal.SIGCONT)
        if wait_until(lambda: not alive(pid), timeout=patience):
            return
    raise EngineError(f"process {pid} outlives SIGKILL: see /proc/{pid}/status")


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie, which only waits to be collected by its parent, does not."""
    try:
        return _stat(pid)[0] != "Z"
    except OSError:
        return False


def remains(directory: Path, container_ids: Iterable[str] = ()) -> set[int]:
    """The processes of the engine in `directory`: daemons, shims, runtimes and all that runs in its containers."""
    in_container = re.compile("|".join(re.escape(identity) for identity in container_ids) or r"\Z.")
    programs = ("dockerd", "containerd", "runsc", "runc", "docker-proxy")
    found = set()
    parents = {}
    for pid, words in command_lines().items():
        of_engine = os.path.basename(words[0]).startswith(programs) and any(f"{directory}/" in word for word in words)
        with contextlib.suppress(OSError):
            parents[pid] = int(_stat(pid)[1])
            if of_engine or in_container.search(Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")):
                found.add(pid)
    while children := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= children
    return found


def _stat(pid: int) -> list[str]:
    """The state of a process, the pid of its parent, and so on (proc_pid_stat(5), from the third field)."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def kill_remains(directory: Path, container_ids: Iterable[str] = ()) -> None:
    """SIGKILL for all `remains`, until there are none."""
    ids = list(container_ids)

    def none_left() -> bool:
        left = {pid for pid in remains(directory, ids) if alive(pid)}
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    if not wait_until(none_left, timeout=20):
        raise EngineError(f"processes outlive SIGKILL: {sorted(remains(directory, ids))} of the engine in {directory}")


def remove_cgroups(container_ids: Iterable[str]) -> None:
    """Removes the control groups of containers that were killed; an engine that crashed had no time to."""
    for identity in container_ids:
        for pattern in (f"docker/{identity}", f"*/docker/{identity}"):
            for directory in Path("/sys/fs/cgroup").glob(pattern):
                with contextlib.suppress(OSError):
                    directory.rmdir()


def mounts(directory: Path) -> list[str]:
    """The mount points below `directory`, the innermost first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), line.split(" ")[4])
        if point.startswith(f"{directory}/"):
            found.append(point)
    return found[::-1]


def unmount(directory: Path) -> None:
    """Unmounts all there is below `directory`; what still uses a mount keeps it until it ends."""
    while points := mounts(directory):
        subprocess.run(["umount", "--lazy", *points], stderr=subprocess.DEVNULL, check=False)
        if mounts(directory) == points:
            run("umount", "--lazy", *points)
