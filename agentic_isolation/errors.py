"""What can go wrong, as one tree.

Every class has the `reason` that travels in google.rpc.ErrorInfo and the `code`, a gRPC status name. The server turns
an error into a status by these two, the client turns a status into the error by its reason: there is no other table.

    IsolationError                       INTERNAL
    ├── InvalidArgumentError             INVALID_ARGUMENT     also a ValueError; `field` names the culprit
    │   └── PathEscapesError             INVALID_ARGUMENT     a path leads out of the workspace
    ├── UnsupportedError                 UNIMPLEMENTED        also a NotImplementedError
    ├── UnavailableError                 UNAVAILABLE          retryable
    │   ├── ProviderUnavailableError     UNAVAILABLE          the engine cannot be reached
    │   ├── RegistryUnavailableError     UNAVAILABLE          the service cannot write down what it does
    │   ├── AuditUnavailableError        UNAVAILABLE          the service cannot write down who has asked for it
    │   └── OverloadedError              UNAVAILABLE          the service has more to do than it can; nothing was done
    ├── DeadlineError                    DEADLINE_EXCEEDED    also a TimeoutError: the wait was over, not the command
    ├── WorkspaceLostError               ABORTED              the place is gone
    ├── CapacityError                    RESOURCE_EXHAUSTED   the server is full
    ├── QuotaError                       RESOURCE_EXHAUSTED   more than its tenant, or all together, may; `subject`
    ├── ProcessLimitError                RESOURCE_EXHAUSTED   the workspace is full
    ├── UnauthenticatedError             UNAUTHENTICATED      the service does not know who calls
    ├── NotAllowedError                  PERMISSION_DENIED    it knows, and they may not
    ├── NotFoundError                    NOT_FOUND            also a LookupError
    │   ├── WorkspaceNotFoundError
    │   └── ProcessNotFoundError
    ├── OffsetError                      OUT_OF_RANGE         resume past the end of the output
    ├── PreconditionError                FAILED_PRECONDITION
    │   ├── IsolationUnavailableError                         a protection that was asked for cannot be had
    │   ├── ImageUnavailableError
    │   ├── ResultForgottenError                              the run of a repeated request is no longer remembered
    │   ├── InputTakenError                                   another attachment writes to the process
    │   ├── WrongReplicaError                                 another replica has it; `replica` names it
    │   └── NoTerminalError                                   the process has no terminal
    ├── StartError                       FAILED_PRECONDITION  the command could not start
    │   ├── ProgramNotFoundError         NOT_FOUND
    │   ├── WorkingDirNotFoundError      NOT_FOUND
    │   ├── ProgramNotExecutableError
    │   └── UserUnavailableError
    ├── FileError                        FAILED_PRECONDITION  also an OSError
    │   ├── WorkspaceFileNotFoundError   NOT_FOUND            also a FileNotFoundError
    │   ├── WorkspaceFileExistsError     ALREADY_EXISTS       also a FileExistsError
    │   ├── FilePermissionError          PERMISSION_DENIED    also a PermissionError
    │   ├── WorkspaceNotADirectoryError                       also a NotADirectoryError
    │   ├── WorkspaceIsADirectoryError                        also an IsADirectoryError
    │   ├── NotARegularFileError
    │   ├── DirectoryNotEmptyError
    │   ├── NoSpaceError                 RESOURCE_EXHAUSTED
    │   ├── ContentMismatchError         DATA_LOSS            what arrived is not what was sent
    │   ├── BadArchiveError              INVALID_ARGUMENT     a tar stream that cannot be unpacked
    │   └── WatchLimitError              RESOURCE_EXHAUSTED   the kernel allows no more watches
    └── ClosedError                      FAILED_PRECONDITION  a workspace object used before or after its life
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AuditUnavailableError",
    "BadArchiveError",
    "CapacityError",
    "ClosedError",
    "ContentMismatchError",
    "DeadlineError",
    "DirectoryNotEmptyError",
    "FileError",
    "FilePermissionError",
    "ImageUnavailableError",
    "InputTakenError",
    "InvalidArgumentError",
    "IsolationError",
    "IsolationUnavailableError",
    "NoSpaceError",
    "NoTerminalError",
    "NotARegularFileError",
    "NotAllowedError",
    "NotFoundError",
    "OffsetError",
    "OverloadedError",
    "PathEscapesError",
    "PreconditionError",
    "ProcessLimitError",
    "ProcessNotFoundError",
    "ProgramNotExecutableError",
    "ProgramNotFoundError",
    "ProviderUnavailableError",
    "QuotaError",
    "RegistryUnavailableError",
    "ResultForgottenError",
    "StartError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnsupportedError",
    "UserUnavailableError",
    "WatchLimitError",
    "WorkingDirNotFoundError",
    "WorkspaceFileExistsError",
    "WorkspaceFileNotFoundError",
    "WorkspaceIsADirectoryError",
    "WorkspaceLostError",
    "WorkspaceNotADirectoryError",
    "WorkspaceNotFoundError",
    "WrongReplicaError",
    "error_classes",
]


class IsolationError(Exception):
    """The root of the tree; raised itself only for a defect of the server.

    Attributes:
        reason: The word in google.rpc.ErrorInfo.
        code: The gRPC status name.
        field: Path of the offending request field, for example "command.timeout"; None where no field is at fault.
        retry_after: Seconds after which the same may be asked again, as nothing of it was carried out; None where the
            service does not say so.
    """

    reason: ClassVar[str] = "INTERNAL"
    code: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, field: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after = retry_after

    def __str__(self) -> str:
        # OSError's own __str__ would hide the message of the classes that are OSErrors too.
        return f"{self.field}: {self.message}" if self.field else self.message


class InvalidArgumentError(IsolationError, ValueError):
    """A field is missing, malformed or out of its range."""

    reason = "INVALID_ARGUMENT"
    code = "INVALID_ARGUMENT"


class PathEscapesError(InvalidArgumentError):
    """A path, or a symlink on it, leads out of the workspace."""

    reason = "PATH_ESCAPES"


class UnsupportedError(IsolationError, NotImplementedError):
    """The server does not have this yet."""

    reason = "UNIMPLEMENTED"
    code = "UNIMPLEMENTED"


class UnavailableError(IsolationError):
    """The server drains, or cannot reach the workspace for now. May be retried."""

    reason = "UNAVAILABLE"
    code = "UNAVAILABLE"


class ProviderUnavailableError(UnavailableError):
    """The provider's engine cannot be reached."""

    reason = "PROVIDER_UNAVAILABLE"


