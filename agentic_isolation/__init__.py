"""Hardened workspaces for AI agents.

async with AgenticWorkspace.create(provider="docker", security=SecurityConfig.production()) as ws:
    result = await ws.execute("python3 script.py")
    async for line in ws.stream(["python3", "-u", "agent.py"]):
        print(line)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from agentic_isolation._version import __version__

if TYPE_CHECKING:
    from agentic_isolation.changes import FileChange, FileChangeType, WatchOverflow
    from agentic_isolation.credentials import Credentials
    from agentic_isolation.errors import (
        AuditUnavailableError,
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
        NotAllowedError,
        NotARegularFileError,
        NoTerminalError,
        NotFoundError,
        OffsetError,
        OverloadedError,
        PathEscapesError,
        PreconditionError,
        ProcessLimitError,
        ProcessNotFoundError,
        ProgramNotExecutableError,
        ProgramNotFoundError,
        ProviderUnavailableError,
        QuotaError,
        RegistryUnavailableError,
        ResultForgottenError,
        StartError,
        UnauthenticatedError,
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
        WrongReplicaError,
    )
    from agentic_isolation.files import Files, FileWatch
    from agentic_isolation.images import ImageLayer, PulledImage
    from agentic_isolation.interaction import ProcessInfo, TerminalSize
    from agentic_isolation.jsonl import JsonLine
    from agentic_isolation.models import (
        FileInfo,
        FileType,
        Isolation,
        Mount,
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
    from agentic_isolation_service.direct import WorkspaceDockerProvider, WorkspaceLocalProvider

__all__ = [
    "AgenticWorkspace",
    "AuditUnavailableError",
    "BadArchiveError",
    "CapacityError",
    "CapturedOutput",
    "ClosedError",
    "ContentMismatchError",
    "Credentials",
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
    "Mount",
    "NetworkMode",
    "NoSpaceError",
    "NoTerminalError",
    "NotARegularFileError",
    "NotAllowedError",
    "NotFoundError",
    "OffsetError",
    "Output",
    "OutputSource",
    "OutputStream",
    "OverloadedError",
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
    "QuotaError",
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
    "UnauthenticatedError",
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
    "WrongReplicaError",
    "__version__",
]

_HOMES = (
    "agentic_isolation.errors",
    "agentic_isolation.credentials",
    "agentic_isolation.models",
    "agentic_isolation.runs",
    "agentic_isolation.transfer",
    "agentic_isolation.changes",
    "agentic_isolation.images",
    "agentic_isolation.interaction",
    "agentic_isolation.jsonl",
    "agentic_isolation.files",
    "agentic_isolation.stream",
    "agentic_isolation.process",
    "agentic_isolation.service",
    "agentic_isolation.workspace",
    "agentic_isolation_service.direct",
)
"""Where the public names are, each module after those that it needs: gRPC comes with the files, the service last."""

if not TYPE_CHECKING:  # they know the names already, and would take any other one for a name, too

    def __getattr__(name: str) -> object:
        """Loads what is public, and what it needs, when it is first asked for (PEP 562)."""
        if f"{__name__}.{name}" in _HOMES:
            return importlib.import_module(f"{__name__}.{name}")
        if name in __all__:
            for home in _HOMES:
                module = importlib.import_module(home)
                if hasattr(module, name):
                    globals()[name] = getattr(module, name)
                    return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
