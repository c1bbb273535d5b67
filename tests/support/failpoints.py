"""A service that kills itself at a point that a test names: before or after any of its effects on what is outside.

`python -m tests.support.failpoints serve ...` is `agentic-isolation serve ...`, with wrappers around its effects. What
it is to do at them is in a file, which the test writes and removes while it runs. Production code has no hooks.
"""

from __future__ import annotations

import functools
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ORDERS_VARIABLE = "FAILPOINTS"
"""Names the directory of the files below."""
RECORD = "record"
"""The order to fail nowhere, and to note which points are met."""
_ORDER, _MET = "failpoint", "failpoints-met"


@dataclass(frozen=True, slots=True)
class Failpoint:
    """The instant before or after the n-th effect of a name, counted from when the order was given."""

    effect: str
    number: int
    when: str

    def __str__(self) -> str:
        return f"{self.when} {self.effect} {self.number}"


class Orders:
    """What a service in another process is to do, as its test says it."""

    def __init__(self, directory: Path) -> None:
        self._order, self._met = directory / _ORDER, directory / _MET

    def give(self, order: Failpoint | str) -> None:
        """Says where to fail, or RECORD; takes effect at once and as a whole."""
        self._met.unlink(missing_ok=True)
        unfinished = self._order.with_suffix(".new")
        unfinished.write_text(str(order))
        unfinished.rename(self._order)

    def take_back(self) -> list[Failpoint]:
        """Says to fail nowhere, and returns the points that were met."""
        self._order.unlink(missing_ok=True)
        lines = self._met.read_text().splitlines() if self._met.exists() else []
        return [Failpoint(effect, int(number), when) for when, effect, number in map(str.split, lines)]


class _Points:
    def __init__(self, directory: Path) -> None:
        self._order, self._met = directory / _ORDER, directory / _MET
        self._counts: Counter[str] = Counter()
        self._counted_for = ""

    def begins(self, effect: str) -> int:
        """Returns which of its name this effect is since the order; 0 where there is no order."""
        order = self._read()
        if order != self._counted_for:
            self._counts.clear()
            self._counted_for = order
        self._counts[effect] += 1
        return self._counts[effect] if order else 0

    def reach(self, effect: str, number: int, when: str) -> None:
        """Notes that a point was met, and ends the process there where that is the order."""
        order, point = self._read(), str(Failpoint(effect, number, when))
        if order == RECORD and number:
            with self._met.open("a") as met:
                met.write(point + "\n")
        if order == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def _read(self) -> str:
        try:
            return self._order.read_text()
        except FileNotFoundError:
            return ""


def _wrap(points: _Points, owner: type, method: str, name: Callable[..., str]) -> None:
    """Puts points around an asynchronous method; `name` makes the effect's name from its arguments."""
    original: Callable[..., Awaitable[Any]] = getattr(owner, method)

    @functools.wraps(original)
    async def wrapped(*args: Any, **options: Any) -> Any:
        effect = name(*args, **options)
        number = points.begins(effect)
        points.reach(effect, number, "before")
        result = await original(*args, **options)
        points.reach(effect, number, "after")
        return result

    # A class method that was looked up is bound already.
    bound = isinstance(owner.__dict__[method], classmethod)
    setattr(owner, method, staticmethod(wrapped) if bound else wrapped)


def _wrap_all(points: _Points) -> None:
    from aiodocker.containers import DockerContainer, DockerContainers

    from agentic_isolation_service.guest.session import GuestSession
    from agentic_isolation_service.providers.docker import DockerProvider
    from agentic_isolation_service.providers.local import LocalProvider
    from agentic_isolation_service.providers.local.process import GuestProcess
    from agentic_isolation_service.registry import SqliteRegistry

    effects: list[tuple[str, type, tuple[str, ...]]] = [
        ("registry", SqliteRegistry, ("put", "remove", "renew")),
        ("local", LocalProvider, ("create", "connect", "destroy", "isolation", "list")),
        ("docker", DockerProvider, ("create", "connect", "destroy", "isolation", "list")),
        ("process", GuestProcess, ("start", "end")),
        ("containers", DockerContainers, ("create",)),
        ("container", DockerContainer, ("start", "delete")),
    ]
    for what, owner, methods in effects:
        for method in methods:
            _wrap(points, owner, method, functools.partial(_name, f"{what}.{method}"))
    for method in ("call", "open"):
        _wrap(points, GuestSession, method, functools.partial(_operation, method))


def _name(name: str, /, *_args: object, **_options: object) -> str:
    return name


def _operation(method: str, _session: object, operation: dict[str, object], **_options: object) -> str:
    return f"{method}.{operation['op']}"


if __name__ == "__main__":
    from agentic_isolation_service.cli import main

    _wrap_all(_Points(Path(os.environ[ORDERS_VARIABLE])))
    main()
