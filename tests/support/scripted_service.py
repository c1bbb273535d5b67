"""A service that answers as it is told to, for what a client does about answers. What it was asked is kept."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from agentic_isolation import _convert as convert
from agentic_isolation.errors import IsolationError
from agentic_isolation.models import Isolation, WorkspaceInfo, WorkspaceState
from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation.v1 import workspace_pb2_grpc as pb_grpc
from agentic_isolation_service.rpc.errors import status_of

SILENCE = "silence"
"""An answer that never comes."""
_NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
WORKSPACE = WorkspaceInfo(
    id="ws-aaaaaaaaaaaaaaaaaaaa",
    provider="local",
    image="",
    state=WorkspaceState.READY,
    working_dir="/workspace",
    labels={},
    created_at=_NOW,
    lease_expires_at=_NOW,
    isolation=Isolation(runtime="local"),
)

Answer = Any
"""A response, an IsolationError, a bare status code, SILENCE, or for streams a list of these."""


class ScriptedService:
    """Answers each RPC with the next answer that was laid up for it, and with an empty response after the last one.

    A workspace can be made, and destroyed, without any.
    """

    def __init__(self) -> None:
        self.asked: list[Any] = []
        """All requests, in the order of arrival."""
        self._answers: dict[str, deque[Answer]] = {}
        self._server = grpc.aio.server()
        # What has no answer in here is UNIMPLEMENTED.
        pb_grpc.add_WorkspaceServiceServicer_to_server(_Servicer(self), self._server)  # type: ignore[abstract]
        self.target = ""

    async def __aenter__(self) -> Self:
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self.target = f"127.0.0.1:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._server.stop(0)

    def will_answer(self, rpc: str, *answers: Answer) -> None:
        """Lays up answers for an RPC, by its name."""
        self._answers.setdefault(rpc, deque()).extend(answers)

    def asked_for(self, rpc: str) -> list[Any]:
        """Returns the requests for an RPC so far."""
        return [request for request in self.asked if type(request).__name__ == f"{rpc}Request"]

    def next_answer(self, rpc: str, otherwise: Answer) -> Answer:
        """Takes the next answer that was laid up."""
        answers = self._answers.get(rpc)
        return answers.popleft() if answers else otherwise


class _Servicer(pb_grpc.WorkspaceServiceServicer):
    def __init__(self, service: ScriptedService) -> None:
        self._service = service

    async def _answer(self, request: Any, context: Any) -> Any:
        rpc = type(request).__name__.removesuffix("Request")
        self._service.asked.append(request)
        response = getattr(pb, f"{rpc}Response")()
        if rpc in ("CreateWorkspace", "GetWorkspace"):
            response.workspace.CopyFrom(convert.workspace_to_pb(WORKSPACE))
        answer = self._service.next_answer(rpc, response)
        await _refuse(answer, context)
        return answer

    CreateWorkspace = GetWorkspace = ListWorkspaces = RenewWorkspace = DestroyWorkspace = _answer
    Execute = SignalProcess = StatFile = MakeDirectory = RemoveFile = ListDirectory = MoveFile = _answer

    async def Stream(self, request: pb.StreamRequest, context: Any) -> AsyncIterator[pb.StreamResponse]:
        self._service.asked.append(request)
        for answer in self._service.next_answer("Stream", []):
            await _refuse(answer, context)
            yield answer


async def _refuse(answer: Answer, context: Any) -> None:
    """Ends the call where an answer is no response."""
    if isinstance(answer, grpc.StatusCode):
        await context.abort(answer, "as it was told")
    if isinstance(answer, IsolationError):
        details = (("grpc-status-details-bin", status_of(answer).SerializeToString()),)
        await context.abort(grpc.StatusCode[answer.code], str(answer), trailing_metadata=details)
    if answer is SILENCE:
        await asyncio.Event().wait()
