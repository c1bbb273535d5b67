"""The attacks, and which profile promises to block which."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agentic_isolation import IsolationError, OutputStream, ResourceLimits
from agentic_isolation_service.doctor import bombs, symlinks
from agentic_isolation_service.doctor.arena import PATIENCE, Arena
from agentic_isolation_service.doctor.findings import Attempt, Verdict, blocked, not_applicable, not_blocked
from agentic_isolation_service.doctor.profiles import DEVELOPMENT, LOCAL, PRODUCTION
from agentic_isolation_service.providers.docker.container import GVISOR_RUNTIME

_ISOLATED = frozenset({PRODUCTION, DEVELOPMENT})
_ALL = frozenset({PRODUCTION, DEVELOPMENT, LOCAL})
_NOT_ISOLATED = "the local provider isolates nothing"
_WRITABLE_ROOT = "its root file system is writable"
_GUEST_KERNEL = "it is gVisor's own kernel that allows it; the host's is not reached"
_OWN_PID_1 = "gVisor does not protect PID 1 from its own user; the workspace ends its own self, and the service tells"

Judge = Callable[[Arena], Awaitable[Verdict]]


@dataclass(frozen=True, slots=True)
class Attack:
    """An attack on a workspace, or from it."""

    name: str
    title: str
    judge: Judge
    promised_by: frozenset[str] = _ISOLATED
    """Names of the profiles that promise to block it."""
    reason: str = ""
    """Why the other isolating profiles do not."""
    under_gvisor: str = ""
    """Why it is not promised under gVisor, where it is not."""
    harms_local: bool = False
    """Not to be tried without isolation."""

    def broken_reason(self, profile: str, runtime: str) -> str:
        """Returns why a profile does not promise to block it under a runtime; nothing: it does promise."""
        if profile not in self.promised_by:
            return self.reason if profile != LOCAL else _NOT_ISOLATED
        return self.under_gvisor if runtime == GVISOR_RUNTIME else ""


def _probe(name: str) -> Judge:
    async def judge(arena: Arena) -> Verdict:
        return await arena.probe(name)

    return judge


def _probe_apart(name: str, *, limits: ResourceLimits | None = None) -> Judge:
    """The same in a workspace of its own."""

    async def judge(arena: Arena) -> Verdict:
        async with arena.fresh(limits=limits) as workspace:
            return await arena.probe_in(workspace, name)

    return judge


async def _read_neighbour(arena: Arena) -> Verdict:
    """Looks for what another workspace's process was given."""
    text = secrets.token_hex(16)
    async with (
        arena.fresh(environment={"AGENTIC_DOCTOR_SECRET": text}) as neighbour,
        neighbour.stream([await arena.guest_in(neighbour), "probe", "hold", "25"], timeout=30) as holding,
    ):
        await _started(holding)
        return await arena.probe("find-environ", text)


async def _started(stream: OutputStream) -> None:
    await anext(stream.events())


async def _stop_supervisors(arena: Arena) -> Verdict:
    """Stops what supervises the workload; calls must end nevertheless, and the service must notice or go on."""
    async with arena.fresh() as workspace:
        ends = []
        guest = await arena.guest_in(workspace)
        for command in ([guest, "probe", "stop-supervisors"], [guest, "version"]):
            try:
                async with asyncio.timeout(PATIENCE):
                    result = await workspace.execute(command, timeout=PATIENCE / 4)
            except TimeoutError:
                return not_blocked(f"{' '.join(command[1:])}: its timeout of {PATIENCE / 4:g} s is not kept")
            except IsolationError as error:
                ends.append(f"{' '.join(command[1:])}: {error.reason}")
            else:
                if '"not_applicable"' in result.stdout:
                    return not_applicable("there is no guest to attack")
                ends.append(f"{' '.join(command[1:])}: exit code {result.exit_code}")
        return blocked("; ".join(ends))


def _probes(*rows: tuple[str, str], promised_by: frozenset[str] = _ISOLATED, reason: str = "") -> list[Attack]:
    return [Attack(name, title, _probe(name), promised_by, reason) for name, title in rows]


def _probes_of_guest_kernel(*rows: tuple[str, str]) -> list[Attack]:
    return [Attack(name, title, _probe(name), under_gvisor=_GUEST_KERNEL) for name, title in rows]


