"""Hardened workspaces for AI agents.

async with AgenticWorkspace.create(provider="docker", security=SecurityConfig.production()) as ws:
    result = await ws.execute("python3 script.py")
    async for line in ws.stream(["python3", "-u", "agent.py"]):
        print(line)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentic_isolation._version import __version__
from agentic_isolation.changes import FileChange, FileChangeType, WatchOverflow
from agentic_isolation.errors import (
    BadArchiveError,
    CapacityError,
    ClosedError,
    ContentMismatchError,
    DeadlineError,
    DirectoryNotEmptyError,
    FileError,
    FilePermissionError,
    ImageUnavailableError,
    InputTakenError,
    InvalidArgumentError,
    IsolationError,
    IsolationUnavailableError,
    NoSpaceError,
    NotARegularFileError,
    NoTerminalError,
    NotFoundError,
    OffsetError,
    PathEscapesError,
    PreconditionError,
    ProcessLimitError,
    ProcessNotFoundError,
    ProgramNotExecutableError,
    ProgramNotFoundError,
    ProviderUnavailableError,
    RegistryUnavailableError,
    ResultForgottenError,
    StartError,
    UnavailableError,
    UnsupportedError,
    UserUnavailableError,
    WatchLimitError,
    WorkingDirNotFoundError,
    WorkspaceFileExistsError,
    WorkspaceFileNotFoundError,
    WorkspaceIsADirectoryError,
    WorkspaceLostError,
    WorkspaceNotADirectoryError,
    WorkspaceNotFoundError,
)
from agentic_isolation.files import Files, FileWatch
from agentic_isolation.images import ImageLayer, PulledImage
from agentic_isolation.interaction import ProcessInfo, TerminalSize
from agentic_isolation.jsonl import JsonLine
from agentic_isolation.models import (
    FileInfo,
    FileType,
    Isolation,
    NetworkMode,
    PoolInfo,
    ProviderInfo,
    ResourceLimits,
    ResourceUsage,
    SecurityConfig,
    ServerInfo,
    WorkspaceConfig,
    WorkspaceInfo,
    WorkspaceState,
)
from agentic_isolation.process import Process
from agentic_isolation.runs import (
    CapturedOutput,
    ExecuteResult,
    Exited,
    Gap,
    Output,
    OutputSource,
    ProcessEvent,
    Started,
    Termination,
    TerminationCause,
)
from agentic_isolation.service import ServiceClient
from agentic_isolation.stream import JsonStream, OutputStream
from agentic_isolation.transfer import TransferProgress, TransferSummary
from agentic_isolation.workspace import AgenticWorkspace

if TYPE_CHECKING:
    from agentic_isolation_service.direct import WorkspaceDockerProvider, WorkspaceLocalProvider

__all__ = [
    "AgenticWorkspace",
    "BadArchiveError",
    "CapacityError",
    "CapturedOutput",
    "ClosedError",
    "ContentMismatchError",
    "DeadlineError",
    "DirectoryNotEmptyError",
    "ExecuteResult",
    "Exited",
    "FileChange",
    "FileChangeType",
    "FileError",
    "FileInfo",
    "FilePermissionError",
    "FileType",
    "FileWatch",
    "Files",
    "Gap",
    "ImageLayer",
    "ImageUnavailableError",
    "InputTakenError",
    "InvalidArgumentError",
    "Isolation",
    "IsolationError",
    "IsolationUnavailableError",
    "JsonLine",
    "JsonStream",
    "NetworkMode",
    "NoSpaceError",
    "NoTerminalError",
    "NotARegularFileError",
    "NotFoundError",
    "OffsetError",
    "Output",
    "OutputSource",
    "OutputStream",
    "PathEscapesError",
    "PoolInfo",
    "PreconditionError",
    "Process",
    "ProcessEvent",
    "ProcessInfo",
    "ProcessLimitError",
    "ProcessNotFoundError",
    "ProgramNotExecutableError",
    "ProgramNotFoundError",
    "ProviderInfo",
    "ProviderUnavailableError",
    "PulledImage",
    "RegistryUnavailableError",
    "ResourceLimits",
    "ResourceUsage",
    "ResultForgottenError",
    "SecurityConfig",
    "ServerInfo",
    "ServiceClient",
    "StartError",
    "Started",
    "TerminalSize",
    "Termination",
    "TerminationCause",
    "TransferProgress",
    "TransferSummary",
    "UnavailableError",
    "UnsupportedError",
    "UserUnavailableError",
    "WatchLimitError",
    "WatchOverflow",
    "WorkingDirNotFoundError",
    "WorkspaceConfig",
    "WorkspaceDockerProvider",
    "WorkspaceFileExistsError",
    "WorkspaceFileNotFoundError",
    "WorkspaceInfo",
    "WorkspaceIsADirectoryError",
    "WorkspaceLocalProvider",
    "WorkspaceLostError",
    "WorkspaceNotADirectoryError",
    "WorkspaceNotFoundError",
    "WorkspaceState",
    "__version__",
]

_DIRECT_PROVIDERS = frozenset({"WorkspaceDockerProvider", "WorkspaceLocalProvider"})


def __getattr__(name: str) -> object:
    """Loads the direct providers when they are first asked for (PEP 562): they bring the service with them."""
    if name in _DIRECT_PROVIDERS:
        from agentic_isolation_service import direct

        return getattr(direct, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
