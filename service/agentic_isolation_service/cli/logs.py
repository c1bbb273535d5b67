"""How the service's log looks: one event per line, with what it is about as fields."""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import sys

import click

from agentic_isolation_service.cli.escaping import escaped
from agentic_isolation_service.cli.log_queue import LogQueue
from agentic_isolation_service.rpc.call_logs import CallersThatHaveGone, CallFields

LEVELS = ("debug", "info", "warning", "error")
_COLORS = {"warning": "yellow", "error": "red", "critical": "red"}
_SEVERAL = re.compile(r"\s[^=]*=")
_OF_EVERY_RECORD = vars(logging.makeLogRecord({})).keys() | {"message", "asctime", "taskName"}


def configure_logs(level: str, *, as_json: bool) -> None:
    """Sends the standard library's log to standard error, as lines for people or JSON for programs."""
    formatter = _JsonFormatter() if as_json else _LineFormatter(colored=sys.stderr.isatty())
    handler = LogQueue(sys.stderr.fileno(), formatter)
    handler.addFilter(CallFields())
    handler.addFilter(CallersThatHaveGone())
    logging.basicConfig(level=level.upper(), handlers=[handler])


def flush_logs() -> None:
    """Returns when all that was logged is written, or cannot be for now."""
    for handler in logging.getLogger().handlers:
        handler.flush()


class _JsonFormatter(logging.Formatter):
    """An object per event: `timestamp`, `level`, `event`, `exception` where there was one, and its fields."""

    def format(self, record: logging.LogRecord) -> str:
        event = {"timestamp": _timestamp(record), "level": record.levelname.lower(), "event": record.getMessage()}
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(_fields(record) | event, default=repr)


class _LineFormatter(logging.Formatter):
    """A line per event, whatever is in it, and below it the traceback where there was an exception."""

    def __init__(self, *, colored: bool) -> None:
        super().__init__()
        self._colored = colored

    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname.lower():8}"
        if self._colored:
            level = click.style(level, fg=_COLORS.get(level.strip()), bold=True)
        fields = "".join(f" {name}={_field(value)}" for name, value in _fields(record).items())
        line = f"{_timestamp(record)} [{level}] {escaped(record.getMessage() + fields)}"
        if not record.exc_info:
            return line
        # No line of it is taken for an event: what an exception says may be a client's words.
        return "\n  ".join([line, *map(escaped, self.formatException(record.exc_info).split("\n"))])


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _OF_EVERY_RECORD}


def _field(value: object) -> str:
    """Returns a field's value, in quotes where it would be taken for several fields."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if text.startswith('"') or _SEVERAL.search(text) else text


def _timestamp(record: logging.LogRecord) -> str:
    return dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
