"""The commands that clients run, and what each prints: shared by those who run them and those who judge."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from typing import Any, Self

from tests.chaos.lines import numbered

LOG = "log"
"""The file in the working directory to which every command appends its token, once, as its first deed."""
_APPLY = "echo {token} >> {log} || exit 99\n"
_BULK = "seq -f '{token} %08.0f' 1 {count}\n"
_DRIP = """\
i=1
while [ $i -le {count} ]; do
  line=$(printf '{token} %08d' $i)
  echo "$line"; {also}
  sleep {pause}
  i=$((i + 1))
done
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A command. It prints numbered lines of its token and exits."""

    token: str
    stdout_lines: int
    stderr_lines: int = 0
    """0, or as many as `stdout_lines`."""
    pause: float | None = None
    """Seconds after each line; None: all lines are printed as fast as it goes."""
    exit_code: int = 0
    timeout: float | None = None
    """Seconds; the command has printed its lines by then, if the machine is not too busy, and goes on for ever."""

    @property
    def script(self) -> str:
        """A line for `/bin/sh -c`."""
        token = shlex.quote(self.token)
        script = _APPLY.format(token=token, log=LOG)
        if self.pause is None:
            script += _BULK.format(token=self.token, count=self.stdout_lines)
            if self.stderr_lines:
                script += _BULK.format(token=self.token, count=self.stderr_lines).rstrip() + " >&2\n"
        else:
            also = 'echo "$line" >&2' if self.stderr_lines else ":"
            script += _DRIP.format(token=self.token, count=self.stdout_lines, pause=self.pause, also=also)
        if self.timeout is not None:
            script += "sleep 100000\n"
        return script + f"exit {self.exit_code}\n"

    @property
    def stdout(self) -> bytes:
        """What it writes to standard output."""
        return numbered(self.token, self.stdout_lines)

    @property
    def stderr(self) -> bytes:
        """What it writes to standard error."""
        return numbered(self.token, self.stderr_lines)

    def record(self) -> dict[str, Any]:
        """Returns it for a journal."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        """Returns what was recorded."""
        return cls(**record)
