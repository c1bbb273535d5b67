"""Places of pools count for the service, and are in nobody's way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentic_isolation import QuotaError
from agentic_isolation.models import ResourceLimits, WorkspaceConfig
from agentic_isolation_service.core.caller import OPERATOR
from agentic_isolation_service.core.quotas import Quota, Quotas
from agentic_isolation_service.core.templates import PoolTemplate
from tests.support.eventually import eventually
from tests.unit.fake_provider import FakeProvider, holding
from tests.unit.test_pools import Guests, accept, filled, pool_of

CONFIG = WorkspaceConfig(provider="fake", limits=ResourceLimits(memory="1G"))
OTHER = replace(CONFIG, working_dir="/elsewhere")
TEMPLATE = PoolTemplate(name="fakes", config=CONFIG, min=1, max=2)


@pytest.mark.parametrize("bound", [Quota(memory_bytes=2 << 30), Quota(workspaces=2)], ids=["memory", "workspaces"])
async def test_a_place_goes_where_a_workspace_needs_its_room_and_is_not_made_without(bound: Quota) -> None:
    provider = FakeProvider(Guests(accept))
    async with holding({"fake": lambda: provider}, [TEMPLATE], quotas=Quotas(service=bound)) as workspaces:
        await filled(workspaces)
        [waiting] = provider.guests
        assert (await workspaces.create(OPERATOR, CONFIG)).id == waiting
        await filled(workspaces)
        assert len(provider.guests) == 2
        await workspaces.create(OPERATOR, OTHER)
        await eventually(lambda: len(provider.guests) == 2, "the pool's place has gone")
        with pytest.raises(QuotaError, match="the service has as many as it may"):
            await workspaces.create(OPERATOR, OTHER)
        with pytest.raises(QuotaError):
            await workspaces.create(OPERATOR, CONFIG)
        await eventually(lambda: pool_of(workspaces).last_error, "the pool says that it has no room")
        assert len(provider.guests) == 2
    assert not provider.guests


async def test_a_pool_whose_places_have_no_room_keeps_no_other_pool_from_its_own() -> None:
    provider = FakeProvider(Guests(accept))
    large = PoolTemplate(name="large", config=replace(OTHER, limits=ResourceLimits(memory="8G")), min=1, max=1)
    bound = Quota(memory_bytes=4 << 30)
    async with holding({"fake": lambda: provider}, [large, TEMPLATE], quotas=Quotas(service=bound)) as workspaces:
        await eventually(lambda: [pool.ready for pool in workspaces.describe_pools(OPERATOR)] == [0, 1], "there is one")
        told = [bool(pool.last_error) for pool in workspaces.describe_pools(OPERATOR)]
        assert told == [True, False]
    assert not provider.guests
