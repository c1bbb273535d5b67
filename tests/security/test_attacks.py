"""Attacks on workspaces from inside, judged as the doctor does, against a real engine with and without gVisor."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from agentic_isolation import ResourceLimits
from agentic_isolation_service.config import LABELS_VARIABLE
from agentic_isolation_service.doctor.arena import Arena
from agentic_isolation_service.doctor.attacks import ATTACKS, Attack, attempt
from agentic_isolation_service.doctor.findings import Outcome
from agentic_isolation_service.doctor.profiles import DEVELOPMENT, LOCAL, PRODUCTION, GVisor, Profile, profiles_of
from tests.engine import Engine

LABEL = f"agentic-isolation.test-attacks={uuid.uuid4().hex}"
RUNC = pytest.param((PRODUCTION, GVisor.NEVER), id="production-runc", marks=pytest.mark.docker)
RUNSC = pytest.param(
    (PRODUCTION, GVisor.REQUIRED), id="production-runsc", marks=[pytest.mark.docker, pytest.mark.gvisor]
)
RELAXED = pytest.param((DEVELOPMENT, GVisor.NEVER), id="development-runc", marks=pytest.mark.docker)

every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=[attack.name for attack in ATTACKS])
one_loop = pytest.mark.asyncio(loop_scope="module")


def containers(engine: Engine) -> list[str]:
    """The names of this test run's containers."""
    listing = engine.api.json("GET", "/containers/json", query={"all": "1", "filters": f'{{"label":["{LABEL}"]}}'})
    return [name for container in listing for name in container["Names"]]


@pytest.fixture(scope="module")
def attacked_engine(engine: Engine) -> Iterator[Engine]:
    """The engine, as workspaces that are embedded here find it. Nothing of them is left in it afterwards."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DOCKER_HOST", engine.docker_host)
        environment.setenv(LABELS_VARIABLE, LABEL)
        yield engine
    assert not containers(engine)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[RUNC, RUNSC, RELAXED])
async def arena(request: pytest.FixtureRequest, attacked_engine: Engine) -> AsyncIterator[Arena]:
    name, gvisor = request.param
    [profile] = profiles_of("docker", (name,), gvisor)
    async with Arena(profile, attacked_engine.images.python) as arena:
        await arena.shared()
        yield arena


@one_loop
@every_attack
async def test_attack_is_held_where_that_is_promised(arena: Arena, attack: Attack) -> None:
    found = await attempt(arena, attack)
    assert not found.breaks_promise, found.detail
    assert found.outcome is not Outcome.NOT_APPLICABLE or attack.name == "other-users", found.detail


@one_loop
async def test_every_probe_is_an_attack(arena: Arena) -> None:
    workspace = await arena.shared()
    listing = await workspace.execute([await arena.guest_in(workspace), "probe", "list"])
    probes = {line.partition("\t")[0] for line in listing.stdout.splitlines()}
    assert len(probes) > 25
    assert probes <= {attack.name for attack in ATTACKS}


@one_loop
@pytest.mark.parametrize("arena", [RUNC], indirect=True)
async def test_memory_bomb_is_told_as_out_of_memory(arena: Arena) -> None:
    [attack] = [attack for attack in ATTACKS if attack.name == "memory-bomb"]
    found = await attempt(arena, attack)
    assert "told as out_of_memory" in found.detail


@one_loop
@pytest.mark.parametrize("arena", [RUNC, RUNSC], indirect=True)
async def test_network_that_is_on_does_not_reach_metadata_addresses(arena: Arena, attacked_engine: Engine) -> None:
    ordinary, link_local = attacked_engine.host_address, attacked_engine.link_local_address
    if ordinary is None or link_local is None:
        pytest.skip("only a private engine has a link-local address that this machine serves")
    async with contextlib.AsyncExitStack() as stack:
        addresses = {}
        for address in (ordinary, link_local):
            server = await asyncio.start_server(lambda _, writer: writer.close(), address, 0)
            stack.push_async_callback(server.wait_closed)
            stack.callback(server.close)
            addresses[address] = f"{address}:{server.sockets[0].getsockname()[1]}"
        workspace = await stack.enter_async_context(arena.fresh(limits=ResourceLimits(network=True)))
        reached = await arena.probe_in(workspace, "connect", addresses[ordinary])
        assert reached.outcome is Outcome.NOT_BLOCKED, f"the control: {reached.detail}"
        found = await arena.probe_in(workspace, "connect", addresses[link_local])
        assert found.outcome is Outcome.BLOCKED, found.detail


@pytest.mark.parametrize(
    "attack", [attack for attack in ATTACKS if LOCAL in attack.promised_by], ids=lambda it: it.name
)
async def test_local_provider_keeps_what_it_promises(attack: Attack) -> None:
    async with Arena(Profile(LOCAL, "local", None)) as arena:
        found = await attempt(arena, attack)
    assert not found.breaks_promise, found.detail
