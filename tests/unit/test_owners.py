"""Whose workspaces are: what one tenant does is nothing that another one can see, use or be disturbed by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from agentic_isolation.errors import CapacityError, NotAllowedError, WorkspaceNotFoundError
from agentic_isolation.models import WorkspaceConfig
from agentic_isolation_service.core.caller import OPERATOR, Caller
from agentic_isolation_service.core.identity import Identity
from agentic_isolation_service.core.patterns import Pattern
from agentic_isolation_service.core.policy import Policy
from agentic_isolation_service.core.templates import PoolTemplate
from agentic_isolation_service.core.tenants import Tenant, Tenants
from agentic_isolation_service.core.workspaces import Workspaces
from agentic_isolation_service.registry import SqliteRegistry
from tests.support.eventually import eventually
from tests.unit.fake_guest import PATIENCE
from tests.unit.fake_provider import FakeProvider, holding, serve_honestly

CONFIG = WorkspaceConfig(provider="fake")
POLICY = Policy(providers=("fake",), max_lease=400)
TENANTS = Tenants(
    [
        Tenant(name="red", identities=[Pattern("red")], policy=POLICY),
        Tenant(name="blue", identities=[Pattern("blue")], policy=POLICY),
        Tenant(name="none", identities=[Pattern("none")], policy=Policy(providers=())),
        Tenant(name="admins", identities=[Pattern("admin")], policy=POLICY, admin=True),
    ]
)
RED, BLUE, ADMIN = (TENANTS.caller_of(identity) for identity in ("red", "blue", "admin"))


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider(serve_honestly)


@pytest.fixture
async def workspaces(provider: FakeProvider) -> AsyncIterator[Workspaces]:
    async with (
        asyncio.timeout(PATIENCE),
        holding({"fake": lambda: provider}, tenants=TENANTS, max_workspaces=3) as workspaces,
    ):
        yield workspaces


def seen(workspaces: Workspaces, caller: Caller) -> list[str]:
    """Returns what a caller is shown, page by page, and that each of it can be asked for."""
    ids: list[str] = []
    token = ""
    while True:
        page, token = workspaces.page(caller, {}, 1, token)
        ids += [workspaces.get(caller, info.id).info.id for info in page]
        if not token:
            return ids


def gone(workspaces: Workspaces, caller: Caller, workspace_id: str) -> str:
    """Returns what a caller is told of a workspace that is not there for it, but for its id."""
    with pytest.raises(WorkspaceNotFoundError) as refused:
        workspaces.get(caller, workspace_id)
    assert refused.value.field is None
    return refused.value.message.replace(workspace_id, "ID")


async def test_each_sees_its_own_and_admins_all(workspaces: Workspaces) -> None:
    reds = [(await workspaces.create(RED, CONFIG)).id for _ in range(2)]
    blues = [(await workspaces.create(BLUE, CONFIG)).id]
    assert (seen(workspaces, RED), seen(workspaces, BLUE)) == (reds, blues)
    assert seen(workspaces, ADMIN) == seen(workspaces, OPERATOR) == reds + blues
    assert gone(workspaces, BLUE, reds[0]) == gone(workspaces, BLUE, "ws-aaaaaaaaaaaaaaaaaaaa")
    with pytest.raises(WorkspaceNotFoundError):
        await workspaces.destroy(BLUE, reds[0])
    with pytest.raises(WorkspaceNotFoundError):
        await workspaces.renew(BLUE, reds[0])
    assert seen(workspaces, RED) == reds
    await workspaces.destroy(ADMIN, reds[0])
    assert seen(workspaces, RED) == reds[1:]


async def test_token_of_a_page_shows_nobody_elses(workspaces: Workspaces) -> None:
    for caller in (RED, BLUE, RED):
        await workspaces.create(caller, CONFIG)
    _, token = workspaces.page(RED, {}, 1, "")
    page, end = workspaces.page(BLUE, {}, 10, token)
    assert [info.id for info in page] == seen(workspaces, BLUE)
    assert not end


async def test_request_ids_are_each_tenants_own(workspaces: Workspaces, provider: FakeProvider) -> None:
    """At the same time and one after the other, with the same and with other content."""
    other = replace(CONFIG, labels={"a": "b"})
    asked = ((RED, CONFIG), (BLUE, other), (RED, CONFIG))
    asking = [workspaces.create(caller, config, "id") for caller, config in asked]
    red, blue, again = await asyncio.gather(*asking)
    assert red.id == again.id != blue.id
    assert (await workspaces.create(RED, CONFIG, "id")).id == red.id
    assert (await workspaces.create(BLUE, other, "id")).id == blue.id
    admin = await workspaces.create(ADMIN, CONFIG, "id")
    assert admin.id not in (red.id, blue.id), "admins have requests of their own, too"
    await workspaces.destroy(RED, red.id)
    with pytest.raises(WorkspaceNotFoundError):
        await workspaces.create(RED, CONFIG, "id")
    assert len(provider.guests) == 2


async def test_full_service_tells_nobody_how_many_there_are(workspaces: Workspaces) -> None:
    for _ in range(3):
        await workspaces.create(RED, CONFIG)
    with pytest.raises(CapacityError, match="no room") as told:
        await workspaces.create(BLUE, CONFIG)
    assert "3" not in told.value.message
    with pytest.raises(CapacityError, match="has 3 workspaces"):
        await workspaces.create(ADMIN, CONFIG)


async def test_policy_holds_before_anything_is_made(workspaces: Workspaces, provider: FakeProvider) -> None:
    with pytest.raises(NotAllowedError) as refused:
        await workspaces.create(TENANTS.caller_of("none"), CONFIG, "id")
    assert refused.value.field == "provider"
    with pytest.raises(NotAllowedError) as refused:
        await workspaces.create(RED, replace(CONFIG, lease=401))
    assert refused.value.field == "lease_duration"
    with pytest.raises(NotAllowedError) as refused:
        workspaces.pull_image(TENANTS.caller_of("none"), "fake", "image")
    assert refused.value.field == "provider"
    assert not provider.guests
    assert [known.name for known in await workspaces.describe_providers(RED)] == ["fake"]
    assert await workspaces.describe_providers(TENANTS.caller_of("none")) == []


async def test_leases_are_renewed_no_longer_than_they_may_be(workspaces: Workspaces) -> None:
    info = await workspaces.create(RED, CONFIG)
    before = info.lease_expires_at
    with pytest.raises(NotAllowedError) as refused:
        await workspaces.renew(RED, info.id, 401)
    assert refused.value.field == "lease_duration"
    assert await workspaces.renew(RED, info.id, 400) > before
    await workspaces.renew(RED, info.id)


async def test_lowered_bound_that_ends_a_workspace_is_told(
    provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """Clients renew what they have as it was made, and need not look at what becomes of that."""
    lowered = Tenants([Tenant(name="red", identities=[Pattern("red")], policy=replace(POLICY, max_lease=100))])
    async with asyncio.timeout(PATIENCE), SqliteRegistry.open(None) as registry:
        makers, identity = {"fake": lambda: provider}, Identity.new()
        async with Workspaces(makers, registry, identity, lasting=True, tenants=TENANTS) as before:
            info = await before.create(RED, replace(CONFIG, lease=300))
        async with Workspaces(makers, registry, identity, lasting=True, tenants=lowered) as workspaces:
            for asked in (None, 300):
                with pytest.raises(NotAllowedError, match=r"300 s is not for this tenant, .* at most 100 s"):
                    await workspaces.renew(RED, info.id, asked)
            [told] = [record for record in caplog.records if "not renewed any more" in record.message]
            assert (told.levelname, vars(told)["workspace_id"]) == ("WARNING", info.id)
            await workspaces.renew(RED, info.id, 100)
            await workspaces.destroy(RED, info.id)


async def test_pools_of_tenants(provider: FakeProvider) -> None:
    """A place is claimed by those whom its pool is for, and theirs from then on; others have one made."""
    pools = [
        PoolTemplate(name="ours", config=CONFIG, min=1, max=1, tenants=["blue"]),
        PoolTemplate(name="everybodys", config=replace(CONFIG, working_dir="/all"), min=1, max=1),
    ]

    def is_full(workspaces: Workspaces) -> bool:
        return all(pool.ready == 1 for pool in workspaces.describe_pools(OPERATOR))

    async with (
        asyncio.timeout(PATIENCE),
        holding({"fake": lambda: provider}, pools, TENANTS) as workspaces,
    ):
        await eventually(lambda: is_full(workspaces), "the pools are filled")
        waiting = set(provider.guests)
        assert (await workspaces.create(RED, CONFIG)).id not in waiting
        assert (await workspaces.create(OPERATOR, CONFIG)).id not in waiting
        shared = await workspaces.create(RED, pools[1].config)
        own = await workspaces.create(BLUE, CONFIG)
        assert {shared.id, own.id} == waiting
        assert own.id in seen(workspaces, BLUE)
        assert own.id not in seen(workspaces, RED)
        assert workspaces.describe_pools(RED) == workspaces.describe_pools(BLUE) == []
        assert [pool.name for pool in workspaces.describe_pools(ADMIN)] == ["ours", "everybodys"]


async def test_place_comes_from_another_pool_where_the_first_that_fits_has_none(provider: FakeProvider) -> None:
    pools = [
        PoolTemplate(name="ours", config=CONFIG, min=0, max=1, tenants=["blue"]),
        PoolTemplate(name="everybodys", config=CONFIG, min=1, max=1),
    ]
    async with (
        asyncio.timeout(PATIENCE),
        holding({"fake": lambda: provider}, pools, TENANTS) as workspaces,
    ):
        await eventually(lambda: workspaces.describe_pools(OPERATOR)[1].ready == 1, "it is filled")
        [waiting] = provider.guests
        assert (await workspaces.create(BLUE, CONFIG)).id == waiting


async def test_restart_keeps_the_owner(provider: FakeProvider, directory: Path) -> None:
    """Of workspaces that were made, and of those that came out of a pool, with their request ids."""
    pools = [PoolTemplate(name="pool", config=CONFIG, min=1, max=1, tenants=["blue"])]
    identity, providers = Identity.new(), {"fake": lambda: provider}
    async with asyncio.timeout(PATIENCE), SqliteRegistry.open(directory / "registry.db") as registry:
        async with Workspaces(providers, registry, identity, lasting=True, pools=pools, tenants=TENANTS) as first:
            await eventually(lambda: first.describe_pools(OPERATOR)[0].ready == 1, "the pool is filled")
            [waiting] = provider.guests
            blue = await first.create(BLUE, CONFIG, "id")
            assert blue.id == waiting
            red = await first.create(RED, CONFIG, "id")
        async with Workspaces(providers, registry, identity, lasting=True, tenants=TENANTS) as second:
            assert (seen(second, RED), seen(second, BLUE)) == ([red.id], [blue.id])
            assert (await second.create(RED, CONFIG, "id")).id == red.id
            assert (await second.create(BLUE, CONFIG, "id")).id == blue.id
            await second.destroy(RED, red.id)
            await second.destroy(BLUE, blue.id)
