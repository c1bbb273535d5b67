"""A provider whose places are fake guests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable, Mapping, Sequence

from agentic_isolation.images import PullEvent
from agentic_isolation.models import Isolation, ProviderInfo, ResourceUsage, WorkspaceConfig
from agentic_isolation_service.core.caller import OPERATOR
from agentic_isolation_service.core.identity import Identity
from agentic_isolation_service.core.ports import ByteStream, Place, PlaceSpec, Provider
from agentic_isolation_service.core.quotas import UNBOUND, Quotas
from agentic_isolation_service.core.templates import PoolTemplate
from agentic_isolation_service.core.tenants import Tenants
from agentic_isolation_service.core.workspaces import DEFAULT_MAX_WORKSPACES, Workspaces
from agentic_isolation_service.guest.frames import FrameType
from agentic_isolation_service.registry import SqliteRegistry
from tests.unit.fake_guest import EXITED, FILE, INFO, FakeGuest, GuestEnd, Script, started


class FakeProvider:
    """Makes places that are nothing but a guest with a script, which is run after the handshake."""

    name = "fake"

    def __init__(self, script: Script) -> None:
        self._script = script
        self.guests: dict[str, FakeGuest] = {}
        """The places that are there, by workspace."""
        self.image = ""
        """What every image stands for."""
        self.closed = False

    def check(self, config: WorkspaceConfig) -> None:
        pass

    def with_defaults(self, config: WorkspaceConfig) -> WorkspaceConfig:
        return config

    def shape(self, config: WorkspaceConfig) -> Hashable:
        return config.working_dir

    async def image_id(self, config: WorkspaceConfig) -> str:
        return self.image

    async def create(self, spec: PlaceSpec) -> Place:
        self.guests[spec.workspace_id] = FakeGuest(self._script, workspace_id=spec.workspace_id, key=spec.key)
        return Place(spec.workspace_id, runtime="fake")

    def pull(self, image: str) -> AsyncGenerator[PullEvent, None]:
        raise NotImplementedError

    async def list(self) -> frozenset[str]:
        return frozenset(self.guests)

    def adopt(self, place: Place) -> None:
        pass

    async def connect(self, place: Place) -> ByteStream:
        if place.workspace_id not in self.guests:
            raise ConnectionRefusedError("nothing is there any more")
        return await self.guests[place.workspace_id].connect()

    async def exhausted(self, place: Place, *, wait: bool) -> bool:
        return False

    async def destroy(self, place: Place, *, ending: bool = False) -> None:
        guest = self.guests.pop(place.workspace_id, None)
        if guest is not None:
            await guest.__aexit__(None, None, None)

    async def isolation(
        self, place: Place, config: WorkspaceConfig, measured: Isolation, *, in_gvisor: bool
    ) -> Isolation:
        return measured

    async def usage(self, place: Place) -> ResourceUsage:
        return ResourceUsage()

    async def describe(self) -> ProviderInfo:
        return ProviderInfo(self.name, available=True)

    async def aclose(self) -> None:
        self.closed = True


async def serve_honestly(end: GuestEnd) -> None:
    """The script of a guest that keeps the protocol: commands succeed and print their arguments."""
    while True:
        channel, operation = await end.operation()
        match operation["op"]:
            case "run":
                text = " ".join(operation["argv"]).encode()
                counts = {"total": len(text), "omitted": 0}
                await end.send_json(FrameType.EVENT, channel, started(operation))
                await end.send(FrameType.STDOUT, channel, text)
                await end.send_json(FrameType.RESULT, channel, EXITED | {"stdout": counts})
            case "stat":
                await end.send_json(FrameType.RESULT, channel, FILE | {"path": operation["path"]})
            case "lease" | "remember" | "claim":
                await end.send_json(FrameType.RESULT, channel, {})
            case "info":
                await end.send_json(FrameType.RESULT, channel, INFO)
            case other:
                await end.send_json(FrameType.ERROR, channel, {"reason": "BAD_REQUEST", "message": f"no {other!r}"})


async def just_made(workspaces: Workspaces) -> None:
    """Returns as soon as there is a workspace, before whoever waits for it is woken."""
    while not workspaces.page(OPERATOR, {}, 1, "")[0]:  # noqa: ASYNC110  nothing tells within the same turn
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def holding(
    makers: Mapping[str, Callable[[], Provider]],
    pools: Sequence[PoolTemplate] = (),
    tenants: Tenants | None = None,
    *,
    max_workspaces: int = DEFAULT_MAX_WORKSPACES,
    quotas: Quotas = UNBOUND,
) -> AsyncIterator[Workspaces]:
    """Opens workspaces of these providers, with a registry in memory."""
    async with (
        SqliteRegistry.open(None) as registry,
        Workspaces(
            makers,
            registry,
            Identity.new(),
            pools=pools,
            tenants=tenants,
            max_workspaces=max_workspaces,
            quotas=quotas,
        ) as workspaces,
    ):
        yield workspaces
