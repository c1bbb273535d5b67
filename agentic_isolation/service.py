"""A client for what concerns a whole service: its workspaces and its description."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Self

from agentic_isolation import _convert as convert
from agentic_isolation._channel import ChannelConnection
from agentic_isolation._retry import DEFAULT_RETRY_TIMEOUT
from agentic_isolation.errors import ProviderUnavailableError, WorkspaceNotFoundError
from agentic_isolation.models import ServerInfo, WorkspaceInfo
from agentic_isolation.v1 import workspace_pb2 as pb


class ServiceClient:
    """Looks after a running service's workspaces.

    Args:
        target: The service's address, `host:port` or `unix:PATH`.
        retry_timeout: Seconds for which calls bear with a service that cannot be reached; 0: not at all.

    Raises:
        InvalidArgumentError: The retry_timeout is negative, infinite or no number.
    """

    def __init__(self, target: str, *, retry_timeout: float = DEFAULT_RETRY_TIMEOUT) -> None:
        self._connection = ChannelConnection(target, retry_timeout=retry_timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._connection.aclose()

    async def info(self) -> ServerInfo:
        """Describes the service.

        Raises:
            UnavailableError: It cannot be reached.
        """
        connection = self._connection
        answer = await connection.call(
            connection.stub.GetServerInfo, pb.GetServerInfoRequest(), at_once=(ProviderUnavailableError,)
        )
        return convert.server_from_pb(answer)

    async def list_workspaces(self, labels: Mapping[str, str] | None = None) -> AsyncIterator[WorkspaceInfo]:
        """Yields the workspaces that have all of `labels`, oldest first.

        Raises:
            UnavailableError: The service cannot be reached.
        """
        connection = self._connection
        request = pb.ListWorkspacesRequest(labels=labels)
        while True:
            page = await connection.call(connection.stub.ListWorkspaces, request)
            for workspace in page.workspaces:
                yield convert.workspace_from_pb(workspace)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def destroy_workspace(self, workspace_id: str) -> None:
        """Kills everything in a workspace and removes it.

        Raises:
            WorkspaceNotFoundError: There is none of that id.
            UnavailableError: The service cannot be reached.
        """
        connection = self._connection
        request = pb.DestroyWorkspaceRequest(workspace_id=workspace_id)
        await connection.call(connection.stub.DestroyWorkspace, request, done=WorkspaceNotFoundError)
