"""A workspace's lasting tie to its guest: links come and go, the session reconnects and tells apart what is lost."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

from agentic_isolation.errors import (
    FileError,
    InputTakenError,
    InvalidArgumentError,
    IsolationError,
    NoTerminalError,
    OffsetError,
    PathEscapesError,
    ProcessLimitError,
    ProcessNotFoundError,
    ResultForgottenError,
    StartError,
    UnavailableError,
    UnsupportedError,
    WorkspaceLostError,
    WorkspaceNotFoundError,
    error_classes,
)
from agentic_isolation.runs import Termination, TerminationCause
from agentic_isolation_service.guest.channel import Channel
from agentic_isolation_service.guest.counts import GuestCounts
from agentic_isolation_service.guest.frames import FrameType, ProtocolError
from agentic_isolation_service.guest.link import MAX_CHANNELS, ChannelLimitError, GuestLink, LinkLostError
from agentic_isolation_service.guest.stream import ByteStream

_T = TypeVar("_T")


class ProcessExistsError(IsolationError):
    """A process of that id was started before. Never leaves the service: it is how a repeated request is found out."""

    reason = "PROCESS_EXISTS"


class RequestConflictError(IsolationError):
    """A process of that id was started for a request of other content. Never leaves the service."""

    reason = "REQUEST_CONFLICT"


# What a guest may say. Anything else from it is a fault of its own, whatever word it uses.
_GUEST_ERRORS: dict[str, type[IsolationError]] = {
    **error_classes(StartError),
    **error_classes(FileError),
    **error_classes(PathEscapesError),
    ProcessLimitError.reason: ProcessLimitError,
    ProcessNotFoundError.reason: ProcessNotFoundError,
    OffsetError.reason: OffsetError,
    InputTakenError.reason: InputTakenError,
    NoTerminalError.reason: NoTerminalError,
    "BAD_REQUEST": InvalidArgumentError,
    "SHUTTING_DOWN": WorkspaceLostError,
    ProcessExistsError.reason: ProcessExistsError,
    RequestConflictError.reason: RequestConflictError,
    ResultForgottenError.reason: ResultForgottenError,
}
_ENDINGS = {
    "lease": "its lease has run out",
    "idle": "nothing was under way in it for its idle_timeout",
    "lifetime": "its max_lifetime is over",
}
"""Why guests end by themselves."""
_MAX_GUEST_MESSAGE = 1000
_RECONNECT_PAUSE = 1.0
"""Seconds between two links that nobody asked for, so that a guest that hangs up keeps nobody busy."""
_MOST_DOUBLINGS = 3
"""How often that is doubled while there can be none: with an engine a thousand guests may be away."""
_MAX_COUNTED = 256
"""Ends of processes that are remembered for not being counted twice."""
_SECOND_TRY = 0.3
"""Seconds after which a link is tried again that failed at once: a place that is just ending may still let one in."""


class GuestSession:
    """Opens channels to one guest, over whichever link is up.

    Args:
        workspace_id: The workspace that the guest must belong to.
        key: The secret of the handshake.
        connect: Opens a byte stream to the guest. Raises OSError where nothing answers there any more.
        counts: Where what goes on with the guest is counted; None: nobody wants to know.
        boot_id: The guest's; empty: whichever answers first. Another one knows nothing of what was done before.
        judge: Returns how a process has really ended, of what the guest says; None: as it says.
    """

    def __init__(
        self,
        workspace_id: str,
        key: bytes,
        connect: Callable[[], Awaitable[ByteStream]],
        counts: GuestCounts | None = None,
        boot_id: str = "",
        judge: Callable[[Termination], Awaitable[Termination]] | None = None,
    ) -> None:
        self.counts = GuestCounts() if counts is None else counts
        self.boot_id = boot_id
        """Of the guest; empty while none has answered."""
        self._workspace_id = workspace_id
        self._key = key
        self._connect = connect
        self._judge = judge
        self._link: GuestLink | None = None
        self._connecting: asyncio.Task[GuestLink | IsolationError] | None = None
        self._lost: WorkspaceLostError | None = None
        self._ending = ""
        self._counted: dict[str, None] = {}
        self._closed = False
        self._destroyed = False

    @property
    def lost(self) -> WorkspaceLostError | None:
        """Why the workspace is lost for good; None while it is not."""
        return self._lost

    @property
    def ended(self) -> bool:
        """Whether the workspace has ended by itself, at one of the ends that were set for it."""
        return self._lost is not None and self._ending in _ENDINGS

    @property
    def ending(self) -> str:
        """Which of the ends that were set for the workspace its guest has come to; empty: none that it has told of."""
        told = self._ending if self._link is None else self._link.ending or self._ending
        return told if told in _ENDINGS else ""

    def note_ending(self, reason: str) -> None:
        """Takes note of which of its ends a workspace has come to that its guest does not tell of in time."""
        if self._lost is None and not self.ending:
            self._ending = reason

    async def note_end(self, process_id: str, termination: Termination) -> Termination:
        """Takes note of how a process has ended, and returns how that was; counts it once, however many are told.

        Raises:
            WorkspaceNotFoundError: The guest killed it as the workspace has come to its end. How it would have ended is
                not known, and whether its guest can still say so is a matter of time.
        """
        if self._judge is not None:
            termination = await self._judge(termination)
        if process_id not in self._counted:
            self._counted[process_id] = None
            if len(self._counted) > _MAX_COUNTED:
                del self._counted[next(iter(self._counted))]
            self.counts.commands[termination.cause].add(termination.duration_ms / 1000)
        if termination.cause is TerminationCause.KILLED and (ending := self.ending):
            raise WorkspaceNotFoundError(f"workspace {self._workspace_id} is ending: {_ENDINGS[ending]}")
        return termination

    def error(self, value: dict[str, object]) -> IsolationError:
        """Returns the error that an ERROR payload of the guest stands for."""
        # Only text: the words of anything else could be endless, or nested too deeply to be put into words.
        reason, message = (found if isinstance(found := value.get(name), str) else "" for name in ("reason", "message"))
        kind, message = _GUEST_ERRORS.get(reason), message[:_MAX_GUEST_MESSAGE]
        if kind is None:
            return IsolationError(f"the guest answered {reason[:64]}: {message}")
        if kind is WorkspaceLostError:
            return self._over(f"workspace {self._workspace_id} is ending: {_ENDINGS.get(self.ending, message)}")
        return kind(message)

    async def open(self, operation: dict[str, object], *, since: int = 1) -> Channel:
        """Opens a channel for an operation, on a new link where the last one has ended.

        Args:
            operation: What to ask of the guest.
            since: The protocol version that brought it, or a member of it that must not be ignored.

        Raises:
            UnsupportedError: The guest, which an earlier version of the service has started, speaks none so high.
            WorkspaceNotFoundError: It was shut down, or has come to one of its ends.
            WorkspaceLostError: The guest is gone, or broke the protocol.
            UnavailableError: The guest could not be reached in time.
            InvalidArgumentError: The operation is too large.
            ProcessLimitError: As many operations are under way as a guest takes.
        """
        link = self._link
        if link is None or link.lost is not None:
            link = await self._reconnect()
        if link.version < since:
            raise UnsupportedError(
                f"workspace {self._workspace_id} was made by an earlier version of this service and cannot do this; "
                "use a new workspace"
            )
        try:
            return link.open_channel(operation)
        except ValueError:
            raise InvalidArgumentError(
                "it is too large with its environment; pass the bulk as a file or as standard input", field="command"
            ) from None
        except ChannelLimitError:
            raise ProcessLimitError(
                f"{MAX_CHANNELS} calls are under way in the workspace, as many as there may be; wait for some to end"
            ) from None
        except LinkLostError as error:
            await self.raise_lost(error)

    async def call(self, operation: dict[str, object], *, since: int = 1) -> dict[str, object]:
        """Carries out an operation that answers with one RESULT and returns it; `since` as for `open`.

        Raises:
            IsolationError: What the guest answered instead, or what `open` raises.
        """
        channel = await self.open(operation, since=since)
        try:
            while True:
                kind, _, value, _ = await channel.receive()
                if kind is FrameType.RESULT:
                    return value
                if kind is FrameType.ERROR:
                    raise self.error(value)
        except LinkLostError as error:
            await self.raise_lost(error)
        finally:
            channel.abandon()

    async def call_for(
        self, operation: dict[str, object], parse: Callable[[dict[str, object]], _T], *, since: int = 1
    ) -> _T:
        """Carries out an operation like `call` and returns its RESULT as `parse` makes of it.

        Raises:
            IsolationError: As `call`; WorkspaceLostError where `parse` finds the RESULT malformed.
        """
        value = await self.call(operation, since=since)
        try:
            return parse(value)
        except ProtocolError as error:
            await self.raise_lost(error)

    async def wait_lost(self) -> WorkspaceLostError:
        """Waits until the workspace is lost and returns why. Reconnects meanwhile, so that it notices."""
        loop = asyncio.get_running_loop()
        failures = 0
        while self._lost is None:
            # At random, so that they do not come as one.
            pause = _RECONNECT_PAUSE * 2 ** min(failures, _MOST_DOUBLINGS) * random.uniform(0.5, 1)
            next_link = loop.time() + pause
            try:
                link = self._link
                if link is None or link.lost is not None:
                    failures += 1
                    link = await self._reconnect()
                failures = 0
                loss = await link.wait_lost()
                if loss.protocol_error:
                    await self._reconnect()
                raise self._lost_link(loss)
            except UnavailableError:
                await asyncio.sleep(next_link - loop.time())
            except (WorkspaceLostError, WorkspaceNotFoundError):
                break
        if self._lost is None:
            raise AssertionError("wait_lost ends with a reason")
        return self._lost

    async def raise_lost(self, error: LinkLostError | ProtocolError) -> NoReturn:
        """Raises what a failure of a channel means to its user: the workspace is lost or over, or it is unavailable.

        Where a link broke, it looks whether the guest still answers: that is the difference.
        """
        if isinstance(error, ProtocolError):
            loss = LinkLostError(str(error), protocol_error=True)
            if self._link is not None:
                self._link.end(loss)
            raise self._lost_link(loss) from error
        try:
            await self._reconnect()
        except UnavailableError as unavailable:
            if self._closed:
                raise
            what = f"the connection into workspace {self._workspace_id} ended: {error}; {unavailable.message}"
            raise type(unavailable)(what) from error
        except WorkspaceLostError:
            pass
        raise self._lost_link(error) from error

    async def shut_down(self) -> bool:
        """Tells the guest to kill everything and to end, and closes as `aclose`. Makes no link to do so.

        Returns:
            Whether the guest is ending: it was told so, or has come to one of its ends.
        """
        self._destroyed = True
        link = self._link
        ending = self.ended
        if link is not None and link.lost is None:
            with contextlib.suppress(ChannelLimitError):
                link.open_channel({"op": "shutdown"})
                ending = True
        await self.aclose()
        return ending

    async def aclose(self) -> None:
        """Closes the link and opens no other. Processes with a linger go on in the guest."""
        self._closed = True
        if self._link is not None:
            self._link.end(LinkLostError("the link was closed"))  # at once: nothing that comes later is told
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        if self._link is not None:
            await self._link.aclose()

    def _lost_link(self, error: LinkLostError) -> IsolationError:
        if error.protocol_error:
            self._lose(f"workspace {self._workspace_id} is lost: {error}")
        if self._lost is not None:
            return self._over(self._lost.message)
        return UnavailableError(f"the connection into workspace {self._workspace_id} ended: {error}")

    def _over(self, why: str) -> WorkspaceLostError | WorkspaceNotFoundError:
        """Returns the error of a workspace that is gone: lost, or at the end that was set for it.

        A new one for each that is raised: one for all would collect every caller's frames.
        """
        at_its_end = self.ending if self._lost is None else self.ended
        return WorkspaceNotFoundError(why) if at_its_end else WorkspaceLostError(why)

    async def _reconnect(self) -> GuestLink:
        """Returns the link that is up, or a new one. All who want one meanwhile share the attempt, and its failure."""
        if self._lost is not None:
            raise self._over(self._lost.message)
        self._refuse_when_closed()
        if self._link is not None and self._link.lost is None:
            return self._link
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connected(), name=f"guest-connect:{self._workspace_id}")
        connecting = self._connecting
        await asyncio.wait([connecting])
        if connecting.cancelled():
            self._refuse_when_closed()
        result = connecting.result()
        if isinstance(result, WorkspaceLostError):
            raise self._over(result.message) from result.__cause__
        if isinstance(result, IsolationError):
            raise type(result)(result.message) from result.__cause__
        return result

    async def _connected(self) -> GuestLink | IsolationError:
        """Returns a new link, or why there is none; nothing is raised that somebody would have to be there for."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        result = await self._try_to_connect()
        if isinstance(result, UnavailableError) and loop.time() - began < _SECOND_TRY:
            await asyncio.sleep(_SECOND_TRY)
            result = await self._try_to_connect()
        return result

    async def _try_to_connect(self) -> GuestLink | IsolationError:
        if self._link is not None:
            self._ending = self._link.ending or self._ending
            if self._link.lost is not None and self._link.lost.protocol_error:
                return await self._explained(self._link.lost)
            await self._link.aclose()
        try:
            link = await GuestLink.open(await self._connect(), self._key)
        except LinkLostError as error:
            return self._failed(self._lost_link(error))
        except OSError as error:
            return self._gone(error)
        except IsolationError as error:
            return self._failed(error)
        if link.workspace_id != self._workspace_id:
            await link.aclose()
            return self._lost_link(LinkLostError("the guest is another workspace's", protocol_error=True))
        if self.boot_id and link.boot_id != self.boot_id:
            await link.aclose()
            return self._lose(
                f"workspace {self._workspace_id} is lost: its place was started anew, without what had been in it"
            )
        self.boot_id = link.boot_id
        self.counts.reconnects += self._link is not None
        self._link = link
        return link

    async def _explained(self, loss: LinkLostError) -> IsolationError:
        """Returns what a broken protocol means. A place that dies may say so in words where frames are expected."""
        try:
            await (await self._connect()).aclose()
        except OSError as error:
            return self._gone(error)
        except IsolationError:
            pass
        return self._lost_link(loss)

    def _gone(self, error: OSError) -> WorkspaceLostError:
        why = _ENDINGS.get(self._ending, str(error))
        return self._lose(f"workspace {self._workspace_id} is gone: {why}")

    def _lose(self, why: str) -> WorkspaceLostError:
        if self._lost is None:
            self.counts.lost += self._ending not in _ENDINGS
            self._lost = WorkspaceLostError(why)
        return self._lost

    def _failed(self, error: IsolationError) -> IsolationError:
        self.counts.link_failures += isinstance(error, UnavailableError)
        return error

    def _refuse_when_closed(self) -> None:
        if self._destroyed:
            why = f"is gone: {_ENDINGS[self.ending]}" if self.ending else "was destroyed meanwhile"
            raise WorkspaceNotFoundError(f"workspace {self._workspace_id} {why}")
        if self._closed:
            raise UnavailableError(f"the connection into workspace {self._workspace_id} is closed")
