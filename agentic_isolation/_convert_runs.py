"""Commands, their events and results: models ↔ messages of the contract."""

from __future__ import annotations

from typing import TypeVar

from agentic_isolation import _convert as convert
from agentic_isolation._wire import check_text, check_type
from agentic_isolation.runs import (
    CapturedOutput,
    Command,
    Exited,
    Gap,
    KeepAlive,
    Output,
    OutputSource,
    Started,
    StreamEvent,
    Termination,
    TerminationCause,
)
from agentic_isolation.v1 import workspace_pb2 as pb

_CAUSES = {cause: pb.TerminationCause.Value(f"TERMINATION_CAUSE_{cause.name}") for cause in TerminationCause}
_SOURCES = {source: pb.OutputSource.Value(f"OUTPUT_SOURCE_{source.name}") for source in OutputSource}
_Response = TypeVar("_Response", pb.StreamResponse, pb.AttachResponse)


def command_to_pb(command: Command) -> pb.Command:
    """Command → message. Raises InvalidArgumentError where a field holds what no message can carry."""
    message = pb.Command(
        working_dir=check_text(command.cwd or "", "command.working_dir"),
        environment=convert.texts_to_pb(command.env, "command.environment"),
        stdin=command.stdin,
        timeout=None if command.timeout is None else convert.duration_to_pb(command.timeout, "command.timeout"),
        kill_grace=convert.duration_to_pb(command.kill_grace, "command.kill_grace") if command.kill_grace else None,
        user=check_text(command.user or "", "command.user"),
        redact_secrets=check_type(command.redact_secrets, "command.redact_secrets", bool),
    )
    if isinstance(command.program, str):
        message.shell = check_text(command.program, "command.shell")
    else:
        arguments = enumerate(command.program)
        message.argv.args.extend(check_text(text, f"command.argv.args[{position}]") for position, text in arguments)
        message.argv.SetInParent()
    return message


def command_from_pb(message: pb.Command) -> Command:
    """Message → Command; one without a program has an empty argument list.

    Raises:
        InvalidArgumentError: A Duration is none.
    """
    return Command(
        program=message.shell if message.WhichOneof("program") == "shell" else list(message.argv.args),
        cwd=message.working_dir or None,
        env=dict(message.environment),
        stdin=message.stdin if message.HasField("stdin") else None,
        timeout=convert.asked_seconds(message.timeout, "command.timeout") if message.HasField("timeout") else None,
        kill_grace=convert.asked_seconds(message.kill_grace, "command.kill_grace"),
        user=message.user or None,
        redact_secrets=message.redact_secrets,
    )


def termination_to_pb(termination: Termination) -> pb.Termination:
    """Termination → message."""
    message = pb.Termination(
        cause=_CAUSES[termination.cause],
        cpu_time=convert.duration_to_pb(termination.cpu_ms / 1000),
        peak_memory_bytes=termination.peak_memory_bytes,
        survivors=termination.survivors,
        start_time=convert.timestamp_to_pb(termination.started_at),
        duration=convert.duration_to_pb(termination.duration_ms / 1000),
    )
    if termination.exit_code is not None:
        message.exit_code = termination.exit_code
    elif termination.signal is not None:
        message.signal = termination.signal
    return message


def termination_from_pb(message: pb.Termination) -> Termination:
    """Message → Termination."""
    status = message.WhichOneof("status")
    return Termination(
        cause=convert.named(_CAUSES, message.cause, TerminationCause.EXITED),
        exit_code=message.exit_code if status == "exit_code" else None,
        signal=message.signal if status == "signal" else None,
        started_at=convert.timestamp_from_pb(message.start_time),
        duration_ms=convert.duration_from_pb(message.duration) * 1000,
        cpu_ms=convert.duration_from_pb(message.cpu_time) * 1000,
        peak_memory_bytes=message.peak_memory_bytes,
        survivors=message.survivors,
    )


def captured_to_pb(output: CapturedOutput) -> pb.CapturedOutput:
    """CapturedOutput → message."""
    return pb.CapturedOutput(
        head=output.head, tail=output.tail, omitted_bytes=output.omitted_bytes, total_bytes=output.total_bytes
    )


def captured_from_pb(message: pb.CapturedOutput) -> CapturedOutput:
    """Message → CapturedOutput."""
    return CapturedOutput(message.head, message.tail, message.omitted_bytes, message.total_bytes)


def event_to_pb(event: StreamEvent, response: type[_Response]) -> _Response:
    """StreamEvent → StreamResponse or AttachResponse."""
    match event:
        case Output(source, offset, data):
            return response(output=pb.ProcessOutput(source=_SOURCES[source], offset=offset, data=data))
        case Started(process_id, started_at):
            return response(
                started=pb.ProcessStarted(process_id=process_id, start_time=convert.timestamp_to_pb(started_at))
            )
        case Gap(lost_bytes):
            return response(gap=pb.OutputGap(lost_bytes=lost_bytes))
        case Exited(termination):
            return response(exited=pb.ProcessExited(termination=termination_to_pb(termination)))
        case KeepAlive():
            return response(keepalive=pb.KeepAlive())


def event_from_pb(message: pb.StreamResponse | pb.AttachResponse) -> StreamEvent | None:
    """StreamResponse or AttachResponse → StreamEvent; None for one that is none, or that a newer server sends."""
    match message.WhichOneof("event"):
        case "output":
            output = message.output
            return Output(convert.named(_SOURCES, output.source, OutputSource.STDOUT), output.offset, output.data)
        case "started":
            return Started(message.started.process_id, convert.timestamp_from_pb(message.started.start_time))
        case "gap":
            return Gap(message.gap.lost_bytes)
        case "exited":
            return Exited(termination_from_pb(message.exited.termination))
        case "keepalive":
            return KeepAlive()
        case _:
            return None
