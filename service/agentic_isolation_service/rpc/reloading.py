"""What is made of files and made anew when they change: keys and certificates are rotated while a service runs."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from agentic_isolation.errors import IsolationError

_T = TypeVar("_T")
_PAUSE = 1.0
"""Seconds between two looks at the files."""
_Mark = tuple[tuple[int, int, int, int] | None, ...]
_log = logging.getLogger(__name__)


class Reloaded(Generic[_T]):
    """What is made of files. Ones that are broken, or half written, change nothing: what was made before stays.

    Those that cannot be read are tried again with each look, also where they stay as they are: there may have been no
    file descriptor for them. Any thread may use it.

    Args:
        what: What it is called in the log.
        files: The files.
        make: Makes it of them, or raises OSError or IsolationError.

    Raises:
        OSError: A file cannot be read.
        IsolationError: What `make` raises of files that make no sense.
    """

    def __init__(self, what: str, files: Sequence[Path], make: Callable[[], _T]) -> None:
        self._what = what
        self._files = tuple(files)
        self._make = make
        self._lock = threading.Lock()
        # The mark first: what is written while they are read is read again.
        self._mark = self._marked()
        self._unread = False
        """Whether the files could not be read when they were last looked at."""
        self._value = make()
        self._looked = time.monotonic()

    @property
    def latest(self) -> _T:
        """What the files made when they were last looked at."""
        return self._value

    async def current(self, *, at_once: bool = False) -> _T:
        """Returns what the files make now, or did a second ago.

        Args:
            at_once: Look at them now.
        """
        if at_once or self._due:
            return await asyncio.to_thread(self.look)
        return self._value

    def look(self) -> _T:
        """Looks at the files, reads them where they have changed, and returns what they make. Blocks."""
        with self._lock:
            self._looked = time.monotonic()
            mark = self._marked()
            changed = mark != self._mark
            if changed or self._unread:
                self._mark = mark
                try:
                    self._value = self._make()
                except (OSError, IsolationError) as error:
                    self._unread = not isinstance(error, IsolationError)
                    if changed:
                        # Its words only: an error holds the frames that it has come through, and with them a call.
                        _log.error(
                            "%s stays as it was, as what is there now cannot be used: %s", self._what, str(error)
                        )
                else:
                    self._unread = False
                    _log.info("%s was read anew", self._what)
            return self._value

    @property
    def _due(self) -> bool:
        return time.monotonic() - self._looked >= _PAUSE

    def _marked(self) -> _Mark:
        """Returns what changes when a file is written, replaced or removed."""
        return tuple(_mark_of(file) for file in self._files)


def _mark_of(file: Path) -> tuple[int, int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