class RegistryUnavailableError(UnavailableError):
    """The service cannot read or write its registry, and refuses what it could not answer for."""

    reason = "REGISTRY_UNAVAILABLE"


class AuditUnavailableError(UnavailableError):
    """The service cannot write its audit log, and refuses what it could not account for."""

    reason = "AUDIT_UNAVAILABLE"


class OverloadedError(UnavailableError):
    """The service has more to do than it can, and has done nothing of this. `retry_after` says when to try again."""

    reason = "OVERLOADED"


class DeadlineError(IsolationError, TimeoutError):
    """The time to wait for an answer was over. It says nothing about the command."""

    reason = "DEADLINE_EXCEEDED"
    code = "DEADLINE_EXCEEDED"


class WorkspaceLostError(IsolationError):
    """The workspace's place is gone or broke the protocol; it can only be destroyed."""

    reason = "WORKSPACE_LOST"
    code = "ABORTED"


class CapacityError(IsolationError):
    """The server has as many workspaces as it may."""

    reason = "CAPACITY"
    code = "RESOURCE_EXHAUSTED"


class QuotaError(IsolationError):
    """It would be more than the caller's tenant, or the whole service, may have. Nothing of it was carried out.

    Attributes:
        subject: Whose quota it is: "tenant:NAME", or "service".
    """

    reason = "QUOTA_EXCEEDED"
    code = "RESOURCE_EXHAUSTED"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        retry_after: float | None = None,
        subject: str = "service",
    ) -> None:
        super().__init__(message, field=field, retry_after=retry_after)
        self.subject = subject


class ProcessLimitError(IsolationError):
    """The workspace has no room for another process."""

    reason = "PROCESS_LIMIT"
    code = "RESOURCE_EXHAUSTED"


class UnauthenticatedError(IsolationError):
    """The caller has not proved who it is, in a way that the service accepts."""

    reason = "UNAUTHENTICATED"
    code = "UNAUTHENTICATED"


class NotAllowedError(IsolationError):
    """The caller is known, and may not have what it asks for: its tenant's policy, or its scope, is against it."""

    reason = "NOT_ALLOWED"
    code = "PERMISSION_DENIED"


class NotFoundError(IsolationError, LookupError):
    """What a request names is not there."""

    reason = "NOT_FOUND"
    code = "NOT_FOUND"


class WorkspaceNotFoundError(NotFoundError):
    """The workspace never existed, was destroyed, or its lease has run out."""

    reason = "WORKSPACE_NOT_FOUND"


class ProcessNotFoundError(NotFoundError):
    """There is no such process, or it is no longer remembered."""

    reason = "PROCESS_NOT_FOUND"


class OffsetError(IsolationError):
    """The offset to resume from has not been written yet."""

    reason = "OFFSET_OUT_OF_RANGE"
    code = "OUT_OF_RANGE"


