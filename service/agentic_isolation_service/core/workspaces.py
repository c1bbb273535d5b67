"""The workspaces of a service: made, found, renewed and removed here, by whichever way in they are asked for."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import itertools
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self

from agentic_isolation._cleanup import finish
from agentic_isolation.errors import (
    CapacityError,
    InvalidArgumentError,
    IsolationError,
    ProviderUnavailableError,
    UnavailableError,
    WorkspaceNotFoundError,
)
from agentic_isolation.models import Command, Isolation, ProviderInfo, WorkspaceConfig, WorkspaceInfo, WorkspaceState
from agentic_isolation_service.core import processes, validation
from agentic_isolation_service.core.ports import Place, PlaceSpec, Provider
from agentic_isolation_service.core.processes import Outcome, OutputMode, ProcessRun, ProcessStream
from agentic_isolation_service.core.requests import RequestLog, SharedCall
from agentic_isolation_service.core.workspace import HeldWorkspace
from agentic_isolation_service.guest import payloads
from agentic_isolation_service.guest.session import GuestSession

DEFAULT_MAX_WORKSPACES = 1000
FIRST_ANSWER = 40.0
"""Seconds after which a new guest that has not answered is asked no more."""
_FIRST_ANSWER_PAUSE = 0.2
_REMOVAL_PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds between attempts to remove a workspace whose lease has ended; the last one again and again."""
_log = logging.getLogger(__name__)


