"""gRPC takes options that it does not know in silence: each of ours is one that it knows."""

from __future__ import annotations

import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from agentic_isolation import _channel, _security
from agentic_isolation_service.rpc import server


@pytest.fixture(scope="module")
def core() -> bytes:
    with open(cygrpc.__file__, "rb") as file:
        return file.read()


@pytest.mark.parametrize("name", [name for name, _ in (*_channel._OPTIONS, *_security._NO_PROXY, *server._OPTIONS)])
def test_the_option_is_known(core: bytes, name: str) -> None:
    assert name.encode() + b"\0" in core
