"""The tree of errors: drawn as it is, and the same on both sides of the wire."""

from __future__ import annotations

import base64
import builtins
import inspect
import re
import urllib.parse
from collections import Counter
from collections.abc import Iterator

import grpc
import grpc.aio
import pytest

import agentic_isolation
from agentic_isolation import IsolationError, UnavailableError, errors
from agentic_isolation._channel import error_of
from agentic_isolation.errors import error_classes
from agentic_isolation_service.rpc.errors import status_of

METADATA_LIMIT = 8 << 10
"""Bytes of metadata that clients of gRPC take by default."""


def tree(root: type[IsolationError] = IsolationError) -> Iterator[type[IsolationError]]:
    """Yields the public classes of the tree."""
    if root.__module__ == errors.__name__:
        yield root
    for child in root.__subclasses__():
        yield from tree(child)


def drawn() -> dict[str, tuple[str, str, str]]:
    """Returns what the module's docstring draws: by class name its parent's name, its code and the remark."""
    found: dict[str, tuple[str, str, str]] = {}
    parents: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.fullmatch(r"    ((?:[│ ]   )*)((?:[├└]── )?)(\w+Error) *([A-Z_]*) *(.*)", line)
        if match:
            branches, twig, name, code, remark = match.groups()
            depth = len(branches) // 4 + bool(twig)
            parents[depth:] = [name]
            found[name] = (parents[depth - 1] if depth else "", code, remark)
    return found


def sent(error: IsolationError) -> IsolationError:
    """Returns what a client makes of an error that a service answers with."""
    status = status_of(error)
    metadata = grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString()))
    code = grpc.StatusCode[error.code]
    assert status.code == code.value[0]
    return error_of(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, status.message), "target")


CLASSES = list(tree())


@pytest.mark.parametrize("kind", error_classes().values(), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("field", [None, "command.timeout"])
def test_error_goes_over_the_wire_and_back(kind: type[IsolationError], field: str | None) -> None:
    error = kind("what was asked, ünd what would work", field=field)
    received = sent(error)
    assert type(received) is kind
    assert (received.message, received.field) == (error.message, field)
    assert str(received) == str(error)


@pytest.mark.parametrize("character", ["x", "ü", "€", "😀", "\ud800", "\n"])
def test_long_messages_are_cut_to_what_clients_take(character: str) -> None:
    """More metadata than a client takes would reach it as another error altogether."""
    error = errors.InvalidArgumentError(character * 100_000, field=f'environment["{character * 100_000}"]')
    status = status_of(error)
    metadata = len(urllib.parse.quote(status.message)) + len(base64.b64encode(status.SerializeToString()))
    assert metadata < METADATA_LIMIT
    received = sent(error)
    assert type(received) is errors.InvalidArgumentError
    assert received.message.endswith("…")


def test_status_without_details_is_known_by_its_code() -> None:
    """Proxies and gRPC itself answer without ErrorInfo."""
    codes = {
        grpc.StatusCode.UNAVAILABLE: UnavailableError,
        grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineError,
        grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidArgumentError,
        grpc.StatusCode.UNIMPLEMENTED: errors.UnsupportedError,
        grpc.StatusCode.INTERNAL: IsolationError,
        grpc.StatusCode.UNKNOWN: IsolationError,
    }
    for code, kind in codes.items():
        nothing = grpc.aio.Metadata()
        for metadata in (nothing, grpc.aio.Metadata(("grpc-status-details-bin", b"\xffgarbage"))):
            error = error_of(grpc.aio.AioRpcError(code, nothing, metadata, "said so"), "host:1")
            assert type(error) is kind
            assert "host:1" in str(error)
            assert "said so" in str(error)


@pytest.mark.parametrize(
    "details",
    ["Received RST_STREAM with error code 2", "Stream removed (RST_STREAM (Received RST_STREAM with error code 2))"],
)
def test_stream_that_was_reset_on_its_way_is_an_interruption(details: str) -> None:
    nothing = grpc.aio.Metadata()
    error = error_of(grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, nothing, nothing, details), "host:1")
    assert type(error) is UnavailableError
    assert details in str(error)
    assert type(sent(IsolationError(details))) is IsolationError, "the service itself says so"


def test_reasons_are_unique_words() -> None:
    reasons = Counter(kind.reason for kind in CLASSES)
    assert [reason for reason, count in reasons.items() if count > 1] == []
    assert all(re.fullmatch(r"[A-Z][A-Z_]*[A-Z]", reason) for reason in reasons)
    assert set(reasons) <= set(error_classes())


def test_codes_are_those_of_grpc() -> None:
    assert {kind.code for kind in CLASSES} <= {code.name for code in grpc.StatusCode}


def test_drawing_shows_exactly_the_tree() -> None:
    drawing = drawn()
    assert set(drawing) == {kind.__name__ for kind in CLASSES}
    for kind in CLASSES:
        parent, code, _ = drawing[kind.__name__]
        assert parent == (kind.__bases__[0].__name__ if kind is not IsolationError else "")
        assert code == kind.code or (code == "" and kind.code == getattr(errors, parent).code), kind.__name__


def test_drawing_says_what_else_the_classes_are() -> None:
    """`except FileNotFoundError` and the like work as drawn."""
    found = 0
    for name, (_, _, remark) in drawn().items():
        if match := re.match(r"also an? (\w+)", remark):
            assert issubclass(getattr(errors, name), getattr(builtins, match[1]))
            found += 1
    assert found >= 10


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_class_is_exported_and_documented(kind: type[IsolationError]) -> None:
    assert kind.__name__ in errors.__all__
    assert kind.__name__ in agentic_isolation.__all__
    assert getattr(agentic_isolation, kind.__name__) is kind
    assert inspect.cleandoc(kind.__dict__.get("__doc__") or "").endswith(".")


def test_message_is_shown_with_its_field_also_by_those_that_are_os_errors() -> None:
    for kind in CLASSES:
        assert str(kind("it is so")) == "it is so"
        assert str(kind("it is so", field="a.b")) == "a.b: it is so"
