"""What /proc tells of processes and their memory (Linux)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contender import Unsupported

_PARENT = re.compile(rb"^PPid:\s+(\d+)", re.MULTILINE)
_ROLLUP = re.compile(rb"^(Rss|Pss):\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Memory:
    """What a process holds, in KiB."""

    resident: float = 0
    proportional: float = 0
    """With its share only of what others hold, too (PSS)."""


def memory_of(*pids: int) -> Memory:
    """Returns what processes hold together.

    Raises:
        Unsupported: The kernel does not tell.
    """
    resident = proportional = 0
    for pid in pids:
        try:
            found = dict(_ROLLUP.findall(Path(f"/proc/{pid}/smaps_rollup").read_bytes()))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        except OSError as error:
            raise Unsupported(f"the memory of processes is not told: {error}") from error
        resident += int(found.get(b"Rss", 0))
        proportional += int(found.get(b"Pss", 0))
    return Memory(resident, proportional)


def arguments(pid: int) -> str:
    """Returns a process's command line; empty where it is gone."""
    return _read(pid, "cmdline").replace(b"\0", b" ").decode("utf-8", "replace").strip()


def children(pid: int) -> list[int]:
    """Returns the processes whose parent a process is."""
    return [other for other in everyone() if parent(other) == pid]


def descendants(pid: int) -> list[int]:
    """Returns the processes below a process."""
    found = children(pid)
    return found + [below for child in found for below in descendants(child)]


def parent(pid: int) -> int:
    """Returns a process's parent; 0 where it is gone."""
    match = _PARENT.search(_read(pid, "status"))
    return int(match[1]) if match else 0


def everyone() -> Iterator[int]:
    """Yields all processes that can be seen."""
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
