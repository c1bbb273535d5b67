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
from tests.support.proc import ProcessEntry

PREFIX = "agentic-isolation-"
_strangers: set[tuple[int, str]] = set()
"""Processes that were looked at before and have nothing to do with us, by pid and start."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """What this process and the services that it runs hold at a moment."""

    processes: dict[int, str]
    files: dict[int, Counter[str]]
    directories: frozenset[str]

    @classmethod
    def now(cls) -> Holdings:
        """Counts what is held now. Services that run are among the processes."""
        private, me = Path(tempfile.gettempdir()), os.getpid()
        everyone = list(proc.processes())
        children = proc.descendants(me, everyone)
        proc.reap_adopted({child.pid for child in children if child.state == "Z" and child.parent == me})
        ours = [*children, *_related(everyone, private, {me, *(child.pid for child in children)})]
        living = {process.pid: str(process) for process in ours if process.state != "Z"}
        return cls(
            processes=living,
            files={pid: proc.open_files(pid) for pid in (me, *living)},
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
    deadline = time.monotonic() + within
    surplus = Holdings.now().beyond(before)
    if surplus:
        gc.collect()  # closed channels and servers may be in cycles
    while surplus and time.monotonic() < deadline:
        time.sleep(0.02)
        surplus = Holdings.now().beyond(before)
    return surplus


def _related(everyone: list[ProcessEntry], directory: Path, known: set[int]) -> list[ProcessEntry]:
    """Returns the processes that are not our descendants and yet have to do with a directory of ours."""
    related = []
    for process in everyone:
        if process.pid in known or (process.pid, process.started) in _strangers:
            continue
        if proc.belongs_to(process, directory):
            related.append(process)
        else:
            _strangers.add((process.pid, process.started))
    return related
