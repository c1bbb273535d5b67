"""Which methods of a server wait for their calls by themselves."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio


class Registration:
    """Takes the place of a server where a service is added to it.

    gRPC for Python asks for calls by one future for each registered method, and all of them are waited at anew with
    every call: with thirty methods that is up to a tenth of what a call costs. The methods that are not registered
    share one. What is registered is handed out beside a queue of others, however long that is.

    Args:
        server: Which has not started yet.
        methods: Names of those to register.
    """

    def __init__(self, server: grpc.aio.Server, methods: Collection[str]) -> None:
        self._server = server
        self._methods = frozenset(methods)

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Is called by generated code. All methods are found by name."""
        self._server.add_generic_rpc_handlers(tuple(handlers))

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Is called by generated code."""
        chosen = {name: handler for name, handler in handlers.items() if name in self._methods}
        server: Any = self._server  # the stubs do not have the method
        server.add_registered_method_handlers(service, chosen)
