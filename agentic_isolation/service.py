"""A client for what concerns a whole service: its workspaces and its description."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from types import TracebackType
from typing import Self

from agentic_isolation import _convert as convert
from agentic_isolation import _convert_images as images_convert
from agentic_isolation import _convert_interaction as interaction_convert
from agentic_isolation._channel import ChannelConnection
from agentic_isolation._connection import CALL_TIMEOUT, Connection
from agentic_isolation._retry import DEFAULT_RETRY_TIMEOUT, PASSING
from agentic_isolation._wire import check_text
from agentic_isolation.credentials import Credentials
from agentic_isolation.errors import ProviderUnavailableError, UnavailableError, WorkspaceNotFoundError
from agentic_isolation.images import ImageLayer, PulledImage
from agentic_isolation.interaction import ProcessInfo
from agentic_isolation.models import ServerInfo, WorkspaceInfo
from agentic_isolation.v1 import workspace_pb2 as pb

_SERVICE = pb.DESCRIPTOR.services_by_name["WorkspaceService"].full_name


class ServiceCalls:
    """What is asked of a whole service, over whichever connection.

    Args:
        connection: To the service; whoever has opened it closes it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

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
        request = pb.ListWorkspacesRequest(labels=convert.texts_to_pb(labels or {}, "labels"))
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
        request = pb.DestroyWorkspaceRequest(workspace_id=check_text(workspace_id, "workspace_id"))
        await connection.call(connection.stub.DestroyWorkspace, request, done=WorkspaceNotFoundError)

    async def pull_image(
        self, provider: str = "docker", image: str = ""
    ) -> AsyncGenerator[ImageLayer | PulledImage, None]:
        """Makes sure that an image is there: yields layers as they get further, and PulledImage at the end.

        Left, it does not end the download for others who wait for it. A connection that breaks is made again.

        Args:
            provider: "docker"; the local provider has no images.
            image: Its name; empty: the service's default.

        Raises:
            InvalidArgumentError: There is no such provider, it has no images, or the name is none.
            ImageUnavailableError: It is not there and cannot be pulled.
            UnavailableError: The service, or the provider's engine, cannot be reached.
        """
        connection = self._connection
        request = pb.PullImageRequest(provider=check_text(provider, "provider"), image=check_text(image, "image"))
        patience = connection.patience()
        while True:
            try:
                responses = connection.stream(connection.stub.PullImage, request)
                async with contextlib.aclosing(responses):
                    async for response in responses:
                        patience.renew()
                        event = images_convert.pull_event_from_pb(response)
                        if event is not None:
                            yield event
                        if isinstance(event, PulledImage):
                            return
                raise UnavailableError("the pull's call ended before the image was there")
            except ProviderUnavailableError:
                raise
            except PASSING as error:
                await patience.wait(error)

    async def describe_workspace(self, workspace_id: str) -> WorkspaceInfo:
        """Returns a workspace as it is now, with what it uses.

        Raises:
            WorkspaceNotFoundError: There is none of that id.
            UnavailableError: The service cannot be reached.
        """
        connection = self._connection
        request = pb.GetWorkspaceRequest(workspace_id=check_text(workspace_id, "workspace_id"))
        return convert.workspace_from_pb((await connection.call(connection.stub.GetWorkspace, request)).workspace)

    async def list_processes(self, workspace_id: str) -> list[ProcessInfo]:
        """Returns a workspace's processes; as AgenticWorkspace.processes, without being connected to it.

        Raises:
            WorkspaceNotFoundError: There is none of that id.
            UnavailableError: The service, or the workspace, cannot be reached.
        """
        connection = self._connection
        request = pb.ListProcessesRequest(workspace_id=check_text(workspace_id, "workspace_id"))
        answer = await connection.call(connection.stub.ListProcesses, request)
        return [interaction_convert.process_from_pb(process) for process in answer.processes]


class ServiceClient(ServiceCalls):
    """Looks after a running service's workspaces.

    Args:
        target: The service's address, `host:port` or `unix:PATH`.
        credentials: For the service; None: those of the environment.
        retry_timeout: Seconds for which calls bear with a service that cannot be reached; 0: not at all.
        replica: Behind a proxy, the replica to list and describe; None: any, by the proxy's choice.

    Raises:
        InvalidArgumentError: The retry_timeout is negative, infinite or no number, or a token would leave this machine
            in plaintext.
    """

    def __init__(
        self,
        target: str,
        *,
        credentials: Credentials | None = None,
        retry_timeout: float = DEFAULT_RETRY_TIMEOUT,
        replica: str | None = None,
    ) -> None:
        self._channel = ChannelConnection(target, credentials=credentials, retry_timeout=retry_timeout, replica=replica)
        super().__init__(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._channel.aclose()

    async def serves(self, *, timeout: float = CALL_TIMEOUT) -> bool:
        """Returns whether the service takes calls: not any more once it has been told to end. Asks once.

        Args:
            timeout: Seconds to wait for its answer.

        Raises:
            DeadlineError: It has not answered in time.
            UnavailableError: It cannot be reached.
        """
        return await self._channel.serves(_SERVICE, timeout=timeout)