class Workspaces:
    """All workspaces of one service. Entered, it watches leases; left, it destroys what it holds.

    Args:
        providers: What workspaces can be made from, by name; each is made when it is first asked for.
        max_workspaces: How many there may be at a time.
    """

    def __init__(
        self, providers: Mapping[str, Callable[[], Provider]], *, max_workspaces: int = DEFAULT_MAX_WORKSPACES
    ) -> None:
        self.max_workspaces = max_workspaces
        self._makers = providers
        self._providers: dict[str, Provider] = {}
        self._held: dict[str, HeldWorkspace] = {}
        self._creations: set[asyncio.Task[object]] = set()
        self._creates: RequestLog[SharedCall[WorkspaceInfo]] = RequestLog()
        self._runs: RequestLog[ProcessRun] = RequestLog()
        self._removals: dict[str, asyncio.Task[None]] = {}
        self._closed = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed.set()
        for creation in self._creations:
            creation.cancel()
        if self._creations:
            await asyncio.wait(self._creations)  # their callers may have gone already
        for held in self._held.values():
            self._reap(held)
        await asyncio.gather(*self._removals.values())
        await asyncio.gather(*(held.leave() for held in self._held.values()))
        await asyncio.gather(*(provider.aclose() for provider in self._providers.values()))

    async def create(self, config: WorkspaceConfig, request_id: str = "") -> WorkspaceInfo:
        """Makes a workspace and returns when it runs commands. Cancelled, it leaves nothing behind.

        Args:
            config: How to make it.
            request_id: A repeat returns the first call's workspace.

        Raises:
            InvalidArgumentError, IsolationUnavailableError: What is asked for makes no sense, or cannot be had.
            ProviderUnavailableError, CapacityError, UnavailableError: Not now.
        """
        validation.check_config(config)
        provider = self._provider(config.provider)
        provider.check(config)
        # The environment is in no repr, and the order of labels makes no difference.
        content = (replace(config, labels={}), sorted(config.environment.items()), sorted(config.labels.items()))
        call = self._creates.get("", request_id, content, lambda: SharedCall(lambda: self._create(provider, config)))
        try:
            return await call.wait()
        except asyncio.CancelledError:
            if call.unwanted is not None:
                self._creates.forget("", request_id)
                await finish(self._take_back(call.unwanted))
            raise
        finally:
            if call.failed:
                self._creates.forget("", request_id)

    def get(self, workspace_id: str) -> HeldWorkspace:
        """Returns a workspace.

        Raises:
            InvalidArgumentError: The id is empty.
            WorkspaceNotFoundError: There is none of that id, or none any more.
        """
        if not workspace_id:
            raise InvalidArgumentError("name the workspace", field="workspace_id")
        held = self._held.get(workspace_id)
        if held is None:
            raise WorkspaceNotFoundError(
                f"there is no workspace {workspace_id!r}: it was destroyed, its lease has run out, or it never existed"
            )
        return held

    def page(self, labels: Mapping[str, str], limit: int, after: str) -> tuple[list[WorkspaceInfo], str]:
        """Returns a page of the workspaces that have all of `labels`, oldest first, and the next page's token.

        Raises:
            InvalidArgumentError: The limit is not from 1 to 1,000, or the token is none that was given out.
        """
        if not 1 <= limit <= 1000:
            raise InvalidArgumentError(f"{limit} is not from 1 to 1000", field="page_size")
        matching = [held.info for held in self._held.values() if labels.items() <= held.info.labels.items()]
        # Creation order and ids make the order total, so a page goes on where the last ended whatever has ended since.
        matching.sort(key=lambda info: (info.created_at, info.id))
        if after:
            last = _parse_page_token(after)
            matching = [
                info for info in matching if (info.created_at.isoformat(timespec="microseconds"), info.id) > last
            ]
        page = matching[:limit]
        return page, _page_token(page[-1]) if len(matching) > limit else ""

    async def destroy(self, workspace_id: str) -> None:
        """Kills everything in a workspace and removes it. Goes on in the background when it fails or is cancelled.

        Raises:
            WorkspaceNotFoundError: There is none of that id.
            UnavailableError: It cannot be removed for now.
        """
        held = self.get(workspace_id)
        try:
            await self._destroy(held)
        except UnavailableError:
            self._reap(held)
            raise

    async def execute(
        self, workspace_id: str, command: Command, *, output_limit: int, linger: float = 0, request_id: str = ""
    ) -> Outcome:
        """Runs a command to its end; see processes.execute.

        Args:
            workspace_id: Where.
            command: What.
            output_limit: How many bytes of each of stdout and stderr to keep.
            linger: Seconds that the process lives when the call was cancelled, to be joined by a repeat.
            request_id: A repeat joins or replays the first run.

        Raises:
            IsolationError: The workspace is not there, the command makes no sense or could not start.
        """
        validation.check_output_limit(output_limit)
        output = OutputMode(capture_bytes=output_limit)
        held, run = self._run(workspace_id, command, output, linger, request_id)
        return await processes.execute(held.session, run)

    async def stream(
        self, workspace_id: str, command: Command, output: OutputMode, *, linger: float = 0, request_id: str = ""
    ) -> ProcessStream:
        """Starts a command and returns its events, to be entered at once.

        Args:
            workspace_id: Where.
            command: What.
            output: What happens to its output.
            linger: Seconds that the process lives when its stream was left.
            request_id: A repeat reads the first run from its beginning.

        Raises:
            IsolationError: The workspace is not there or the command makes no sense.
        """
        held, run = self._run(workspace_id, command, output, linger, request_id)
        return await run.open(held.session)

    async def resume(self, workspace_id: str, process_id: str, offset: int) -> ProcessStream:
        """Returns the events of a process from an offset, to be entered at once.

        Raises:
            IsolationError: The workspace is not there, or no process is named.
        """
        if not process_id:
            raise InvalidArgumentError("name the process", field="resume.process_id")
        return await ProcessStream.resume(self.get(workspace_id).session, process_id, offset)

    async def describe_providers(self) -> list[ProviderInfo]:
        """Returns what each provider can give on this host."""
        return [await self._provider(name).describe() for name in self._makers]

    def _provider(self, name: str) -> Provider:
        if name not in self._makers:
            known = " or ".join(repr(known) for known in self._makers)
            raise InvalidArgumentError(f"there is no provider {name!r}; use {known}", field="provider")
        if name not in self._providers:
            self._providers[name] = self._makers[name]()
        return self._providers[name]

    def _run(
        self, workspace_id: str, command: Command, output: OutputMode, linger: float, request_id: str
    ) -> tuple[HeldWorkspace, ProcessRun]:
        held = self.get(workspace_id)
        validation.check_command(command)
        validation.check_linger(linger)
        content = (command, sorted(command.env.items()), command.stdin, output, linger)
        environment = held.config.environment
        run = self._runs.get(
            workspace_id, request_id, content, lambda: ProcessRun.of(command, environment, output, linger=linger)
        )
        return held, run

    async def _create(self, provider: Provider, config: WorkspaceConfig) -> WorkspaceInfo:
        self._refuse_when_closing()
        if len(self._held) + len(self._creations) >= self.max_workspaces:
            raise CapacityError(f"the service has {self.max_workspaces} workspaces, as many as it may; destroy some")
        creation = asyncio.current_task()
        if creation is None:
            raise AssertionError("SharedCall makes a task of it")
        self._creations.add(creation)
        try:
            held = await self._hold(provider, config)
        finally:
            self._creations.discard(creation)
        held.watch(lambda: self._expire(held))
        _log.info("workspace created", extra={"workspace_id": held.info.id, "provider": provider.name})
        return held.info

    def _refuse_when_closing(self) -> None:
        if self._closed.is_set():
            raise UnavailableError("the service is closing")

    async def _hold(self, provider: Provider, config: WorkspaceConfig) -> HeldWorkspace:
        """Makes a place and connects to its guest, or leaves nothing of it."""
        spec = PlaceSpec(_new_workspace_id(), config, secrets.token_bytes(32))
        created_at = dt.datetime.now(dt.UTC)
        place = await provider.create(spec)
        session = GuestSession(spec.workspace_id, spec.key, lambda: provider.connect(place))
        try:
            measured, in_gvisor = await _first_answer(session, place)
            isolation = await provider.isolation(place, config, measured, in_gvisor=in_gvisor)
            self._refuse_when_closing()
            held = HeldWorkspace(provider, place, config, session, _describe(config, place, isolation, created_at))
        except BaseException:
            await finish(_discard(provider, place, session))
            raise
        self._held[spec.workspace_id] = held
        return held

    async def _take_back(self, info: WorkspaceInfo) -> None:
        with contextlib.suppress(WorkspaceNotFoundError):
            await self._remove(self.get(info.id))

    async def _destroy(self, held: HeldWorkspace) -> None:
        await held.destroy(lambda: self._forget(held))

    def _forget(self, held: HeldWorkspace) -> None:
        self._held.pop(held.info.id, None)

    def _expire(self, held: HeldWorkspace) -> None:
        _log.info("lease ended", extra={"workspace_id": held.info.id})
        self._reap(held)

    def _reap(self, held: HeldWorkspace) -> None:
        workspace_id = held.info.id
        if workspace_id not in self._removals:
            removal = self._removals[workspace_id] = asyncio.create_task(self._remove(held))
            removal.add_done_callback(lambda _: self._removals.pop(workspace_id, None))

    async def _remove(self, held: HeldWorkspace) -> None:
        """Removes a workspace that nobody waits for. A reaper: it reports what happens and tries again."""
        for pause in itertools.chain(_REMOVAL_PAUSES, itertools.repeat(_REMOVAL_PAUSES[-1])):
            try:
                return await self._destroy(held)
            except UnavailableError as error:
                _log.warning("a workspace cannot be removed yet: %s", error, extra={"workspace_id": held.info.id})
            except Exception:  # noqa: BLE001  a reaper
                _log.exception("a workspace could not be removed", extra={"workspace_id": held.info.id})
            if self._closed.is_set():
                return None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._closed.wait()
        return None


