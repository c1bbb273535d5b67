"""A workspace's life: made in two ways, described, closed once or often, and gone without a trace."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta

import pytest

from agentic_isolation import (
    InvalidArgumentError,
    IsolationError,
    IsolationUnavailableError,
    NetworkMode,
    ResourceLimits,
    SecurityConfig,
    WorkspaceConfig,
    WorkspaceNotFoundError,
    WorkspaceState,
)
from tests.support.eventually import eventually
from tests.support.jobs import TREE_SIZE, new_mark, python, running, tree
from tests.support.ways import LEASE, Way, Workspace

PR_GET_NO_NEW_PRIVS = 39
LIFETIME = 6.0
"""Seconds in which commands have surely begun in a workspace."""


async def test_description(way: Way) -> None:
    before = datetime.now(UTC)
    async with way.open(way.config(labels={"team": "a/b", "purpose": "Täst it"})) as ws:
        info = ws.info
        assert re.fullmatch(r"ws-[a-z2-7]{20}", ws.id)
        assert (info.id, info.provider, info.state) == (ws.id, way.provider, WorkspaceState.READY)
        assert info.working_dir == "/workspace"
        assert info.labels == {"team": "a/b", "purpose": "Täst it"}
        assert before - timedelta(seconds=2) < info.created_at < datetime.now(UTC) + timedelta(seconds=2)
        lease = info.lease_expires_at - info.created_at
        assert timedelta(seconds=LEASE - 1) < lease < timedelta(seconds=LEASE + 30)


async def test_network_that_is_told_is_what_commands_have(ws: Workspace) -> None:
    """Also of plain processes of the host: left open, clients would read it as the production value, none."""
    local = ws.info.provider == "local"
    assert ws.info.isolation.network is (NetworkMode.OUTBOUND if local else NetworkMode.NONE)
    names = (await ws.execute("tail -n +3 /proc/net/dev | cut -d: -f1")).stdout.split()
    assert local or names == ["lo"]


async def test_isolation_is_what_commands_have(ws: Workspace) -> None:
    isolation = ws.info.isolation
    status = (await ws.execute("cat /proc/self/status")).stdout
    assert isolation.user == (await ws.execute("echo $(id -u):$(id -g)")).stdout.strip()
    asked = (
        await ws.execute(python(f"import ctypes; print(ctypes.CDLL(None).prctl({PR_GET_NO_NEW_PRIVS}, 0, 0, 0, 0))"))
    ).stdout
    assert isolation.no_new_privileges is (asked.strip() == "1")
    assert isolation.no_new_privileges is True
    assert isolation.kernel == (await ws.execute("uname -r")).stdout.strip()
    effective = int(re.findall(r"CapEff:\s+(\w+)", status)[0], 16)
    assert len(isolation.capabilities) == effective.bit_count()
    assert all(name.startswith("CAP_") for name in isolation.capabilities)
    seccomp = {"0": "disabled", "1": "strict", "2": "filter"}[re.findall(r"Seccomp:\s+(\d)", status)[0]]
    assert isolation.seccomp == seccomp


async def test_closing_kills_everything_and_may_be_repeated(way: Way) -> None:
    mark = new_mark()
    ws = await way.create()
    run = asyncio.create_task(ws.execute(tree(mark)))
    await running(ws, mark, TREE_SIZE)
    await ws.close()
    assert not way.alive(ws.id, mark)
    with pytest.raises(IsolationError):
        await run
    await ws.close()
    for attempt in (ws.execute, ws.read_file, ws.file_exists):
        with pytest.raises(IsolationError):
            await attempt("x")


async def test_closing_ends_streams_with_an_error(way: Way) -> None:
    ws = await way.create()
    stream = ws.stream("echo first; sleep 60")
    assert await anext(stream) == "first"
    await ws.close()
    with pytest.raises(IsolationError):
        await anext(stream)
    await stream.aclose()


async def test_commands_that_a_workspace_ends_under_say_why_it_has_ended(way: Way) -> None:
    """Whoever is told first: a guest kills them before it ends, and that is not how they would have ended."""
    async with way.open(way.config(max_lifetime=LIFETIME)) as ws:
        background = await ws.start("sleep 60", detached=True)
        stream = ws.stream("echo first; sleep 60")
        assert await anext(stream) == "first"
        calls = (ws.execute("sleep 60"), anext(stream), ws.wait(background.id), background.wait())
        for told in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(told, WorkspaceNotFoundError)
            assert "its max_lifetime is over" in str(told)
        await stream.aclose()


async def test_closing_goes_on_when_cancelled(way: Way) -> None:
    mark = new_mark()
    ws = await way.create()
    await ws.execute(f"sleep {mark} >/dev/null 2>&1 &")
    closing = asyncio.create_task(ws.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    await eventually(lambda: not way.alive(ws.id, mark), "the workspace is gone")


async def test_creating_that_is_cancelled_at_any_moment_leaves_nothing(way: Way) -> None:
    """The fixtures look for what is left; workspaces that came too late to be cancelled are closed."""
    finished = 0
    for steps in range(0, 60, 2):
        creating = asyncio.create_task(way.create())
        for _ in range(steps):
            await asyncio.sleep(0)
        await asyncio.sleep(steps / 2000)
        creating.cancel()
        try:
            ws = await creating
        except asyncio.CancelledError:
            continue
        finished += 1
        await ws.close()
    assert finished < 30


async def test_lease_is_renewed_while_it_is_open(way: Way) -> None:
    async with way.open(way.config(lease=1.0)) as ws:
        result = await ws.execute("sleep 2.5; echo still here")
        assert result.stdout == "still here\n"


async def test_files_and_background_processes_stay_between_commands(ws: Workspace) -> None:
    await ws.execute("echo kept > file; (while [ ! -e stop ]; do sleep 0.01; done; touch stopped) >/dev/null 2>&1 &")
    assert (await ws.execute("cat file")).stdout == "kept\n"
    await ws.write_file("stop", "")
    await eventually(lambda: ws.file_exists("stopped"), "the background process has seen the file")


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "provider": ({"provider": "no-such-provider"}, "provider"),
    "no-provider": ({"provider": ""}, "provider"),
    "relative-working-dir": ({"working_dir": "relative/dir"}, "working_dir"),
    "working-dir-with-dots": ({"working_dir": "/workspace/../etc"}, "working_dir"),
    "working-dir-with-nul": ({"working_dir": "/work\0space"}, "working_dir"),
    "empty-variable-name": ({"environment": {"": "x"}}, "environment"),
    "equals-in-variable-name": ({"environment": {"A=B": "x"}}, "environment"),
    "nul-in-variable": ({"environment": {"A": "x\0y"}}, 'environment["A"]'),
    "label-name": ({"labels": {"Not a label": "x"}}, "labels"),
    "long-label-name": ({"labels": {"x" * 64: "x"}}, "labels"),
    "label-value": ({"labels": {"a": "x" * 257}}, 'labels["a"]'),
    "labels": ({"labels": {f"label-{number}": "" for number in range(65)}}, "labels"),
    "no-lease": ({"lease": 0.0}, "lease_duration"),
    "negative-lease": ({"lease": -1.0}, "lease_duration"),
    "short-lease": ({"lease": 0.999}, "lease_duration"),
    "long-lease": ({"lease": 86_401.0}, "lease_duration"),
    "nan-lease": ({"lease": float("nan")}, "lease_duration"),
    "endless-lease": ({"lease": float("inf")}, "lease_duration"),
    "pids": ({"security": SecurityConfig(pids_limit=1)}, "security.pids_limit"),
    "user": ({"security": SecurityConfig(user="root")}, "security.user"),
    "cpu": ({"limits": ResourceLimits(cpu=0.001)}, "limits.cpu_millis"),
    "cpu-word": ({"limits": ResourceLimits(cpu="many")}, "limits.cpu"),
    "memory": ({"limits": ResourceLimits(memory=1)}, "limits.memory_bytes"),
    "negative-memory": ({"limits": ResourceLimits(memory=-1)}, "limits.memory_bytes"),
    "memory-word": ({"limits": ResourceLimits(memory="plenty")}, "limits.memory"),
    "disk": ({"limits": ResourceLimits(disk="1K")}, "limits.disk_bytes"),
    "open-files": ({"limits": ResourceLimits(open_files=1)}, "limits.open_files_count"),
}


async def test_workspaces_that_make_no_sense_are_refused_by_their_field(way: Way) -> None:
    for case, (settings, field) in REFUSED.items():
        with pytest.raises(InvalidArgumentError) as caught:
            await way.create(way.config(**settings))
        assert caught.value.field == field, case


@pytest.mark.places("local")
async def test_local_provider_never_feigns_isolation(way: Way) -> None:
    asked: list[tuple[dict[str, object], str]] = [
        ({"security": SecurityConfig.production()}, "security"),
        ({"security": SecurityConfig.development()}, "security"),
        ({"limits": ResourceLimits(memory="1G")}, "limits"),
        ({"limits": ResourceLimits(cpu=1)}, "limits"),
        ({"limits": ResourceLimits(network=False)}, "limits"),
    ]
    for settings, field in asked:
        with pytest.raises(IsolationUnavailableError) as caught:
            await way.create(way.config(**settings))
        assert caught.value.field == field
    with pytest.raises(InvalidArgumentError) as refused:
        await way.create(way.config(image="debian"))
    assert refused.value.field == "image"
    async with way.open(way.config(limits=ResourceLimits())) as ws:
        assert ws.info.isolation.runtime == "local"


async def test_refusals_create_nothing(way: Way) -> None:
    async with way.open() as ws:
        before = (await ws.execute("ls -d ../../* | wc -l")).stdout
        for settings, _ in REFUSED.values():
            with pytest.raises(IsolationError):
                await way.create(way.config(**settings))
        assert (await ws.execute("ls -d ../../* | wc -l")).stdout == before


async def test_secrets_are_in_no_repr() -> None:
    config = WorkspaceConfig(environment={"TOKEN": "hush"})
    assert "hush" not in repr(config)
