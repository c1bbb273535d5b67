"""gRPC takes options that it does not know in silence: each of ours is one that it knows."""

from __future__ import annotations

from resource import RLIM_INFINITY

import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from agentic_isolation import _channel, _security
from agentic_isolation_service.rpc import server


@pytest.fixture(scope="module")
def core() -> bytes:
    with open(cygrpc.__file__, "rb") as file:
        return file.read()


@pytest.mark.parametrize(
    "name", [name for name, _ in (*_channel._OPTIONS, *_security._NO_PROXY, *server.options_of(1024))]
)
def test_the_option_is_known(core: bytes, name: str) -> None:
    assert name.encode() + b"\0" in core


@pytest.mark.parametrize(
    ("files", "connections"), [(1024, 512), (1 << 40, (1 << 31) - 1), (RLIM_INFINITY, (1 << 31) - 1)]
)
def test_connections_leave_files_for_others(files: int, connections: int) -> None:
    assert dict(server.options_of(files))["grpc.max_allowed_incoming_connections"] == connections
