"""What is compared: a contender makes places, and commands run in them.

Contenders run in workers, some of them in interpreters that have nothing but the standard library and one product. So
what they share, this module and the measures, imports the standard library only.
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

Ask = Callable[[str], Awaitable[str]]
"""Writes a line to a command, and returns the line that comes back."""


class Unsupported(Exception):  # noqa: N818 - an answer, not a fault
    """The contender cannot do that, or it makes no sense for it."""


class Place:
    """Where commands run. A contender overrides what it can do."""

    python = "python3"
    """The interpreter in it."""
    clock = "monotonic"
    """The clock that it has in common with this machine: monotonic or realtime."""

    async def execute(self, command: Sequence[str]) -> None:
        """Runs a command to its end and learns its output and its exit code, which must be 0."""
        raise Unsupported("runs no commands")

    def lines(self, command: Sequence[str]) -> AsyncGenerator[str, None]:
        """Runs a command and yields each line of its output as it comes."""
        raise Unsupported("does not stream")

    async def bulk(self, command: Sequence[str]) -> int:
        """Runs a command, takes all its output, and returns how many bytes that was."""
        raise Unsupported("does not stream")

    def conversation(self, command: Sequence[str]) -> AbstractAsyncContextManager[Ask]:
        """Runs a command that answers each line of its input with one of its output; left, it is killed."""
        raise Unsupported("takes no input")

    async def write(self, path: str, content: bytes) -> None:
        """Writes a file."""
        raise Unsupported("has no files")

    async def read(self, path: str) -> bytes:
        """Returns a file's content."""
        raise Unsupported("has no files")


class Contender(abc.ABC):
    """One way to have commands run. Entered before it is used."""

    package = ""
    """What a program imports for it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    @abc.abstractmethod
    async def create(self) -> Place:
        """Makes a place and returns when it is ready for commands; leaves nothing behind when it fails."""

    @abc.abstractmethod
    async def destroy(self, place: Place) -> None:
        """Removes a place, and returns when it is gone."""

    async def before_create(self) -> None:  # noqa: B027 - most have nothing to wait for
        """Waits until a create can be measured: until a pool is full."""

    def service_pid(self) -> int:
        """Returns the process whose memory is the service's."""
        raise Unsupported("is no service")

    async def processes(self, place: Place) -> Mapping[str, Sequence[int]]:
        """Returns the processes that a place costs, by what they are for."""
        raise Unsupported("has no processes of its own")

    async def start_service(self) -> None:
        """Starts another service, waits until it listens; end_service ends it."""
        raise Unsupported("is no service")

    async def end_service(self) -> None:  # noqa: B027 - most have none
        """Ends what start_service has started."""


class Stage:
    """A contender's place for measurements, made when the first asks for it and kept for all."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self._place: Place | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._place is not None:
            await self.contender.destroy(self._place)

    async def place(self) -> Place:
        """Returns the place."""
        if self._place is None:
            self._place = await self.contender.create()
        return self._place


async def lines_of(pieces: AsyncIterator[bytes]) -> AsyncGenerator[str, None]:
    """Cuts output into lines."""
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace")
    if rest:
        yield rest.decode("utf-8", "replace")


async def checked(program: str, *arguments: str) -> bytes:
    """Runs a program of this machine and returns its output.

    Raises:
        RuntimeError: It failed.
    """
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(program, *arguments, stdout=pipe, stderr=pipe)
    output, errors = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"{program} {' '.join(arguments)}: {errors.decode(errors='replace').strip()[:500]}")
    return output
