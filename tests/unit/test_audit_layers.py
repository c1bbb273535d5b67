"""The layers of the audit log: what they have written down when a call's first answer leaves."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, cast

import pytest

from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation_service.audit.layers import Beginnings, Results
from agentic_isolation_service.audit.log import AuditLog
from agentic_isolation_service.rpc.calls import Call, surrounded
from agentic_isolation_service.settings.audit import AuditSettings
from tests.support.messages import METHODS


class Context:
    def peer(self) -> str:
        return "unix:"


@pytest.mark.parametrize("method", sorted(name for name, method in METHODS.items() if method.server_streaming))
async def test_calls_whose_answers_leave_before_they_end_are_written_down_before(method: str, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    async with AuditLog.open(AuditSettings(path=path)) as log:
        results = Results(log, identifies=False)
        async with surrounded(Call(method, cast("Any", Context())), [results, Beginnings(results)]):
            *_, last = [json.loads(line) for line in path.read_bytes().splitlines()]
            assert (last["event"], last.get("method")) == ("began", method)


async def test_download_whose_client_has_gone_with_its_end_was_answered(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    async with AuditLog.open(AuditSettings(path=path)) as log:
        results = Results(log, identifies=False)
        call = Call("ReadFile", cast("Any", Context()))

        async def given() -> None:
            async with surrounded(call, [results, Beginnings(results)]):
                await call.give(pb.ReadFileResponse(end=pb.ReadFileEnd(size_bytes=1)))
                raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await given()
    [told] = [entry for line in path.read_bytes().splitlines() if (entry := json.loads(line))["event"] == "call"]
    assert told["code"] == "OK"