class PreconditionError(IsolationError):
    """The host, the server or the workspace is not in the state that the request needs."""

    reason = "FAILED_PRECONDITION"
    code = "FAILED_PRECONDITION"


class IsolationUnavailableError(PreconditionError):
    """A protection or limit that was asked for cannot be had there; nothing was created."""

    reason = "ISOLATION_UNAVAILABLE"


class ImageUnavailableError(PreconditionError):
    """The image is not there and cannot be pulled."""

    reason = "IMAGE_UNAVAILABLE"


class ResultForgottenError(PreconditionError):
    """The request was carried out before, and its result is no longer remembered. It is not carried out again."""

    reason = "RESULT_FORGOTTEN"


class InputTakenError(PreconditionError):
    """Another attachment writes to the process's standard input."""

    reason = "INPUT_TAKEN"


class WrongReplicaError(PreconditionError):
    """Another replica has the workspace. The client repeats the call there by itself, once.

    Attributes:
        replica: Its name, which a proxy routes by: metadata `agentic-isolation-replica`.
    """

    reason = "WRONG_REPLICA"

    def __init__(
        self, message: str, *, field: str | None = None, retry_after: float | None = None, replica: str = ""
    ) -> None:
        super().__init__(message, field=field, retry_after=retry_after)
        self.replica = replica


class NoTerminalError(PreconditionError):
    """The process has no terminal."""

    reason = "NO_TERMINAL"


class StartError(IsolationError):
    """The command could not start."""

    reason = "START_FAILED"
    code = "FAILED_PRECONDITION"


class ProgramNotFoundError(StartError):
    """No such program in the command's PATH."""

    reason = "PROGRAM_NOT_FOUND"
    code = "NOT_FOUND"


class WorkingDirNotFoundError(StartError):
    """The command's working directory is not there, or is no directory."""

    reason = "WORKING_DIR_NOT_FOUND"
    code = "NOT_FOUND"


class ProgramNotExecutableError(StartError):
    """The program is there and cannot be executed."""

    reason = "PROGRAM_NOT_EXECUTABLE"


class UserUnavailableError(StartError):
    """The workspace's user may not run commands as the one that was asked for."""

    reason = "USER_UNAVAILABLE"


class FileError(IsolationError, OSError):
    """A refusal of the workspace's file system, in its own words."""

    reason = "FILE_SYSTEM"
    code = "FAILED_PRECONDITION"


class WorkspaceFileNotFoundError(FileError, FileNotFoundError):
    """Nothing has that path."""

    reason = "FILE_NOT_FOUND"
    code = "NOT_FOUND"


class WorkspaceFileExistsError(FileError, FileExistsError):
    """The path is taken."""

    reason = "FILE_EXISTS"
    code = "ALREADY_EXISTS"


class FilePermissionError(FileError, PermissionError):
    """The workspace's user may not."""

    reason = "PERMISSION_DENIED"
    code = "PERMISSION_DENIED"


class WorkspaceNotADirectoryError(FileError, NotADirectoryError):
    """A parent of the path, or what should be a directory, is none."""

    reason = "NOT_A_DIRECTORY"


class WorkspaceIsADirectoryError(FileError, IsADirectoryError):
    """The path is a directory."""

    reason = "IS_A_DIRECTORY"


class NotARegularFileError(FileError):
    """The path is a device, a pipe or a socket."""

    reason = "NOT_A_REGULAR_FILE"


class DirectoryNotEmptyError(FileError):
    """The directory has content."""

    reason = "DIRECTORY_NOT_EMPTY"


class NoSpaceError(FileError):
    """The workspace's disk is full."""

    reason = "NO_SPACE"
    code = "RESOURCE_EXHAUSTED"


class ContentMismatchError(FileError):
    """What arrived is not what was sent, by its length or its digest. Nothing was changed."""

    reason = "CONTENT_MISMATCH"
    code = "DATA_LOSS"


class BadArchiveError(FileError):
    """It is no tar stream, is cut off, or holds an entry that cannot be unpacked."""

    reason = "BAD_ARCHIVE"
    code = "INVALID_ARGUMENT"


class WatchLimitError(FileError):
    """The kernel allows no more watches."""

    reason = "WATCH_LIMIT"
    code = "RESOURCE_EXHAUSTED"


class ClosedError(IsolationError):
    """A workspace object was used before it was opened or after it was closed."""

    reason = "CLOSED"
    code = "FAILED_PRECONDITION"


def error_classes(root: type[IsolationError] = IsolationError) -> dict[str, type[IsolationError]]:
    """Returns every class of the tree by its reason."""
    classes = {root.reason: root}
    for child in root.__subclasses__():
        for reason, kind in error_classes(child).items():
            classes.setdefault(reason, kind)  # one without a reason of its own travels as its parent
    return classes
