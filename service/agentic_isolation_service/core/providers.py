"""The providers of a service, each made when it is first asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation_service.core.ports import Provider


class Providers:
    """What workspaces can be made from, by name.

    Args:
        makers: Make each of them. Does no I/O.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Provider]]) -> None:
        self._makers = makers
        self._made: dict[str, Provider] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._makers

    def __iter__(self) -> Iterator[Provider]:
        return (self.get(name) for name in self._makers)

    def get(self, name: str) -> Provider:
        """Returns a provider.

        Raises:
            InvalidArgumentError: There is none of that name.
        """
        if name not in self._makers:
            known = " or ".join(repr(known) for known in self._makers)
            raise InvalidArgumentError(f"there is no provider {name!r}; use {known}", field="provider")
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    async def aclose(self) -> None:
        """Closes those that were made. May be called twice."""
        await asyncio.gather(*(provider.aclose() for provider in self._made.values()))
