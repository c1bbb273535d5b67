"""What callers send and get is searched for wherever others may look: in logs, the audit log, the engine, on disk."""

from __future__ import annotations

import asyncio
import io
import signal
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from agentic_isolation.v1 import workspace_pb2 as pb
from tests.integration.lasting import KINDS, create, lasting
from tests.integration.wire import END, Stub, argv, shell
from tests.security.secrecy import PLACES, Scene
from tests.support.otlp import collecting
from tests.support.scraping import text_at, url_in

MARKERS = {
    what: f"m4rk{position}-{what.replace(' ', '-')}-q7Zx"
    for position, what in enumerate(
        (
            *("token", "secret", "workspace environment", "command environment", "argument", "shell line"),
            *("stdin", "input", "output", "file", "archive", "bad secret", "bad environment", "bad argument"),
        )
    )
}
TOLD = {("workspace environment", "state_directory")}
"""What is to be seen: what is secret goes into `secrets`. That it is found shows that there was a search."""


@pytest.fixture
def ground(warm: None) -> None:
    """Nothing is asked of the shared service here."""


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "gvisor" not in str(kind)])
async def test_nothing_of_it_is_found_anywhere(kind: str, directory: Path, request: pytest.FixtureRequest) -> None:
    engine = None if kind == "local" else request.getfixturevalue("engine")
    config = directory / "config.toml"
    options = (
        *("--log-level", "debug", "--log-json", "--audit-log", str(directory / "audit.jsonl")),
        *("--metrics-address", "127.0.0.1:0", "--config", str(config)),
    )
    async with collecting() as collector, lasting(directory, *options) as service:
        config.write_text(f'[tracing]\nendpoint = "{collector.endpoint}"')
        async with service.running() as stub:
            calls = Calls(stub)
            asked = create(
                kind,
                secrets={"TOKEN": MARKERS["secret"]},
                environment={"SETTING": MARKERS["workspace environment"]},
                request_id="one",
            )
            here = (await calls.answer("CreateWorkspace", asked)).workspace.workspace_id
            await calls.use(here)
            await calls.misuse(here)
            scene = Scene(directory, here, engine, refusals=calls.refusals)
            scene.metrics = await asyncio.to_thread(text_at, url_in(service.process.log))
        scene.log = await service.end(signal.SIGTERM)
        scene.spans = b"".join(request.SerializeToString() for request in collector.requests)
        found = {place.__name__: place(scene) for place in PLACES}
    assert not [name for name, content in found.items() if here.encode() not in content], "nothing is to be seen there"
    seen = {(what, name) for what, marker in MARKERS.items() for name in found if marker.encode() in found[name]}
    assert seen == TOLD


