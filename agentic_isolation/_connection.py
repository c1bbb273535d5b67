"""A connection to a service: which of its calls are made again, and how long each is waited for."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any

from agentic_isolation._retry import NOTHING_DONE, Patience, check_retry_timeout, persevere
from agentic_isolation.errors import ClosedError, DeadlineError, IsolationError, UnavailableError

if TYPE_CHECKING:
    from agentic_isolation.v1 import workspace_pb2_grpc as pb_grpc

CALL_TIMEOUT = 60.0
"""Seconds that a call may take which waits for no command."""
ATTEMPT_TIMEOUT = 15.0
"""Seconds after which such a call is made again, where it may be: its path may lead nowhere."""


class Connection(abc.ABC):
    """A way to call a service's methods. It raises IsolationError only.

    Args:
        target: What the service is called in errors.
        retry_timeout: Seconds for which a call that may be repeated is, while the service is unavailable; 0: it is not.
    """

    stub: pb_grpc.WorkspaceServiceAsyncStub
    """The service's methods, to be given to those of the connection."""

    def __init__(self, target: str, retry_timeout: float) -> None:
        self.target = target
        self.retry_timeout = check_retry_timeout(retry_timeout)

    async def call(
        self,
        method: Callable[..., Any],
        request: Any,
        *,
        timeout: float | None = None,
        done: type[IsolationError] | None = None,
        at_once: tuple[type[UnavailableError], ...] = (),
    ) -> Any:
        """Calls a method that answers once and may be repeated, and repeats it while the service is unavailable.

        Args:
            method: A method of `stub`.
            request: Its request.
            timeout: Seconds to wait for the answer in all; None: CALL_TIMEOUT, or as long as calls are repeated.
            done: What a repeat is told where the attempt before was carried out; None is returned then.
            at_once: Kinds of UnavailableError after which it is not repeated.

        Raises:
            IsolationError: What the service answered, or that it could not be reached.
        """
        patience = self.patience(max(CALL_TIMEOUT, self.retry_timeout) if timeout is None else timeout)
        attempt_timeout = ATTEMPT_TIMEOUT if self.retry_timeout and timeout is None else None
        try:
            return await persevere(
                lambda: self.attempt(method, request, patience, attempt_timeout), patience, at_once=at_once
            )
        except IsolationError as error:
            if done is not None and isinstance(error, done) and patience.tried:
                return None
            raise

    def patience(self, timeout: float | None = None) -> Patience:
        """Returns the patience of one call, which may take so many seconds in all."""
        return Patience(self.retry_timeout, timeout)

    async def attempt(
        self,
        method: Callable[..., Any],
        request: Any,
        patience: Patience,
        timeout: float | None = None,
        *,
        head: Any = None,
    ) -> Any:
        """Calls a method that answers once, once.

        Args:
            method: A method of `stub`.
            request: Its request, or an iterator of them.
            patience: Bounds the wait for the answer.
            timeout: Seconds after which the service counts as unavailable; None: it never does for its silence.
            head: Of many requests, the message that names the workspace.

        Raises:
            IsolationError: What the service answered, or that it could not be reached.
        """
        remaining = patience.remaining
        bound = timeout if remaining is None else remaining if timeout is None else min(timeout, remaining)
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            return await self._answer(method, request, bound, head)
        except DeadlineError as error:
            # The service itself may say so too, and then it has answered.
            if timeout is not None and bound is not None and clock() - began > 0.9 * bound:
                raise UnavailableError(f"{self.target} has not answered for {bound:.3g} s") from error
            raise

    async def once(self, method: Callable[..., Any], request: Any, *, timeout: float = CALL_TIMEOUT) -> Any:
        """Calls a method that answers once and must not be carried out twice; otherwise as `call`."""
        patience = self.patience(timeout)
        while True:
            try:
                return await self.attempt(method, request, patience)
            except NOTHING_DONE as error:
                await patience.wait(error)

    def closed_error(self) -> ClosedError:
        """Returns what a call is told whose connection was closed, before it or meanwhile."""
        return ClosedError(
            f"the connection to {self.target} is closed: so was the workspace, or the client, it was for"
        )

    @abc.abstractmethod
    def stream(self, method: Callable[..., Any], request: Any, *, head: Any = None) -> AsyncGenerator[Any, None]:
        """Yields the responses of a method that answers with many, once. Closed, it cancels the call.

        Args:
            method: A method of `stub`.
            request: Its request, or an asynchronous iterator of them, which goes on beside the responses.
            head: Of many requests, the message that names the workspace.

        Raises:
            IsolationError: How the call ended instead.
        """

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Cancels what is under way. What is called later raises ClosedError."""

    @abc.abstractmethod
    async def _answer(self, method: Callable[..., Any], request: Any, timeout: float | None, head: Any) -> Any:
        """Calls a method that answers once.

        Raises:
            DeadlineError: It has not answered within `timeout` seconds.
            IsolationError: What it answered.
        """


Connects = Callable[[float], Connection]
"""Makes a connection to a service in this process, by its retry_timeout."""
