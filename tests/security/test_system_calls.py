"""System calls that the engine's own filter leaves to workloads, and the guest's does not."""

from __future__ import annotations

import errno
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from agentic_isolation import AgenticWorkspace, SecurityConfig
from tests.support.jobs import python

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

NOT_HERE = 3
"""What SOCKETCALL exits with on another machine than x86."""

# A 32-bit program's call, made by a 64-bit one: socketcall(CALL, {ARGUMENT, SOCK_STREAM, 0}).
SOCKETCALL = """
import ctypes, mmap, platform, struct, sys
if platform.machine() != "x86_64":
    sys.exit(3)
MAP_32BIT = 0x40
flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_32BIT
pages = mmap.mmap(-1, 8192, flags, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
pages[4096:4108] = struct.pack("III", int(sys.argv[2]), 1, 0)
SOCKETCALL = 102
load = zip(bytes.fromhex("b8 bb b9"), (SOCKETCALL, int(sys.argv[1]), address + 4096))
save, call, back = bytes.fromhex("53"), bytes.fromhex("cd80"), bytes.fromhex("5bc3")
code = save + b"".join(struct.pack("=BI", *loaded) for loaded in load) + call + back
pages[: len(code)] = code
print(ctypes.CFUNCTYPE(ctypes.c_int)(address)())
"""

LIMIT = """
import os, resource, sys
for pid in (1, os.getppid(), os.getpid()):
    print(resource.prlimit(pid, resource.RLIMIT_NOFILE) > (0, 0))
    try:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (64, 64))
    except PermissionError:
        print("refused")
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""

TAKE_REQUESTS = """
import ctypes, errno, platform
SYS_IO_SETUP = {"x86_64": 206, "aarch64": 0}[platform.machine()]
libc = ctypes.CDLL(None, use_errno=True)
print(libc.syscall(SYS_IO_SETUP, 4096, ctypes.byref(ctypes.c_ulong())), ctypes.get_errno())
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def workspace() -> AsyncIterator[AgenticWorkspace]:
    async with AgenticWorkspace.create(provider="docker", security=SecurityConfig(use_gvisor=False)) as workspace:
        yield workspace


async def test_sockets_to_a_hypervisor_by_the_call_of_32_bit_programs(workspace: AgenticWorkspace) -> None:
    sys_socket, sys_listen, vsock, nothing = "1", "4", "40", "999"
    control = await workspace.execute(python(SOCKETCALL, sys_listen, nothing))
    if control.exit_code == NOT_HERE or control.exit_code == 128 + signal.SIGSEGV:
        return  # of a kernel that runs no 32-bit programs there is nothing to refuse
    assert control.stdout == f"-{errno.EBADF}\n"
    result = await workspace.execute(python(SOCKETCALL, sys_socket, vsock))
    assert result.stdout == f"-{errno.EPERM}\n"


async def test_limits_of_the_guest_and_its_shims(workspace: AgenticWorkspace) -> None:
    """Without descriptors a shim could not look for what it is to kill, and the guest could do nothing more at all."""
    result = await workspace.execute(python(LIMIT))
    assert result.stdout == "True\nrefused\n" * 3 + "(32, 32)\n"
    assert (await workspace.execute("ulimit -n 16; ulimit -n")).stdout == "16\n"


async def test_asynchronous_requests_of_the_machine(workspace: AgenticWorkspace) -> None:
    """A workspace could take all 65,536 that there are for the engine's host and everybody on it."""
    result = await workspace.execute(python(TAKE_REQUESTS))
    assert result.stdout == f"-1 {errno.ENOSYS}\n"
