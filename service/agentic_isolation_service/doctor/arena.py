"""Where attacks happen: workspaces of one profile, made through the public client."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self

from agentic_isolation import AgenticWorkspace, IsolationError, ResourceLimits
from agentic_isolation._cleanup import finish
from agentic_isolation_service.doctor.findings import Outcome, Verdict, not_blocked
from agentic_isolation_service.doctor.profiles import Profile
from agentic_isolation_service.guest.binary import guest_binary

PATIENCE = 20.0
"""Seconds that anything short may take in a workspace under attack."""
_LEASE = 120.0


class DoctorError(Exception):
    """The doctor itself does not work; it says nothing about the isolation."""


class Arena:
    """Workspaces of a profile.

    Args:
        profile: How they are made.
        image: Their image; None: the service's default.
    """

    def __init__(self, profile: Profile, image: str | None = None) -> None:
        self.profile = profile
        self._image = image
        self._shared: AgenticWorkspace | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await finish(self._discard())

    @contextlib.asynccontextmanager
    async def fresh(
        self,
        *,
        limits: ResourceLimits | None = None,
        environment: Mapping[str, str] | None = None,
        pids_limit: int | None = None,
    ) -> AsyncIterator[AgenticWorkspace]:
        """Makes a workspace for one attack."""
        workspace = self._describe(limits, environment, pids_limit)
        try:
            yield await workspace
        finally:
            await _close(workspace)

    async def shared(self) -> AgenticWorkspace:
        """Returns the workspace of attacks that leave it as it was; made anew when one did not."""
        if self._shared is None:
            self._shared = await self._describe()
        return self._shared

    async def guest_in(self, workspace: AgenticWorkspace) -> str:
        """Returns the path of the guest's program in a workspace: in a container it is another one each time."""
        if self.profile.provider != "docker":
            return str(guest_binary())
        command = await workspace.read_file("/proc/1/cmdline")
        return command.partition(b"\0")[0].decode()

    async def probe(self, name: str, *arguments: str) -> Verdict:
        """Runs one of the guest's probes in the shared workspace."""
        workspace = await self.shared()
        verdict = await self.probe_in(workspace, name, *arguments)
        if verdict.outcome is Outcome.NOT_BLOCKED and not await self.answers(workspace):
            await self._discard()
        return verdict

    async def probe_in(self, workspace: AgenticWorkspace, name: str, *arguments: str) -> Verdict:
        """Runs a probe. One that takes the workspace away, or makes it fall silent, was not blocked.

        Raises:
            DoctorError: The probe does not work.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                command = [await self.guest_in(workspace), "probe", name, *arguments]
                result = await workspace.execute(command, timeout=PATIENCE / 2)
        except TimeoutError:
            return not_blocked(f"the workspace has not answered for {PATIENCE:g} s since")
        except IsolationError as error:
            return not_blocked(f"the workspace ended: {error}")
        if result.timed_out:
            return not_blocked(f"it was not over within {PATIENCE / 2:g} s")
        if result.termination is not None and result.termination.signal is not None:
            told = f"; its last words: {result.stderr.splitlines()[-1]}" if result.stderr.strip() else ""
            return not_blocked(f"it was killed by signal {result.termination.signal} meanwhile{told}")
        return verdict_of(result.stdout, f"{' '.join(command)}: exit code {result.exit_code}, {result.stderr.strip()}")

    async def answers(self, workspace: AgenticWorkspace) -> bool:
        """Returns whether a workspace still runs commands."""
        try:
            async with asyncio.timeout(PATIENCE):
                return (await workspace.execute([await self.guest_in(workspace), "version"])).success
        except (IsolationError, TimeoutError):
            return False

    def _describe(
        self,
        limits: ResourceLimits | None = None,
        environment: Mapping[str, str] | None = None,
        pids_limit: int | None = None,
    ) -> AgenticWorkspace:
        security = self.profile.security
        if security is not None and pids_limit is not None:
            security = replace(security, pids_limit=pids_limit)
        return AgenticWorkspace.create(
            self.profile.provider,
            self._image,
            security=security,
            limits=limits,
            environment=environment,
            lease=_LEASE,
            target="",
            retry_timeout=0,  # one that falls silent is a finding, and nothing to wait for
        )

    async def _discard(self) -> None:
        workspace, self._shared = self._shared, None
        if workspace is not None:
            await _close(workspace)


def verdict_of(output: str, otherwise: str) -> Verdict:
    """Returns the verdict that a probe has printed.

    Raises:
        DoctorError: It has printed none; the message is `otherwise`.
    """
    try:
        report = json.loads(output)
        return Verdict(Outcome(report["outcome"]), str(report["detail"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DoctorError(otherwise) from error


async def _close(workspace: AgenticWorkspace) -> None:
    # Some attacks have taken it away already, and what they did is told by their verdict.
    with contextlib.suppress(IsolationError):
        await workspace.close()
