"""Places that a killed process of the service made are found, used and removed by the next one."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from agentic_isolation_service.core.ports import Place, Provider
from agentic_isolation_service.guest import payloads
from agentic_isolation_service.guest.session import GuestSession
from agentic_isolation_service.state import StateDirectory
from tests.engine import Engine
from tests.engine.plugin import RUN_LABEL
from tests.integration.lasting import lasting, listed
from tests.support import proc
from tests.support.engine_leaks import container_of, containers, volumes
from tests.support.eventually import eventually
from tests.support.jobs import new_mark, sleep_for_ever
from tests.support.places import KINDS, PlaceMaker, adopted, config_of, new_id, provider_of, session_of, spec_of, start

kinds = pytest.mark.parametrize("kind", KINDS)


@contextlib.asynccontextmanager
async def providing(kind: str, directory: Path, service_id: str) -> AsyncIterator[Provider]:
    provider = provider_of(kind, service_id, directory)
    try:
        yield provider
    finally:
        await provider.aclose()


@kinds
async def test_places_of_a_killed_process(kind: str, directory: Path) -> None:
    """They are listed, can be entered, say what they have as to whoever made them, and go without a trace."""
    mark = new_mark()
    ids, service_id = [new_id(), new_id()], new_id()
    with PlaceMaker(kind, directory, *ids, service_id=service_id) as maker:
        maker.kill()
        async with providing(kind, directory, service_id) as provider:
            assert await provider.list() == set(ids)
            for workspace_id in ids:
                place = adopted(provider, kind, workspace_id)
                session = session_of(provider, place)
                answer = await session.call({"op": "info"})
                measured, in_gvisor = payloads.isolation(answer, place.runtime), payloads.in_gvisor(answer)
                found = await provider.isolation(place, config_of(kind), measured, in_gvisor=in_gvisor)
                assert found.runtime == place.runtime
                await start(session, sleep_for_ever(mark))
                await session.aclose()
                await provider.destroy(place)
                with pytest.raises(OSError, match=r"gone|No such file"):
                    await provider.connect(place)
                assert workspace_id not in await provider.list()
                await provider.destroy(place)
    assert not proc.mentioning(mark)
    assert kind != "local" or not list((directory / "w").iterdir())


@kinds
async def test_removing_a_place_that_never_was(kind: str, directory: Path) -> None:
    async with providing(kind, directory, new_id()) as provider:
        await provider.destroy(Place(new_id(), ""))
        assert await provider.list() == frozenset()


@kinds
async def test_place_that_was_never_finished(kind: str, directory: Path) -> None:
    """Nobody was told of it: the next service removes it at once, and does not wait for its lease."""
    async with lasting(directory) as service:
        async with service.running():
            pass
        await service.end(signal.SIGTERM)
        async with StateDirectory.open(service.state) as state:
            identity = state.identity
        workspace_id = new_id()
        async with providing(kind, service.state, identity.service_id) as provider:
            spec = replace(spec_of(kind, workspace_id), key=identity.guest_key(workspace_id))
            place = await provider.create(spec)
            session = GuestSession(workspace_id, spec.key, lambda: provider.connect(place))
            await session.call({"op": "info"})
            await session.aclose()
            async with service.running() as stub:
                assert not await listed(stub)

                async def has_gone() -> bool:
                    return not await provider.list()

                await eventually(has_gone, "it is removed")


@pytest.mark.docker
async def test_services_on_one_engine_do_not_see_each_other(engine: Engine, directory: Path) -> None:
    """What they have made says whose it is, and they find only that."""
    services, workspaces = [new_id() for _ in range(3)], [new_id() for _ in range(2)]
    async with contextlib.AsyncExitStack() as stack:
        one, two, three = [await stack.enter_async_context(providing("runc", directory, each)) for each in services]
        places = await asyncio.gather(
            one.create(spec_of("runc", workspaces[0])), two.create(spec_of("runc", workspaces[1]))
        )
        try:
            assert await one.list() == {workspaces[0]}
            assert await two.list() == {workspaces[1]}
            assert await three.list() == frozenset()
            for service_id, workspace_id in zip(services, workspaces, strict=False):
                label = f"agentic-isolation.service={service_id}"
                assert len(volumes(engine, label)) == 1
                [container] = containers(engine, label)
                assert container["Names"] == [f"/agentic-{workspace_id}"]
        finally:
            await asyncio.gather(one.destroy(places[0]), two.destroy(places[1]))


@pytest.mark.docker
async def test_only_containers_that_may_have_a_living_guest_are_listed(engine: Engine, directory: Path) -> None:
    whole, half, service_id = new_id(), new_id(), new_id()
    name, _, value = RUN_LABEL.partition("=")
    labels = {
        "agentic-isolation": "workspace",
        "agentic-isolation.service": service_id,
        "agentic-isolation.workspace-id": half,
        name: value,
    }
    half_made = {"Image": engine.images.tiny, "Cmd": ["true"], "Labels": labels}
    async with providing("runc", directory, service_id) as provider:
        place = await provider.create(spec_of("runc", whole))
        engine.api.json("POST", "/containers/create", query={"name": f"agentic-{half}"}, content=half_made)
        try:
            assert await provider.list() == {whole}
            container = container_of(engine, whole)
            engine.api.request("POST", f"/containers/{container}/pause")
            assert await provider.list() == {whole}
            engine.api.request("POST", f"/containers/{container}/unpause")
            engine.api.request("POST", f"/containers/{container}/kill")

            async def none_is_listed() -> bool:
                return not await provider.list()

            await eventually(none_is_listed, "a container that was killed is not listed")
        finally:
            await provider.destroy(place)
            await provider.destroy(Place(half, ""))
        assert not containers(engine, f"agentic-isolation.service={service_id}")


@kinds
async def test_service_that_ends_gracefully_leaves_its_places(kind: str, directory: Path) -> None:
    """A provider that was closed has let go of the guests, and nothing ends them but their leases or a successor."""
    workspace_id, service_id = new_id(), new_id()
    async with providing(kind, directory, service_id) as first:
        place = await first.create(spec_of(kind, workspace_id))
    async with providing(kind, directory, service_id) as second:
        assert await second.list() == {workspace_id}
        adopted(second, kind, workspace_id)
        session = session_of(second, place)
        await session.call({"op": "info"})
        await session.aclose()
        await second.destroy(place)
        assert await second.list() == frozenset()