class Calls:
    """Calls that all carry a token, and their refusals."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self.refusals: list[str] = []
        self.seen = b""
        """What was answered, of all calls."""

    async def answer(self, method: str, request: Any) -> Any:
        """Makes a call that is answered once."""
        answer = await getattr(self._stub, method)(request, metadata=_METADATA)
        self.seen += answer.SerializeToString()
        return answer

    async def answers(self, method: str, request: Any) -> None:
        """Makes a call that is answered by a stream, to its end."""
        async for answer in getattr(self._stub, method)(request, metadata=_METADATA):
            self.seen += answer.SerializeToString()

    async def refused(self, method: str, request: Any) -> None:
        """Makes a call that is refused, and keeps all that is told of that."""
        call = self.answers if method == "Stream" else self.answer
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(method, request)
        error = raised.value
        told = [*(error.trailing_metadata() or ()), *(error.initial_metadata() or ())]
        self.refusals += [str(error.details()), str(error.debug_error_string()), *map(repr, told)]

    async def use(self, here: str) -> None:
        """Sends the markers around as they are meant to be, and sees to it that they have arrived."""
        printing = (
            f"printf '%s%s\\n' {MARKERS['output'][:6]} {MARKERS['output'][6:]}; cat; env; : {MARKERS['shell line']}"
        )
        variables = {"MINE": MARKERS["command environment"]}
        command = shell(printing, environment=variables, stdin=MARKERS["stdin"].encode())
        await self.answer("Execute", pb.ExecuteRequest(workspace_id=here, command=command, request_id="run"))
        said = argv("echo", MARKERS["argument"], environment=variables)
        await self.answers("Stream", pb.StreamRequest(workspace_id=here, start=pb.ProcessStart(command=said)))
        await self.answers("Attach", _typed(here))
        header = pb.WriteFileRequest(header=pb.WriteFileHeader(workspace_id=here, path="file", digest=True))
        await self.answer("WriteFile", [header, pb.WriteFileRequest(data=MARKERS["file"].encode()), END])
        await self.answers("ReadFile", pb.ReadFileRequest(workspace_id=here, path="file"))
        await self.answer("WriteArchive", _archive(here))
        await self.answers("ReadArchive", pb.ReadArchiveRequest(workspace_id=here))
        await self.answer("ListProcesses", pb.ListProcessesRequest(workspace_id=here))
        bad = {"token"} | {what for what in MARKERS if what.startswith("bad ")}
        assert not [what for what in MARKERS.keys() - bad if MARKERS[what].encode() not in self.seen]

    async def misuse(self, here: str) -> None:
        """Sends the markers in requests that are refused, wherever that may be told."""
        argument, variable = MARKERS["bad argument"], MARKERS["bad environment"]
        for command in (
            argv("no-such-program", argument),
            argv("/etc/passwd", argument),
            argv("echo", argument + "\0"),
            shell(f"echo {argument}\0"),
            shell(f"echo {argument}", working_dir="/nowhere"),
            shell(f"echo {argument}", user="root"),
            shell("true", environment={"A": variable + "\0"}),
            shell("true", environment={"A": variable * 20_000}),
            argv(*[argument * 1000] * 60),
            shell("true", stdin=(MARKERS["stdin"] * 80_000).encode()),
        ):
            await self.refused("Execute", pb.ExecuteRequest(workspace_id=here, command=command))
            await self.refused("Stream", pb.StreamRequest(workspace_id=here, start=pb.ProcessStart(command=command)))
        other = pb.ExecuteRequest(workspace_id=here, command=shell(f"echo {argument}"), request_id="run")
        await self.refused("Execute", other)
        secret = {"A": MARKERS["bad secret"]}
        for fields in (
            {"secrets": {"A": MARKERS["bad secret"] + "\0"}},
            {"secrets": {"A": MARKERS["bad secret"] * 10_000}},
            {"secrets": secret, "environment": {"A": variable}},
            {"environment": {"A": variable + "\0"}},
            {"secrets": secret, "environment": {"B": variable}, "request_id": "one"},
            {"secrets": secret, "environment": {"B": variable}, "working_dir": "x"},
        ):
            await self.refused("CreateWorkspace", create("local", **fields))
        data = pb.WriteFileRequest(data=MARKERS["file"].encode())
        header = pb.WriteFileRequest(header=pb.WriteFileHeader(workspace_id=here, path="/etc/x"))
        await self.refused("WriteFile", [data, data])
        await self.refused("WriteFile", [header, data, END])


_METADATA = (("authorization", f"Bearer {MARKERS['token']}"), ("x-api-key", MARKERS["token"]))


def _typed(here: str) -> AsyncIterator[pb.AttachRequest]:
    async def requests() -> AsyncIterator[pb.AttachRequest]:
        opening = pb.AttachOpen(workspace_id=here, start=pb.ProcessStart(command=argv("cat")))
        yield pb.AttachRequest(open=opening)
        yield pb.AttachRequest(stdin=MARKERS["input"].encode())
        yield pb.AttachRequest(end_of_input=pb.EndOfInput())

    return requests()


def _archive(here: str) -> list[pb.WriteArchiveRequest]:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("unpacked")
        entry.size = len(MARKERS["archive"])
        archive.addfile(entry, io.BytesIO(MARKERS["archive"].encode()))
    header = pb.WriteArchiveHeader(workspace_id=here)
    return [
        pb.WriteArchiveRequest(header=header),
        pb.WriteArchiveRequest(data=packed.getvalue()),
        pb.WriteArchiveRequest(end=pb.WriteArchiveEnd()),
    ]
