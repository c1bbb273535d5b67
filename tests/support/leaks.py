"""Accounts of what a test leaves behind: processes, open files, directories."""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.support import proc

PREFIX = "agentic-isolation-"


@dataclass(frozen=True, slots=True)
class Holdings:
    """What this process and the services that it runs hold at a moment."""

    processes: dict[int, str]
    files: dict[int, Counter[str]]
    directories: frozenset[str]

    @classmethod
    def now(cls) -> Holdings:
        """Counts what is held now. Services that run are among the processes."""
        children = proc.descendants(os.getpid())
        proc.reap_adopted({child.pid for child in children if child.state == "Z" and child.parent == os.getpid()})
        living = {child.pid: str(child) for child in children if child.state != "Z"}
        private = Path(tempfile.gettempdir())
        living |= {process.pid: str(process) for process in proc.belonging_to(private)}
        return cls(
            processes=living,
            files={pid: proc.open_files(pid) for pid in (os.getpid(), *living)},
            directories=frozenset(str(path) for path in private.glob(PREFIX + "*")),
        )

    def beyond(self, before: Holdings) -> list[str]:
        """Returns, in words, what is held now and was not before."""
        more = [f"process {words}" for pid, words in self.processes.items() if pid not in before.processes]
        more += [f"directory {path}" for path in sorted(self.directories - before.directories)]
        for pid, files in self.files.items():
            if pid in before.files:
                surplus = files - before.files[pid]
                more += [f"{count} open file(s) {kind} of process {pid}" for kind, count in surplus.items()]
        return more


def left_behind(before: Holdings, *, within: float = 10.0) -> list[str]:
    """Returns what is held beyond `before` when it has had some time to go."""
    gc.collect()  # closed channels and servers may be in cycles
    deadline = time.monotonic() + within
    while (surplus := Holdings.now().beyond(before)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return surplus
