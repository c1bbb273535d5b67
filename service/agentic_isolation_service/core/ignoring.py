"""Which files patterns in the syntax of gitignore(5) leave out."""

from __future__ import annotations

import asyncio

from agentic_isolation._ignore import IgnoreRules
from agentic_isolation.models import FileType
from agentic_isolation_service.core import files
from agentic_isolation_service.core.validation import refuse
from agentic_isolation_service.guest.session import GuestSession

MAX_PATTERNS = 1000
MAX_EXCLUDED_BYTES = 512 << 10
"""Of all paths that are left out, which must fit into one message to the guest."""
_TURN = 0.02
"""Seconds of matching after which others have their turn."""


async def ignored_paths(session: GuestSession, path: str, patterns: list[str]) -> list[str]:
    """Returns the topmost paths below a directory, relative to it, that patterns leave out.

    As for git, what lies in a directory that is left out is left out, whatever other patterns say.

    Raises:
        InvalidArgumentError: There are too many patterns, one is malformed, or they leave out too many single files.
        FileError, PathEscapesError: It is no directory, or may not be looked at.
    """
    if len(patterns) > MAX_PATTERNS:
        raise refuse("ignore_patterns", f"{len(patterns)} patterns, more than {MAX_PATTERNS}")
    rules = IgnoreRules(patterns, "ignore_patterns")
    root = (await files.stat(session, path)).path.rstrip("/") + "/"
    found: list[str] = []
    size = 0
    token = ""
    clock = asyncio.get_running_loop().time
    pause = clock() + _TURN
    while True:
        page, token = await files.list_directory(session, path, files.MAX_PAGE, token, depth=files.MAX_DEPTH)
        for entry in page:
            relative = entry.path.removeprefix(root)
            if found and relative.startswith(found[-1] + "/"):
                continue  # a directory is followed by what lies in it
            if rules.ignores(relative, is_directory=entry.type is FileType.DIRECTORY):
                found.append(relative)
                size += len(relative.encode()) + 8
                if size > MAX_EXCLUDED_BYTES:
                    raise refuse("ignore_patterns", "they leave out too many single files; ignore their directories")
            if clock() > pause:
                await asyncio.sleep(0)
                pause = clock() + _TURN
        if not token:
            return found
