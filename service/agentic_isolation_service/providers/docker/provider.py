"""Workspaces that are containers of a Docker Engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Hashable, Mapping, Sequence
from dataclasses import replace

import aiodocker
from aiodocker.containers import DockerContainer

from agentic_isolation._cleanup import finish
from agentic_isolation.errors import (
    IsolationUnavailableError,
    ProviderUnavailableError,
    WorkspaceLostError,
)
from agentic_isolation.images import PullEvent
from agentic_isolation.models import (
    Isolation,
    NetworkMode,
    ProviderInfo,
    ResourceLimits,
    SecurityConfig,
    WorkspaceConfig,
)
from agentic_isolation_service.core.ports import ByteStream, Place, PlaceSpec
from agentic_isolation_service.guest.binary import guest_binary
from agentic_isolation_service.providers.docker.bridge import BridgeStream
from agentic_isolation_service.providers.docker.container import (
    DEFAULT_DISK_BYTES,
    DEFAULT_MEMORY_BYTES,
    DEFAULT_OPEN_FILES,
    DEFAULT_USER,
    GUEST_PATH,
    GVISOR_RUNTIME,
    LABEL,
    SERVICE_LABEL,
    WORKSPACE_LABEL,
    ContainerPlan,
    ErrandPlan,
    check_mounts,
    check_sandbox,
    check_working_dir,
    container_name,
    default_cpu_millis,
    pids_limit_of,
    shape_of,
    with_defaults,
)
from agentic_isolation_service.providers.docker.creation import STALE_AFTER, Sweeper
from agentic_isolation_service.providers.docker.direct import DirectWay, GoneError
from agentic_isolation_service.providers.docker.empty_image import empty_image
from agentic_isolation_service.providers.docker.engine import LOOK_TIMEOUT, NOT_CONNECTED, SERVER_FAILS, Engine
from agentic_isolation_service.providers.docker.guest_volume import ensure_guest_volume
from agentic_isolation_service.providers.docker.images import Images, check_image
from agentic_isolation_service.providers.docker.isolation import mount_shortfalls, read_back, shortfalls
from agentic_isolation_service.providers.docker.memory import MemoryWatch
from agentic_isolation_service.providers.docker.network import Networks
from agentic_isolation_service.providers.docker.starting import start_planned

_REMOVAL_TIMEOUT = 30.0
_GUEST_END = 2.0
"""Seconds for a guest to end by itself, and its container with it."""
_POLL = 0.05
_TURNS_PER_CPU = 4
_FEWEST_TURNS = 8
"""Containers that are made at a time, by the engine's CPUs; more wait for their turn."""
_RUNC = "runc"
_DOES_NOT_TELL = "does not tell of the container"
_GONE = "gone"
_STARTED = ("running", "paused", "restarting")
_LIVING = ("created", *_STARTED)
_log = logging.getLogger(__name__)


