"""The byte stream over an exec of an engine, whichever event loop its connection is of."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, Self

from agentic_isolation_service.providers.docker.bridge import BridgeStream


class Connection:
    """A connection as that of uvloop: it does what one of asyncio does, and is of no class of it."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


class Stream:
    """What aiodocker has for an exec that is attached to."""

    def __init__(self) -> None:
        self.transport = Connection()
        self._resp = SimpleNamespace(connection=SimpleNamespace(transport=self.transport))

    async def __aenter__(self) -> Self:
        return self

    async def close(self) -> None:
        pass


class Container:
    """A container in which a bridge can be started."""

    def __init__(self) -> None:
        self.stream = Stream()

    async def show(self) -> dict[str, Any]:
        return {"Config": {"Entrypoint": ["/guest"]}}

    async def exec(self, *_: object, **__: object) -> Any:
        return SimpleNamespace(start=lambda detach: self.stream)

    async def wait(self) -> None:
        await asyncio.Event().wait()


async def test_connection_of_another_event_loop_than_asyncio_s() -> None:
    container: Any = Container()
    bridge = await BridgeStream.open(container)
    bridge.write(b"hello")
    assert container.stream.transport.written == b"hello"
    await bridge.aclose()
