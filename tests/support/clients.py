"""Client programs in processes of their own, to be killed."""

from __future__ import annotations

from tests.support.fork_server import ForkServer
from tests.support.program import Program
from tests.support.ways import Way


class ClientProgram(Program):
    """A running tests/support/client.py, which has made a workspace and runs commands in it.

    Args:
        way: Its way in.
        mode: `execute`, `stream`, or `idle` for a child in the background of a command that has ended.
        mark: The mark of its commands.
        lease: Seconds that its workspace outlives it.
        retry_timeout: Seconds that its commands outlive it.
    """

    def __init__(self, way: Way, *, mode: str, mark: str, lease: float, retry_timeout: float = 0) -> None:
        arguments = [way.name, way.target, str(way.service_pid), str(lease), mode, mark, str(retry_timeout)]
        super().__init__("tests.support.client", *arguments, name="the client", forks=ForkServer.shared)
        self.workspace_id = self.announcement
