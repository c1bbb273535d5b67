"""Places without a core above them: what providers make, and a program that makes some and is killed.

`python -m tests.support.places KIND SERVICE_ID DIRECTORY MEMORY WORKSPACE_ID...` makes places, prints `ready`, and then
does nothing and does not end.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from agentic_isolation import ResourceLimits, SecurityConfig, WorkspaceConfig
from agentic_isolation_service.config import DockerConfig
from agentic_isolation_service.core.ports import Place, PlaceSpec, Provider
from agentic_isolation_service.guest.frames import FrameType
from agentic_isolation_service.guest.session import GuestSession
from agentic_isolation_service.providers.docker import DockerProvider
from agentic_isolation_service.providers.local import LocalProvider
from tests.support.program import Program
from tests.support.ways import LEASE

KEY = bytes(range(32))
RUNTIMES = {"local": "local", "runc": "runc", "gvisor": "runsc"}
"""What places of a kind run under."""
KINDS = [
    "local",
    pytest.param("runc", marks=pytest.mark.docker),
    pytest.param("gvisor", marks=[pytest.mark.docker, pytest.mark.gvisor]),
]
"""All kinds, for parametrize."""


def new_id() -> str:
    """Returns an id for a workspace or a service that nobody else has in an engine that is shared."""
    return f"test-{secrets.token_hex(8)}"


def provider_of(kind: str, service_id: str, directory: Path) -> Provider:
    """Returns a new provider for places of a kind."""
    if kind == "local":
        return LocalProvider(directory)
    engine = DockerConfig.from_environment()
    return DockerProvider(service_id=service_id, default_image=engine.image, labels=engine.labels)


def config_of(kind: str, memory: str = "") -> WorkspaceConfig:
    if kind == "local":
        return WorkspaceConfig(provider="local", lease=LEASE)
    security = SecurityConfig(use_gvisor=kind == "gvisor")
    return WorkspaceConfig(security=security, limits=ResourceLimits(memory=memory or None), lease=LEASE)


def spec_of(kind: str, workspace_id: str, memory: str = "") -> PlaceSpec:
    return PlaceSpec(workspace_id, config_of(kind, memory), KEY)


def adopted(provider: Provider, kind: str, workspace_id: str) -> Place:
    """Takes a place in hand of which only the record is known."""
    place = Place(workspace_id, RUNTIMES[kind])
    provider.adopt(place)
    return place


def session_of(provider: Provider, place: Place) -> GuestSession:
    """Returns a session with the guest of a place, to be closed."""
    return GuestSession(place.workspace_id, KEY, lambda: provider.connect(place))


async def start(session: GuestSession, argv: Sequence[str]) -> None:
    """Starts a process that goes on when the session has been closed."""
    channel = await session.open({"op": "run", "process_id": "p", "argv": list(argv), "linger_ms": -1})
    started = await channel.receive()
    assert started.type is FrameType.EVENT, started


class PlaceMaker(Program):
    """The program of this module, which has made its places.

    Args:
        kind: The places' kind.
        directory: Where local ones are.
        workspace_ids: Their workspaces.
        service_id: The service that makes them.
        memory: What each may use; nothing: the default.
    """

    def __init__(self, kind: str, directory: Path, *workspace_ids: str, service_id: str, memory: str = "") -> None:
        arguments = [kind, service_id, str(directory), memory, *workspace_ids]
        super().__init__("tests.support.places", *arguments, name="the maker of places")


async def _main(kind: str, service_id: str, directory: str, memory: str, *workspace_ids: str) -> None:
    provider = provider_of(kind, service_id, Path(directory))
    await asyncio.gather(*(provider.create(spec_of(kind, each, memory)) for each in workspace_ids))
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
