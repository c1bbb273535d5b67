"""Quotas: what they count, what they say, and that nothing is left counted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, cast

import pytest

from agentic_isolation import QuotaError, ResourceLimits, WorkspaceConfig
from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation_service.core.caller import OPERATOR, Caller
from agentic_isolation_service.core.patterns import Pattern
from agentic_isolation_service.core.policy import ANYTHING
from agentic_isolation_service.core.quotas import Commitment, InUse, Pace, Quota, Quotas, Rate
from agentic_isolation_service.core.tenants import Tenant, Tenants
from agentic_isolation_service.core.workspaces import Workspaces
from agentic_isolation_service.rpc.calls import Call
from agentic_isolation_service.rpc.quotas import QuotaLayer
from tests.unit.fake_guest import GuestEnd
from tests.unit.fake_provider import FakeProvider, holding, serve_honestly

GIB = 1 << 30
A, B = (Caller(identity=name, tenant=name) for name in "ab")
TENANTS = Tenants([Tenant(name=name, identities=[Pattern(name)], policy=ANYTHING) for name in "ab"])


def config(memory: str | None = None, cpu: float | None = None) -> WorkspaceConfig:
    return WorkspaceConfig(provider="fake", limits=ResourceLimits(memory=memory, cpu=cpu))


def quotas(service: Mapping[str, int] | None = None, **tenant: int) -> Quotas:
    return Quotas(service=Quota(**(service or {})), default=Quota(**tenant))


@contextlib.asynccontextmanager
async def serving(bounds: Quotas, provider: FakeProvider | None = None) -> Any:
    made = provider or FakeProvider(serve_honestly)
    async with holding({"fake": lambda: made}, tenants=TENANTS, quotas=bounds) as workspaces:
        yield workspaces


@contextlib.contextmanager
def refused(subject: str, *, words: str) -> Any:
    with pytest.raises(QuotaError, match=words) as caught:
        yield caught
    assert caught.value.subject == subject
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 0


def test_a_tenants_own_quota_lies_over_that_of_all() -> None:
    bounds = Quotas(
        service=Quota(commands=9),
        default=Quota(commands=3, streams=4),
        of_tenants={"a": Quota(commands=1)},
    )
    assert bounds.for_tenant("a") == (
        ("tenant:a", Quota(commands=1, streams=4)),
        ("service", Quota(commands=9)),
    )
    assert bounds.for_tenant("b")[0] == ("tenant:b", Quota(commands=3, streams=4))
    assert bounds.for_tenant("") == (("service", Quota(commands=9)),)


def test_what_is_in_use_is_bounded_for_each_subject_and_given_back() -> None:
    used = InUse("commands", retry_after=1)
    a, b = {"tenant:a": 2, "service": 3}, {"tenant:b": 2, "service": 3}
    used.take(a)
    used.take(a)
    with refused("tenant:a", words="2 commands at a time"):
        used.take(a)
    used.take(b)
    with refused("service", words="the service has as many as it may: commands"):
        used.take(b)
    for bounds in (a, a, b):
        used.give_back(bounds)
    assert len(used) == 0
    with refused("tenant:c", words="may have 0 commands"):
        used.take({"tenant:c": 0})


def test_a_rate_is_of_any_minute_and_says_when_it_has_room() -> None:
    rate = Rate("workspaces")
    bounds = {"tenant:a": 2, "service": 3}
    rate.take(bounds, 0.0)
    rate.take(bounds, 50.0)
    with refused("tenant:a", words="2 workspaces within a minute") as caught:
        rate.take(bounds, 55.0)
    assert caught.value.retry_after == pytest.approx(5)
    rate.take({"tenant:b": 2, "service": 3}, 55.0)
    with refused("service", words="as many as it may: workspaces") as caught:
        rate.take({"tenant:b": 2, "service": 3}, 56.0)
    assert caught.value.retry_after == pytest.approx(4)
    rate.take(bounds, 60.5)
    with refused("tenant:a", words="may have 2 workspaces"):
        rate.take(bounds, 100.0)


def test_a_pace_lets_pass_what_it_says_and_a_burst_before() -> None:
    pace = Pace(1000)
    assert pace.take(250, 0.0) == 0
    assert pace.take(100, 0.0) == pytest.approx(0.1)
    assert pace.take(100, 0.0) == pytest.approx(0.2)
    assert pace.take(100, 0.2) == pytest.approx(0.1)
    assert pace.take(250, 100.0) == 0, "no more than a burst is saved up"
    assert pace.take(1000, 100.0) == pytest.approx(1)


async def test_what_a_call_that_is_given_up_has_not_sent_is_held_back_for_nobody() -> None:
    """Else whoever gives up a large answer for its time, and asks for it again, moves it further away each time."""
    layer = QuotaLayer(Quotas(service=Quota(output_bytes_per_second=1 << 20)))
    answer = pb.ExecuteResponse(stdout=pb.CapturedOutput(head=bytes(32 << 20)))
    given_up = []
    for response in (answer, answer, pb.ExecuteResponse()):
        call = Call("Execute", cast("Any", None))
        async with layer.around(call):
            assert call.pace is not None
            sending = asyncio.ensure_future(call.pace(response))
            await asyncio.wait([sending], timeout=0.1)
            sending.cancel()
            await asyncio.wait([sending])
            given_up.append(sending.cancelled())
    assert given_up == [True, True, False]


@pytest.mark.parametrize(
    ("subject", "bounds"),
    [
        ("tenant:a", quotas(workspaces=2)),
        ("tenant:a", quotas(memory_bytes=2 * GIB)),
        ("tenant:a", quotas(cpu_millis=1000)),
        ("service", quotas({"workspaces": 2})),
        ("service", quotas({"memory_bytes": 2 * GIB})),
        ("service", quotas({"cpu_millis": 1000})),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_promised_to_workspaces_is_bounded(subject: str, bounds: Quotas) -> None:
    async with serving(bounds) as workspaces:
        first = await workspaces.create(A, config("1G", 0.5))
        await workspaces.create(A, config("1G", 0.5), "again")
        with refused(subject, words="destroy some"):
            await workspaces.create(A, config("1G", 0.5))
        await workspaces.create(A, config("1G", 0.5), "again")  # a repeat makes none
        await destroy(workspaces, first.id)
        await workspaces.create(A, config("1G", 0.5))


async def test_a_tenant_at_its_quota_is_in_nobodys_way() -> None:
    async with serving(quotas(workspaces=1)) as workspaces:
        await workspaces.create(A, config())
        with refused("tenant:a", words="may have 1 workspaces"):
            await workspaces.create(A, config())
        await workspaces.create(B, config())
        await workspaces.create(OPERATOR, config())
        await workspaces.create(OPERATOR, config())


async def test_what_is_under_way_counts_and_what_fails_or_is_cancelled_does_not() -> None:
    gate, begun = asyncio.Event(), asyncio.Event()

    async def slow(end: GuestEnd) -> None:
        begun.set()
        await gate.wait()
        await serve_honestly(end)

    async with serving(quotas(workspaces=1), FakeProvider(slow)) as workspaces:
        for _ in range(3):
            begun.clear()
            creation = asyncio.ensure_future(workspaces.create(A, config()))
            await begun.wait()
            with refused("tenant:a", words="may have 1 workspaces"):
                await workspaces.create(A, config())
            creation.cancel()
            await asyncio.wait([creation])
        gate.set()
        await workspaces.create(A, config())


async def test_a_refused_creation_does_not_count_for_the_rate() -> None:
    async with serving(quotas(workspaces=1, creates_per_minute=2)) as workspaces:
        made = await workspaces.create(A, config())
        for _ in range(5):
            with refused("tenant:a", words="may have 1 workspaces"):
                await workspaces.create(A, config())
        await destroy(workspaces, made.id)
        made = await workspaces.create(A, config())
        await destroy(workspaces, made.id)
        with refused("tenant:a", words="within a minute"):
            await workspaces.create(A, config())


async def destroy(workspaces: Workspaces, workspace_id: str) -> None:
    await workspaces.destroy(OPERATOR, workspace_id)


def test_commitments_add_up_and_tell_what_is_too_much() -> None:
    total = Commitment(1, GIB, 500) + Commitment(2, GIB, 500) - Commitment(1, 0, 0)
    assert total == Commitment(2, 2 * GIB, 1000)
    assert total.excess(Quota()) is None
    assert total.excess(Quota(workspaces=2, memory_bytes=2 * GIB, cpu_millis=1000)) is None
    assert "cpu_millis" in (total.excess(Quota(cpu_millis=999)) or "")
