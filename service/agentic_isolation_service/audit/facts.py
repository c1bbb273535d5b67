"""What is written down of a call: names, numbers and results, and nothing that is content.

No paths but those of the host that are mounted, no arguments, environment, labels, input, output, file contents,
request ids or messages of errors. Strings that a caller chooses are written down only where they have the form of what
they should be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation_service.core.processes import process_id_of
from agentic_isolation_service.core.replicas import is_id
from agentic_isolation_service.rpc.calls import Call

_Facts = dict[str, object]

_PROCESS = re.compile(r"[pr]-[0-9a-f]{16,32}").fullmatch
_PROVIDER = re.compile(r"[a-z][a-z0-9]{0,15}")
_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._/:-]{0,254}(@sha256:[0-9a-f]{64})?")
_HOST_PATH = re.compile(r"/[A-Za-z0-9._/@+-]{0,254}")
_USER = re.compile(r"[0-9]{1,10}(:[0-9]{1,10})?")
_CAUSES = {number: name.removeprefix("TERMINATION_CAUSE_") for name, number in pb.TerminationCause.items()}
_NETWORKS = {number: name.removeprefix("NETWORK_MODE_").lower() for name, number in pb.NetworkMode.items()}


def facts_of(call: Call) -> _Facts:
    """Returns what is known of a call now: where it goes, what it asks for and, once there is a response, what came."""
    method, request, response = call.method, call.request, call.response
    facts: _Facts = {}
    what: _Facts = {}
    if request is not None and (opening := _OPENINGS.get(method)):
        request = getattr(request, opening)
    if request is not None:
        if (name := getattr(request, "workspace_id", "")) and is_id(name):
            facts["workspace"] = name
        if asked := _ASKED.get(method):
            what |= asked(request)
    if response is not None:
        if found := _FOUND.get(method):
            facts |= found(call.first_response, response)
        if given := _GIVEN.get(method):
            what |= given(response)
    named = _PROCESSES.get(method)
    if named and request is not None and "process" not in facts and (process := named(request)):
        facts["process"] = process
    if what:
        facts["what"] = what
    return facts


def _named(request: pb.WaitProcessRequest | pb.SignalProcessRequest | pb.ProcessResume) -> str | None:
    return request.process_id if _PROCESS(request.process_id) else None


def _started(request: pb.ExecuteRequest | pb.StreamRequest | pb.AttachOpen | pb.SignalProcessRequest) -> str | None:
    """Returns the process that a request starts, where its id follows from the request's."""
    try:
        return process_id_of(request.request_id) if request.request_id else None
    except InvalidArgumentError:
        return None


def _run(request: pb.StreamRequest | pb.AttachOpen) -> str | None:
    return _named(request.resume) if request.HasField("resume") else _started(request)


def _executed(_first: pb.ExecuteResponse, response: pb.ExecuteResponse) -> _Facts:
    return {"process": response.process_id, "termination": _termination(response.termination)}


def _streamed(first: pb.StreamResponse | pb.AttachResponse, last: pb.StreamResponse | pb.AttachResponse) -> _Facts:
    found: _Facts = {"process": first.started.process_id} if first.HasField("started") else {}
    return found | ({"termination": _termination(last.exited.termination)} if last.HasField("exited") else {})


def _formed(form: re.Pattern[str], text: str) -> str | None:
    return text if form.fullmatch(text) else None


def _termination(termination: pb.Termination) -> _Facts:
    facts: _Facts = {"cause": _CAUSES.get(termination.cause, "UNKNOWN")}
    if status := termination.WhichOneof("status"):
        facts[status] = getattr(termination, status)
    return facts


def _created(request: pb.CreateWorkspaceRequest) -> _Facts:
    """Of the protections and limits those that were asked for: what is weaker than production's is among them."""
    security = {field.name: value for field, value in request.security.ListFields() if field.name != "user"}
    if user := _formed(_USER, request.security.user):
        security["user"] = user
    limits = {field.name: value for field, value in request.limits.ListFields()}
    if "network" in limits:
        limits["network"] = _NETWORKS.get(request.limits.network, "unknown")
    mounts = [_mount(mount) for mount in request.mounts]
    counts = {"environment_count": len(request.environment), "secrets_count": len(request.secrets)}
    asked = {"security": security, "limits": limits, "mounts": mounts} | counts
    return _image(request) | {name: value for name, value in asked.items() if value}


