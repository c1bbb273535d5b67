"""The service's log: a line per event for people, an object per event for programs."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from agentic_isolation_service.cli import logs

Configure = Callable[[bool], "Written"]
_log = logging.getLogger("agentic_isolation_service.test")


class Written:
    """What was written to standard error, which is a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def getvalue(self) -> str:
        logs.flush_logs()
        return self._path.read_text()


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Configure]:
    """Configures the log, as JSON or not, and returns what is written to standard error from then on."""
    root = logging.getLogger()
    level = root.level
    path = tmp_path / "stderr"

    def configure(as_json: bool) -> Written:
        monkeypatch.setattr(root, "handlers", [])  # pytest's own, which it adds before each test
        monkeypatch.setattr("sys.stderr", file)
        logs.configure_logs("info", as_json=as_json)
        return Written(path)

    with path.open("w") as file:
        yield configure
        for handler in root.handlers:
            handler.close()
    root.setLevel(level)


def test_lines(configured: Configure) -> None:
    written = configured(False)
    _log.debug("hidden")
    _log.warning("it is %s", "so", extra={"workspace_id": "ws-1"})
    line = written.getvalue()
    assert line.endswith("Z [warning ] it is so workspace_id=ws-1\n")
    assert line.count("\n") == 1


def test_a_line_is_one_whatever_a_guest_says(configured: Configure) -> None:
    written = configured(False)
    _log.info("said: %s", "über\n2026 [error] forged\x1b[2J\x9b1m", extra={"container": "a\rb"})
    assert written.getvalue().endswith("said: über\\n2026 [error] forged\\x1b[2J\\x9b1m container=a\\rb\n")


def test_no_field_passes_for_another(configured: Configure) -> None:
    """Clients name workspaces as they like, and who reads the log goes by tenant and identity."""
    written = configured(False)
    _log.info("call ended", extra={"workspace_id": "ws-1 tenant=other", "tenant": "its own"})
    _log.info("call ended", extra={"workspace_id": 'ws-1" tenant=other\x1b', "identity": "certificate:CN=a,O=Acme"})
    first, second = written.getvalue().splitlines()
    assert first.endswith('] call ended workspace_id="ws-1 tenant=other" tenant=its own')
    assert second.endswith(r'] call ended workspace_id="ws-1\" tenant=other\u001b" identity=certificate:CN=a,O=Acme')


def test_no_line_of_an_exception_passes_for_an_event(configured: Configure) -> None:
    written = configured(False)
    try:
        raise ValueError("\x1b[2J\n2026-01-01T00:00:00Z [info    ] all is well")
    except ValueError:
        _log.exception("a defect")
    first, *traceback = written.getvalue().splitlines()
    assert first.endswith("] a defect")
    assert traceback[-2:] == [r"  ValueError: \x1b[2J", "  2026-01-01T00:00:00Z [info    ] all is well"]
    assert all(line.startswith("  ") for line in traceback)


@pytest.mark.parametrize("as_json", [False, True], ids=["lines", "json"])
def test_exceptions_show_no_values(configured: Configure, as_json: bool) -> None:
    written = configured(as_json)
    secret = "hush"
    try:
        raise ValueError(len(secret))
    except ValueError:
        _log.exception("a defect")
    assert "ValueError: 4" in written.getvalue()
    assert "hush" not in written.getvalue().replace('secret = "hush"', "")


def test_json(configured: Configure) -> None:
    written = configured(True)
    _log.info("created\n%d", 1, extra={"workspace_id": "ws-1", "kind": RuntimeError})
    event = json.loads(written.getvalue())
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "level": "info",
        "event": "created\n1",
        "workspace_id": "ws-1",
        "kind": "<class 'RuntimeError'>",
    }


def test_callers_that_have_gone_are_no_error_of_the_service(configured: Configure) -> None:
    """gRPC logs it as one of the method where an answer cannot be sent any more."""
    written = configured(False)
    grpc_log = logging.getLogger(cygrpc.__name__)
    for failure in (cygrpc.ExecuteBatchError("Failed"), ZeroDivisionError("a defect")):
        grpc_log.error("raised by servicer method [/Execute]", exc_info=failure)
    assert written.getvalue().count("raised by servicer method") == 1
    assert "ZeroDivisionError: a defect" in written.getvalue()
