"""A command that counts on standard output and standard error, so that any lost, doubled or swapped byte is seen."""

from __future__ import annotations

from agentic_isolation.v1 import workspace_pb2 as pb
from tests.support.jobs import python

LINES = 600_000
"""Six megabytes: several times what a process's log holds."""
_THOUSAND = 1000

# In turn, a thousand lines of ten bytes on one source and a thousand on the other.
_COUNTER = """
import os, sys, time
lines, wait_for, progress, finish = int(sys.argv[1]), *sys.argv[2:]
while wait_for and not os.path.exists(wait_for):
    time.sleep(0.02)
written = os.open(progress or os.devnull, os.O_WRONLY | os.O_CREAT)
for start in range(0, lines, 1000):
    data = b"".join(b"%09d\\n" % number for number in range(start, start + 1000))
    while data:
        count = os.write(1 + start // 1000 % 2, data)
        os.write(written, data[:count])
        data = data[count:]
if finish:
    open(finish, "w").close()
"""


def count(lines: int, *, wait_for: str = "", progress: str = "", finish: str = "") -> list[str]:
    """A command that writes so many lines, a multiple of 1,000.

    Args:
        lines: How many.
        wait_for: A file without which it does not begin.
        progress: A file that gets a copy of all that was written.
        finish: A file that it makes when it has written everything.
    """
    return python(_COUNTER, str(lines), wait_for, progress, finish)


def counted(source: pb.OutputSource.ValueType, lines: int) -> bytes:
    """Returns what `count` writes to one of its sources."""
    first = 0 if source == pb.OUTPUT_SOURCE_STDOUT else _THOUSAND
    starts = range(first, lines, 2 * _THOUSAND)
    return b"".join(b"%09d\n" % number for start in starts for number in range(start, start + _THOUSAND))
