"""What /proc tells about processes: the tests' own view of what is left, which asks no code under test."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_INODE = re.compile(r":\[?\d+\]?$")
_RESET_PEAK = "5"
_FILES_OF_GO = ("/cpu.max", "/cpu.cfs_quota_us", "/cpu.cfs_period_us")
"""Of control groups. The runtime of a Go program opens them when it starts, and keeps them: how much it may run."""


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    """A process as /proc shows it."""

    pid: int
    parent: int
    state: str
    name: str
    started: str
    """In the kernel's clock; with the pid, it names a process for good."""

    @property
    def arguments(self) -> str:
        return _read(f"/proc/{self.pid}/cmdline").replace(b"\0", b" ").decode("utf-8", "replace").strip()

    def __str__(self) -> str:
        return f"{self.pid} ({self.state}) {self.arguments or self.name}"


def become_subreaper() -> None:
    """Makes whatever outlives its parents below this process a child of it, so that nothing escapes the accounts."""
    assert ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


@contextlib.contextmanager
def no_subreaper() -> Iterator[None]:
    """Leaves orphans to the system meanwhile: daemons that a test starts and need not account for."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    assert prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) == 0
    try:
        yield
    finally:
        become_subreaper()


def processes() -> Iterator[ProcessEntry]:
    """Yields all processes of this machine."""
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal() and (process := find_process(int(entry.name))):
            yield process


def find_process(pid: int) -> ProcessEntry | None:
    """Returns a process, a zombie too; None where there is none."""
    stat = _read(f"/proc/{pid}/stat").decode("utf-8", "replace")
    if not stat:
        return None
    name, _, rest = stat.partition("(")[2].rpartition(")")
    fields = rest.split()
    return ProcessEntry(pid, int(fields[1]), fields[0], name, fields[19])


def descendants(root: int, among: Iterable[ProcessEntry] | None = None) -> list[ProcessEntry]:
    """Returns the children of a process, theirs, and so on."""
    by_parent: dict[int, list[ProcessEntry]] = {}
    for process in processes() if among is None else among:
        by_parent.setdefault(process.parent, []).append(process)
    found: list[ProcessEntry] = []
    parents = [root]
    while parents:
        children = by_parent.get(parents.pop(), [])
        found += children
        parents += [child.pid for child in children]
    return found


def guests_below(root: int) -> list[int]:
    """Returns the guests, without their shims, below a process."""
    return [process.pid for process in descendants(root) if re.search(r"agentic-guest\S* serve$", process.arguments)]


def mentioning(text: str) -> list[ProcessEntry]:
    """Returns the living processes that have a text in their arguments, except this one."""
    return [
        process
        for process in processes()
        if text in process.arguments and process.state != "Z" and process.pid != os.getpid()
    ]


def belonging_to(directory: Path) -> list[ProcessEntry]:
    """Returns the living processes, except this one, that belong to a directory."""
    others = (process for process in processes() if process.pid != os.getpid() and process.state != "Z")
    return [process for process in others if belongs_to(process, directory)]


def belongs_to(process: ProcessEntry, directory: Path) -> bool:
    """Returns whether a process's arguments, environment or working directory lead into a directory."""
    places = [process.arguments.encode(), _read(f"/proc/{process.pid}/environ")]
    with contextlib.suppress(OSError):
        places.append(os.readlink(f"/proc/{process.pid}/cwd").encode())
    return any(str(directory).encode() in place for place in places)


def environment(pid: int) -> list[str]:
    """Returns the variables that a process was started with, as NAME=VALUE."""
    return _read(f"/proc/{pid}/environ").decode("utf-8", "replace").split("\0")


def open_files(pid: int) -> Counter[str]:
    """Counts a process's open files by what they are; sockets, pipes and the like by their kind.

    Those that Go's runtime opens do not count: a process that has just begun is nobody's leak a moment later.
    """
    counts: Counter[str] = Counter()
    with contextlib.suppress(OSError):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                file = os.readlink(f"/proc/{pid}/fd/{descriptor}")
                if not file.endswith(_FILES_OF_GO):
                    counts[_INODE.sub("", file)] += 1
    return counts


def resident_bytes(pid: int) -> int:
    """Returns how much memory a process has now."""
    return _status_bytes(pid, "VmRSS")


def peak_bytes(pid: int) -> int:
    """Returns how much memory a process had at most since `reset_peak`."""
    return _status_bytes(pid, "VmHWM")


def reset_peak(pid: int) -> None:
    """Forgets how much memory a process had at most."""
    Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK)


def reap_adopted(pids: set[int]) -> None:
    """Collects those of these processes that have become our children and have ended."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _status_bytes(pid: int, name: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
    assert match is not None, f"/proc/{pid}/status has no {name}"
    return int(match[1]) * 1024


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:  # thousands of times a minute: without what Path adds
            return file.readall()
    except OSError:
        return b""