ATTACKS: tuple[Attack, ...] = (
    *_probes(
        ("mount", "mount a tmpfs"),
        ("bind-mount", "bind a directory to another place"),
        ("mount-api", "mount by fsopen and open_tree"),
        ("remount-root", "remount /"),
        ("pivot-root", "change the root by pivot_root"),
        ("chroot", "change the root by chroot"),
    ),
    *_probes(
        ("root-write", "write outside of the working directory, /tmp and HOME"),
        promised_by=frozenset({PRODUCTION}),
        reason=_WRITABLE_ROOT,
    ),
    *_probes(
        ("exec-from-tmp", "execute a program from /tmp or /dev/shm"),
        ("mknod-disk", "make a block device"),
        ("open-by-handle", "open a file of the host by its handle"),
        ("disk-devices", "open a disk of the host"),
        ("kernel-memory", "open /dev/mem, /dev/kmem, /dev/port, /proc/kcore"),
        ("kernel-log", "read the kernel's log"),
        ("masked-proc", "read what is masked in /proc and /sys"),
        ("sys-write", "write to /sys"),
        ("proc-sys-write", "write to /proc/sys"),
        ("core-pattern", "write to core_pattern"),
        ("sysrq-trigger", "write to /proc/sysrq-trigger"),
        ("cgroup-release-agent", "write to a cgroup's release_agent"),
        ("cgroup-write", "lift own limits in the cgroup file system"),
        ("setuid-0", "become root by setuid(0)"),
        ("raise-capabilities", "raise capabilities"),
        ("setuid-copy-workspace", "a setuid program in the working directory"),
        ("setuid-copy-tmp", "a setuid program in /tmp"),
    ),
    *_probes(("setuid-program", "the image's own setuid programs"), promised_by=_ALL),
    *_probes_of_guest_kernel(
        ("user-namespace", "make a user namespace"),
        ("namespaces", "make namespaces of mounts, pids, network, …"),
    ),
    *_probes(
        ("join-namespaces", "join the namespaces of PID 1"),
        ("hostname", "set the hostname"),
    ),
    *_probes_of_guest_kernel(("priority", "take a real-time priority")),
    *_probes(
        ("load-module", "load or unload a kernel module"),
        ("kexec", "load another kernel"),
        ("reboot", "reboot"),
        ("bpf", "make a BPF map"),
        ("perf-event", "open a performance counter"),
    ),
    *_probes_of_guest_kernel(("keyring", "use the kernel's key rings")),
    *_probes(("userfaultfd", "open a userfaultfd")),
    *_probes(
        ("io-uring", "set up an io_uring"),
        ("vsock", "open a socket to a hypervisor"),
        ("clock-set", "set the clock"),
        ("io-ports", "reach the machine's I/O ports"),
        ("swap-and-accounting", "use a swap file, write process accounts"),
        ("raw-socket", "open a raw IP socket"),
        ("packet-socket", "open a packet socket"),
        ("network-config", "change a network interface"),
        ("engine-socket", "reach a container engine's socket"),
        ("metadata", "reach a cloud's metadata service"),
        ("outbound", "find a way out to other machines"),
    ),
    Attack(
        "metadata-network",
        "the same where the network is on",
        _probe_apart("metadata", limits=ResourceLimits(network=True)),
    ),
    *_probes(
        ("ptrace-init", "trace PID 1"),
        ("init-memory", "read and write the memory of PID 1"),
        ("init-environ", "read the environment of PID 1"),
        ("guest-processes", "trace and read the guest's shims and bridges"),
        ("other-users", "read the environment of other users' processes"),
        ("host-processes", "see the host's processes"),
    ),
    Attack("other-workspace", "read the environment of another workspace", _read_neighbour),
    *_probes(
        ("core-dumps", "have a core dumped"),
        ("open-files", "exhaust file descriptors"),
        ("guest-frames", "speak to the guest without its key"),
        ("guest-socket", "listen in the guest's place"),
        ("guest-volume-write", "replace the guest's program"),
    ),
    Attack("kill-init", "kill PID 1", _probe_apart("kill-init"), under_gvisor=_OWN_PID_1),
    Attack("stop-init", "stop PID 1", _probe_apart("stop-init"), under_gvisor=_OWN_PID_1),
    Attack("signal-init", "end PID 1 by any other signal", _probe_apart("signal-init")),
    Attack("stop-supervisors", "stop the guest's shims and bridges", _stop_supervisors),
    Attack("fork-bomb", "processes without end", bombs.fork_bomb, harms_local=True),
    Attack("memory-bomb", "memory without end", bombs.memory_bomb, harms_local=True),
    Attack("disk-fill", "a file without end", bombs.disk_fill, harms_local=True),
    Attack("symlink-read", "make the service read a host file by a symlink", symlinks.read_through, _ALL),
    Attack("symlink-write", "make the service write a host file by a symlink", symlinks.write_through, _ALL),
    Attack("symlink-race", "the same by swapping file and symlink", symlinks.race, _ALL),
)


async def attempt(arena: Arena, attack: Attack) -> Attempt:
    """Carries out an attack and judges it.

    Raises:
        DoctorError: The attack itself does not work.
        IsolationError: No workspace can be made.
    """
    profile = arena.profile
    if attack.harms_local and profile.name == LOCAL:
        verdict = not_applicable("not tried: nothing would stop it")
    elif attack.name == "metadata-network" and profile.name == LOCAL:
        verdict = not_applicable("the network is this host's")
    else:
        verdict = await attack.judge(arena)
    runtime = (await arena.shared()).info.isolation.runtime
    reason = attack.broken_reason(profile.name, runtime)
    return Attempt(attack.name, attack.title, verdict.outcome, not reason, verdict.detail, reason)