class DockerProvider:
    """Makes containers on one engine.

    Args:
        host: The engine, as DOCKER_HOST spells it; None: DOCKER_HOST, else the standard socket.
        service_id: Whose the workspaces are: the same in all processes of a service, and in no other service.
        default_image: Image of workspaces that name none.
        labels: Put on everything that is created, beside the provider's own.
        dns: Name servers of workspaces with a network; none: the engine's.
        stale_after: Seconds after which a container with these labels that nobody has started is removed.
    """

    name = "docker"

    def __init__(
        self,
        host: str | None = None,
        *,
        service_id: str,
        default_image: str,
        labels: Mapping[str, str] | None = None,
        dns: Sequence[str] = (),
        stale_after: float = STALE_AFTER,
    ) -> None:
        self._engine = Engine(host)
        self._default_image = default_image
        self._labels = {LABEL: "workspace", **(labels or {})}
        # Not with those of the settings, which may be others in the service's next process.
        self._own_labels = {LABEL: self._labels[LABEL], SERVICE_LABEL: service_id}
        self._direct = DirectWay(self._engine.host)
        self._memory = MemoryWatch(self._engine, self._own_labels)
        self._sweeper = Sweeper(self._labels, stale_after=stale_after)
        self._guest_volume: str | None = None
        self._filling = asyncio.Lock()
        self._turns: asyncio.Semaphore | None = None
        self._networks = Networks(dns)
        self._images = Images()

    def check(self, config: WorkspaceConfig) -> None:
        """Refuses a malformed image name, and what would hide what the container needs."""
        if config.image:
            check_image(config.image)
        check_working_dir(config.working_dir)
        check_mounts(config)

    def with_defaults(self, config: WorkspaceConfig) -> WorkspaceConfig:
        """Returns what the container would have."""
        return with_defaults(replace(config, image=config.image or self._default_image))

    def shape(self, config: WorkspaceConfig) -> Hashable:
        """Returns what the container's configuration is made from."""
        return shape_of(replace(config, image=config.image or self._default_image))

    async def image_id(self, config: WorkspaceConfig) -> str:
        """Asks the engine."""
        async with self._engine.client() as client:
            return await self._images.id_of(client, config.image or self._default_image)

    async def create(self, spec: PlaceSpec) -> Place:
        """Creates and starts the container."""
        image = spec.config.image or self._default_image
        async with self._engine.client() as client:
            runtime = await self._runtime(spec.config.security or SecurityConfig.production())
            place = Place(spec.workspace_id, runtime=runtime or (await self._engine.facts()).default_runtime)
            if place.runtime == GVISOR_RUNTIME:
                check_sandbox(spec.config.limits or ResourceLimits())
            await self._images.ensure(client, image)
            await self._sweeper.sweep(client)
            try:
                self.adopt(place)
                async with await self._turn():
                    await self._make(client, spec, image, runtime)
            except aiodocker.DockerError as error:
                await finish(self._discard(client, spec.workspace_id))
                if error.status >= SERVER_FAILS:
                    raise
                raise IsolationUnavailableError(f"the engine refused the container: {error.message}") from error
            except BaseException:
                await finish(self._discard(client, spec.workspace_id))
                raise
        return place

    async def pull(self, image: str) -> AsyncGenerator[PullEvent, None]:
        """Has the engine pull the image if it lacks it."""
        if image:
            check_image(image)
        async with (
            self._engine.client() as client,
            contextlib.aclosing(self._images.pull(client, image or self._default_image)) as events,
        ):
            async for event in events:
                yield event

    async def list(self) -> frozenset[str]:
        """Returns the workspaces of this service that have a container which runs, is paused or is started again.

        Containers go by themselves when they end. Those that never began are swept on the way: see Sweeper.
        """
        labels = [f"{name}={value}" for name, value in self._own_labels.items()]
        filters = json.dumps({"label": labels, "status": _STARTED})
        await self._engine.facts()  # tells whether it is an engine at all
        try:
            async with self._engine.client() as client, asyncio.timeout(LOOK_TIMEOUT):
                found = await client.containers.list(all=True, filters=filters)
            async with self._engine.client() as client:
                await self._sweeper.sweep(client)
        except aiodocker.DockerError as error:
            raise ProviderUnavailableError(
                f"the Docker Engine at {self._engine.host} lists no containers: {error.message}"
            ) from error
        return frozenset(container["Labels"][WORKSPACE_LABEL] for container in found)

    def adopt(self, place: Place) -> None:
        """Watches the container's memory."""
        self._memory.add(container_name(place.workspace_id), sandbox=place.runtime == GVISOR_RUNTIME)

    async def connect(self, place: Place) -> ByteStream:
        """Connects to the guest's socket, or starts a bridge in the container."""
        name = container_name(place.workspace_id)
        if cause := self._memory.cause(name):
            raise GoneError(cause)
        async with self._engine.client() as client:
            container = client.containers.container(name)
            try:
                stream = await self._direct.open(container, name, place.runtime)
            except GoneError as error:
                raise GoneError(await self._memory.cause_of_end(name, noticed=False) or str(error)) from None
            if stream is not None:
                return stream
            try:
                return await BridgeStream.open(container)
            except aiodocker.DockerError as error:
                if error.status == NOT_CONNECTED:
                    raise
                state = await _state_of(container)
                if state not in _LIVING:
                    raise GoneError(await self._memory.cause_of_end(name) or f"its container is {state}") from error
                raise ProviderUnavailableError(
                    f"the Docker Engine at {self._engine.host} opens no way into the container, "
                    f"which is {state}: {error.message}"
                ) from error

    async def exhausted(self, place: Place, *, wait: bool) -> bool:
        """Returns whether the engine has told so, of a sandbox of gVisor's; in other containers the guest can tell."""
        return await self._memory.exhausted(container_name(place.workspace_id), wait=wait)

    async def destroy(self, place: Place, *, ending: bool = False) -> None:
        """Removes the container with its volumes, and waits until the engine has none of that name."""
        name = container_name(place.workspace_id)
        self._forget(name)
        async with self._engine.client() as client:
            if ending:
                await _ended(client.containers.container(name))
            with self._engine.refusals(_DOES_NOT_TELL):
                await self._remove(client, place.workspace_id)

    async def isolation(
        self, place: Place, config: WorkspaceConfig, measured: Isolation, *, in_gvisor: bool
    ) -> Isolation:
        """Returns what the guest measured, with the limits that the engine holds; refuses less than was asked for."""
        async with self._engine.client() as client:
            with self._engine.refusals(_DOES_NOT_TELL):
                try:
                    container = await client.containers.container(container_name(place.workspace_id)).show()
                except aiodocker.DockerError as error:
                    if error.status != 404:
                        raise
                    raise WorkspaceLostError("the container has ended at once; see the engine's log") from error
            found = read_back(measured, container, config.working_dir)
        missing = [*shortfalls(found, config, in_gvisor=in_gvisor), *mount_shortfalls(container, config.mounts)]
        if missing:
            raise IsolationUnavailableError(
                f"the engine at {self._engine.host} does not hold what was asked for: {'; '.join(missing)}"
            )
        return found

    async def describe(self) -> ProviderInfo:
        """Returns what a workspace that asks for nothing gets on this engine."""
        try:
            facts = await self._engine.facts()
            guest_binary("linux", facts.architecture)
        except ProviderUnavailableError as error:
            return ProviderInfo(self.name, available=False, unavailable_reason=str(error))
        runtime = GVISOR_RUNTIME if GVISOR_RUNTIME in facts.runtimes else facts.default_runtime
        isolation = Isolation(
            runtime=runtime,
            user=DEFAULT_USER,
            no_new_privileges=True,
            seccomp="disabled" if runtime == GVISOR_RUNTIME else "filter",  # gVisor's kernel has none
            read_only_root=True,
            network=NetworkMode.NONE,
            cpu_millis=default_cpu_millis(facts.cpus),
            memory_bytes=DEFAULT_MEMORY_BYTES,
            disk_bytes=DEFAULT_DISK_BYTES,
            open_files=DEFAULT_OPEN_FILES,
            pids_limit=pids_limit_of(SecurityConfig.production()),
        )
        return ProviderInfo(self.name, available=True, isolation=isolation)

    async def aclose(self) -> None:
        """Closes the connection to the engine. Containers stay."""
        await self._memory.aclose()
        await self._engine.aclose()

    async def _runtime(self, security: SecurityConfig) -> str:
        facts = await self._engine.facts()
        available = GVISOR_RUNTIME in facts.runtimes
        if security.use_gvisor and not available:
            known = ", ".join(sorted(facts.runtimes)) or "none"
            raise IsolationUnavailableError(
                f"the Docker Engine at {self._engine.host} has no gVisor (its runtimes: {known}); install runsc and "
                "register it with `runsc install`, or leave use_gvisor unset to take what there is",
                field="security.use_gvisor",
            )
        if security.use_gvisor is not False:
            return GVISOR_RUNTIME if available else ""
        if facts.default_runtime != GVISOR_RUNTIME:
            return ""
        if _RUNC not in facts.runtimes:
            raise IsolationUnavailableError(
                f"the Docker Engine at {self._engine.host} runs everything under gVisor; leave use_gvisor unset",
                field="security.use_gvisor",
            )
        return _RUNC

    async def _turn(self) -> asyncio.Semaphore:
        """Returns what bounds the containers in the making: more at a time would only take longer, all of them."""
        if self._turns is None:
            cpus = (await self._engine.facts()).cpus
            # The first ones may all have asked at a time, and have to wait for each other.
            self._turns = self._turns or asyncio.Semaphore(max(_FEWEST_TURNS, _TURNS_PER_CPU * cpus))
        return self._turns

    async def _volume(self, client: aiodocker.Docker, *, known: str | None = None) -> str:
        """Returns the guest's volume; one that is `known` to be empty is filled again."""
        async with self._filling:
            if self._guest_volume is None or self._guest_volume == known:
                binary = guest_binary("linux", (await self._engine.facts()).architecture)
                with self._engine.refusals("refused to take the guest"):
                    self._guest_volume = await ensure_guest_volume(client, binary, doubted=known is not None)
            return self._guest_volume

    async def _make(self, client: aiodocker.Docker, spec: PlaceSpec, image: str, runtime: str) -> None:
        volume = await self._volume(client)
        cpu_millis = default_cpu_millis((await self._engine.facts()).cpus)
        plan = ContainerPlan(spec, image, runtime, volume, self._labels | self._own_labels, cpu_millis)
        try:
            return await self._start(client, plan)
        except aiodocker.DockerError as error:
            if not any(path in error.message for path in (plan.guest_path, GUEST_PATH)):
                raise
        # Somebody has pruned the engine's volumes since, and the engine has made an empty one.
        await self._remove(client, spec.workspace_id)
        volume = await self._volume(client, known=volume)
        return await self._start(client, replace(plan, guest_volume=volume))

    async def _start(self, client: aiodocker.Docker, plan: ContainerPlan) -> None:
        limits = plan.spec.config.limits
        if limits is not None and limits.network:
            # gVisor has a network of its own, in which an errand would change nothing of the host's.
            runtime = _RUNC if _RUNC in (await self._engine.facts()).runtimes else ""
            errand = ErrandPlan(await empty_image(client), runtime, plan.guest_volume, plan.labels)
            network = await self._networks.ensure(client, errand)
            plan = replace(plan, network_id=network.id, resolvers=network.resolvers)
        await start_planned(client, plan)

    async def _discard(self, client: aiodocker.Docker, workspace_id: str) -> None:
        """Removes what a creation that has failed may have left; that failure is what its caller is told."""
        self._forget(container_name(workspace_id))
        try:
            await self._remove(client, workspace_id)
        except (aiodocker.DockerError, TimeoutError, ProviderUnavailableError):
            _log.warning("a container may be left in the engine", extra={"workspace_id": workspace_id})

    def _forget(self, name: str) -> None:
        self._memory.discard(name)
        self._direct.discard(name)

    async def _remove(self, client: aiodocker.Docker, workspace_id: str) -> None:
        container: DockerContainer = client.containers.container(container_name(workspace_id))
        async with asyncio.timeout(_REMOVAL_TIMEOUT):
            while True:
                # 409: its removal is under way, by itself (AutoRemove) or by somebody else.
                with contextlib.suppress(aiodocker.DockerError):
                    await container.delete(force=True, v=True)
                if await _state_of(container) == _GONE:
                    return
                await asyncio.sleep(_POLL)


async def _ended(container: DockerContainer) -> None:
    """Waits for a container whose guest is ending to be removed by the engine (AutoRemove), or for it to take too long.

    To kill a gVisor sandbox with many processes in it is worse: while it runs the kill, containerd 1.6's shim takes no
    more than 32 ends of processes in, and then waits for itself.
    """
    with contextlib.suppress(aiodocker.DockerError, TimeoutError):
        async with asyncio.timeout(_GUEST_END):
            await container.wait(condition="removed")


async def _state_of(container: DockerContainer) -> str:
    """Returns the engine's word for a container's state, or that it is gone."""
    try:
        async with asyncio.timeout(LOOK_TIMEOUT):
            return str((await container.show())["State"]["Status"])
    except aiodocker.DockerError as error:
        if error.status != 404:
            raise
        return _GONE
