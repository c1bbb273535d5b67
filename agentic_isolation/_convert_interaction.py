"""Interactive and background processes: models ↔ messages of the contract."""

from __future__ import annotations

from agentic_isolation import _convert as convert
from agentic_isolation import _convert_runs as run_convert
from agentic_isolation._wire import check_type, check_unsigned
from agentic_isolation.interaction import AttachEvent, InputProgress, ProcessInfo, TerminalSize
from agentic_isolation.v1 import workspace_pb2 as pb


def size_to_pb(size: TerminalSize, field: str) -> pb.TerminalSize:
    """TerminalSize → message. Raises InvalidArgumentError, naming the field, where no terminal can have it."""
    size = check_type(size, field, TerminalSize)
    return pb.TerminalSize(
        columns=check_unsigned(size.columns or 0, f"{field}.columns", bits=16, least=1),
        rows=check_unsigned(size.rows or 0, f"{field}.rows", bits=16, least=1),
    )


def size_from_pb(message: pb.TerminalSize) -> TerminalSize:
    """Message → TerminalSize."""
    return TerminalSize(message.columns, message.rows)


def attach_event_to_pb(event: AttachEvent) -> pb.AttachResponse:
    """AttachEvent → AttachResponse."""
    if isinstance(event, InputProgress):
        return pb.AttachResponse(input=pb.InputProgress(offset=event.offset, ended=event.ended))
    return run_convert.event_to_pb(event, pb.AttachResponse)


def attach_event_from_pb(message: pb.AttachResponse) -> AttachEvent | None:
    """AttachResponse → AttachEvent; None for one that a newer server sends."""
    if message.WhichOneof("event") == "input":
        return InputProgress(message.input.offset, message.input.ended)
    return run_convert.event_from_pb(message)


def process_to_pb(process: ProcessInfo) -> pb.Process:
    """ProcessInfo → message."""
    ended = process.termination
    return pb.Process(
        process_id=process.id,
        args=process.args,
        state=pb.PROCESS_STATE_RUNNING if ended is None else pb.PROCESS_STATE_EXITED,
        start_time=convert.timestamp_to_pb(process.started_at),
        cpu_time=convert.duration_to_pb(process.cpu_seconds),
        memory_bytes=process.memory_bytes,
        termination=None if ended is None else run_convert.termination_to_pb(ended),
        output_bytes=process.output_bytes,
        terminal=process.terminal,
        detached=process.detached,
        processes_count=process.processes,
    )


def process_from_pb(message: pb.Process) -> ProcessInfo:
    """Message → ProcessInfo."""
    return ProcessInfo(
        id=message.process_id,
        args=list(message.args),
        started_at=convert.timestamp_from_pb(message.start_time),
        cpu_seconds=convert.duration_from_pb(message.cpu_time),
        memory_bytes=message.memory_bytes,
        processes=message.processes_count,
        output_bytes=message.output_bytes,
        terminal=message.terminal,
        detached=message.detached,
        termination=run_convert.termination_from_pb(message.termination) if message.HasField("termination") else None,
    )