async def _first_answer(session: GuestSession, place: Place) -> tuple[Isolation, bool]:
    """Asks a new guest what it finds around it, again where a busy engine had not let it answer in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + FIRST_ANSWER
    while True:
        try:
            return await session.call_for(
                {"op": "info"}, lambda value: (payloads.isolation(value, place.runtime), payloads.in_gvisor(value))
            )
        except ProviderUnavailableError:
            raise
        except UnavailableError:
            if loop.time() > deadline:
                raise
            await asyncio.sleep(_FIRST_ANSWER_PAUSE)


async def _discard(provider: Provider, place: Place, session: GuestSession) -> None:
    await session.aclose()
    with contextlib.suppress(IsolationError):
        await provider.destroy(place)


def _describe(config: WorkspaceConfig, place: Place, isolation: Isolation, created_at: dt.datetime) -> WorkspaceInfo:
    return WorkspaceInfo(
        id=place.workspace_id,
        provider=config.provider,
        state=WorkspaceState.READY,
        working_dir=config.working_dir,
        created_at=created_at,
        lease_expires_at=created_at + dt.timedelta(seconds=config.lease),
        isolation=isolation,
        image=config.image or "",
        labels=dict(config.labels),
        host_path=place.host_path,
    )


def _new_workspace_id() -> str:
    return "ws-" + base64.b32encode(secrets.token_bytes(13)).decode().lower()[:20]


def _page_token(info: WorkspaceInfo) -> str:
    return base64.urlsafe_b64encode(f"{info.created_at.isoformat(timespec='microseconds')} {info.id}".encode()).decode()


def _parse_page_token(token: str) -> tuple[str, str]:
    try:
        created_at, workspace_id = base64.urlsafe_b64decode(token.encode()).decode().split(" ")
    except ValueError:
        raise InvalidArgumentError("not a token that this service gave out", field="page_token") from None
    return created_at, workspace_id
