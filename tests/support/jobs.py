"""Commands to run in workspaces, with marks by which they are found again from inside."""

from __future__ import annotations

import itertools
import secrets
from functools import partial

from tests.support.eventually import eventually
from tests.support.ways import Workspace

PYTHON = "python3"
_numbers = itertools.count(secrets.randbelow(10**8) * 10 + 10**9)


def new_mark() -> str:
    """Returns a number that no other command has in its arguments, long enough to sleep for ever."""
    return str(next(_numbers))


def sleep_for_ever(mark: str) -> list[str]:
    """A command that does nothing and does not end."""
    return ["sleep", mark]


def python(code: str, *arguments: str) -> list[str]:
    """A command that runs Python code. Its output is not buffered."""
    return [PYTHON, "-uc", code, *arguments]


# A tree that only a whole tree's kill takes away. Its members: a child in the process group; one that ignores SIGTERM
# and its friends; a daemon by the book, which forked twice, has a session, a directory and an environment of its own
# and has closed all files; a child of that daemon. Each has the mark in its arguments. When all run it prints `ready`.
TREE = """
import os, signal, subprocess, sys, time
SLEEPER = "import signal, time; [signal.signal(number, signal.SIG_IGN) for number in (1, 2, 15)]; time.sleep(1e6)"
mark = sys.argv[1]
STUBBORN = [sys.executable, "-c", SLEEPER, mark]
def daemon():
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    os.closerange(0, 256)
    os.fork()
    os.execve(sys.executable, STUBBORN, {})
daemon()
os.wait()
subprocess.Popen(["sleep", mark])
subprocess.Popen(STUBBORN)
subprocess.Popen(STUBBORN, start_new_session=True, env={})
def members():
    found = 0
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            found += mark in open(f"/proc/{pid}/cmdline").read().split("\\0")
        except OSError:
            pass
    return found
while members() < 6:
    time.sleep(0.01)
print("ready", flush=True)
print("to stderr", file=sys.stderr, flush=True)
time.sleep(1e6)
"""
TREE_SIZE = 6

# Processes that fork and exit for ever, so that none of them lives long enough to be met twice.
FUGITIVE = """
import os, sys, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if os.fork():
                os._exit(0)
            time.sleep(0.0005)
        os._exit(0)
print("ready", flush=True)
time.sleep(1e6)
"""

# A process that holds a lock on a file, and of whose threads the first one ends and the second one does not.
HEADLESS = """
import ctypes, fcntl, os, platform, sys, threading, time
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
threading.Thread(target=time.sleep, args=(1e6,)).start()
os.write(1, b"ready\\n")
SYS_EXIT = {"x86_64": 60, "aarch64": 93}[platform.machine()]
ctypes.CDLL(None).syscall(SYS_EXIT, 0)
"""

# Tells of each file whether nobody holds a lock on it.
IS_UNLOCKED = """
import fcntl, sys
for name in sys.argv[1:]:
    try:
        fcntl.flock(open(name), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print("no")
    else:
        print("yes")
"""

# A daemon that holds a lock on a file, and a command that first takes from its shim, which is the parent of both in
# turn, all descriptors that it might still open, where the kernel allows that.
BLINDING = """
import contextlib, fcntl, os, resource, sys, time
with contextlib.suppress(PermissionError):
    resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (0, 0))
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    time.sleep(1e6)
os.wait()
print("ready", flush=True)
time.sleep(1e6)
"""

# Processes that fork and exit for ever, hold a lock on a file, and whose shim is killed by the command.
ORPHANED_FUGITIVES = """
import fcntl, os, signal, sys, time
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
for _ in range(12):
    if os.fork() == 0:
        os.setsid()
        while True:
            if os.fork():
                os._exit(0)
time.sleep(0.3)
os.kill(os.getppid(), signal.SIGKILL)
time.sleep(1e6)
"""

# A process that lets any other one trace it, and one that traces it and never looks at it again.
TRACED = """
import ctypes, os, time
PR_SET_PTRACER, ANYBODY = 0x59616D61, -1
ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_long(ANYBODY), 0, 0, 0)
open("traced.new", "w").write(str(os.getpid()))
os.rename("traced.new", "traced")
print("ready", flush=True)
time.sleep(1e6)
"""
TRACER = """
import ctypes, os, time
PTRACE_SEIZE = 0x4206
libc = ctypes.CDLL(None, use_errno=True)
print("ready", flush=True)
while not os.path.exists("traced"):
    time.sleep(0.01)
failed = libc.ptrace(PTRACE_SEIZE, int(open("traced").read()), None, None)
print(os.strerror(ctypes.get_errno()) if failed else "traced", flush=True)
time.sleep(1e6)
"""


def tree(mark: str) -> list[str]:
    """A command that starts processes in every way that makes them hard to kill, prints `ready`, and does not end."""
    return python(TREE, mark)


async def count_alive(ws: Workspace, mark: str) -> int:
    """Counts the processes with a mark in their arguments, as seen from inside of the workspace."""
    # In brackets the first digit does not find the searching command itself.
    pattern = f"[{mark[0]}]{mark[1:]}"
    result = await ws.execute(f"cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c '{pattern}'")
    return int(result.stdout)


async def all_gone(ws: Workspace, *marks: str) -> None:
    """Waits until no process with one of the marks is left."""
    for mark in marks:
        await eventually(partial(_none_alive, ws, mark), f"no process of {mark} is left")


async def running(ws: Workspace, mark: str, count: int = 1) -> None:
    """Waits until so many processes with a mark run."""

    async def enough() -> bool:
        return await count_alive(ws, mark) >= count

    await eventually(enough, f"{count} processes of {mark} run")


async def _none_alive(ws: Workspace, mark: str) -> bool:
    return await count_alive(ws, mark) == 0


# Writes numbered blocks of 64 KiB, so that losing, repeating or swapping any is seen in a digest.
BULK = """
import os, sys
for number in range(int(sys.argv[1])):
    block, done = b"%010d\\n" % number + b"x" * 65524 + b"\\n", 0
    while done < len(block):
        done += os.write(1, block[done:])
"""
BLOCK_BYTES = 65536


def bulk(blocks: int) -> list[str]:
    """A command that writes so many blocks of 64 KiB to standard output."""
    return python(BULK, str(blocks))


def bulk_block(number: int) -> bytes:
    """Returns what `bulk` writes as one of its blocks."""
    return b"%010d\n" % number + b"x" * 65524 + b"\n"