def _mount(mount: pb.Mount) -> str:
    writable = mount.HasField("read_only") and not mount.read_only
    return f"{_formed(_HOST_PATH, mount.source) or '?'}:{'rw' if writable else 'ro'}"


def _image(request: pb.CreateWorkspaceRequest | pb.PullImageRequest) -> _Facts:
    named = {"provider": _formed(_PROVIDER, request.provider), "image": _formed(_IMAGE, request.image)}
    return {name: value for name, value in named.items() if value}


def _command(command: pb.Command) -> _Facts:
    facts: _Facts = {"stdin_bytes": len(command.stdin)} if command.HasField("stdin") else {}
    if command.user and (user := _formed(_USER, command.user)):
        facts["user"] = user
    return facts


def _target(request: pb.StreamRequest | pb.AttachOpen) -> _Facts:
    if request.WhichOneof("target") == "resume":
        return {"resume": True} | _set(request.resume, "observe")
    return _command(request.start.command) | _set(request.start, "detached")


def _set(message: Any, *names: str) -> _Facts:
    """Returns the fields of a message that are numbers or true."""
    return {name: getattr(message, name) for name in names if getattr(message, name)}


def _mode(request: Any) -> _Facts:
    return {"mode": f"{request.mode & 0xFFFF:04o}"} if request.HasField("mode") else {}


def _summary(response: pb.WriteArchiveResponse | pb.ReadArchiveEnd) -> _Facts:
    return _set(response.summary, "files_count", "content_bytes")


_OPENINGS = {"WriteFile": "header", "WriteArchive": "header", "Attach": "open"}
"""Fields of a first request that say what the call is about, by method."""

_PROCESSES: Mapping[str, Callable[[Any], str | None]] = {
    "Execute": _started,
    "Stream": _run,
    "Attach": _run,
    "WaitProcess": _named,
    "SignalProcess": lambda request: _named(request) or _started(request),
}
"""The process that a request is about, by method."""

_FOUND: Mapping[str, Callable[[Any, Any], _Facts]] = {
    "CreateWorkspace": lambda _first, response: {"workspace": response.workspace.workspace_id},
    "Execute": _executed,
    "Stream": _streamed,
    "Attach": _streamed,
    "WaitProcess": lambda _first, response: {"termination": _termination(response.termination)},
}
"""Which workspace or process it was, and how the process has ended, by the first and the last response."""

_ASKED: Mapping[str, Callable[[Any], _Facts]] = {
    "CreateWorkspace": _created,
    "PullImage": _image,
    "Execute": lambda request: _command(request.command),
    "Stream": _target,
    "Attach": lambda opening: (
        _target(opening) | _set(opening, "read_only", "take_input") | {"terminal": opening.HasField("terminal")}
    ),
    "SignalProcess": lambda request: _set(request, "signal", "tree", "foreground"),
    "WriteFile": _mode,
    "MakeDirectory": _mode,
    "ChangeFileMode": _mode,
    "MoveFile": lambda request: _set(request, "overwrite"),
    "CopyFile": lambda request: _set(request, "overwrite", "recursive"),
    "RemoveFile": lambda request: _set(request, "recursive"),
    "WatchDirectory": lambda request: _set(request, "recursive"),
}
"""What of a request is written down beside its workspace and process, by method."""

_GIVEN: Mapping[str, Callable[[Any], _Facts]] = {
    "CreateWorkspace": lambda response: {
        "image": response.workspace.image,
        "runtime": response.workspace.isolation.runtime,
    },
    "ListWorkspaces": lambda response: {"workspaces_count": len(response.workspaces)},
    "Execute": lambda response: {
        "stdout_bytes": response.stdout.total_bytes,
        "stderr_bytes": response.stderr.total_bytes,
    },
    "ListProcesses": lambda response: {"processes_count": len(response.processes)},
    "WriteFile": lambda response: {"content_bytes": response.file.size_bytes},
    "ReadFile": lambda response: {"content_bytes": response.end.size_bytes} if response.HasField("end") else {},
    "ListDirectory": lambda response: {"files_count": len(response.files)},
    "WriteArchive": _summary,
    "ReadArchive": lambda response: _summary(response.end) if response.HasField("end") else {},
}
"""What of a response is written down, by method; of a stream, of its last message."""
