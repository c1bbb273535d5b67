"""A dockerd and a containerd of one's own, in a directory and a network namespace of their own.

Two engines in one network namespace flush each other's iptables chains (moby/moby#34567) and both want docker0; the
namespace keeps both, and `ip_forward`, away from the machine. It has no way out: a link to this machine is all, so that
tests can serve containers something, and cannot come to depend on the internet.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path

from tests.engine import packages, processes, roots
from tests.engine.api import Api
from tests.engine.errors import EngineError
from tests.engine.packages import run

_LONGEST_SOCKET = 107
_BLOCKS = 64
_READY_SECONDS = 60.0


@dataclass(frozen=True)
class Link:
    """The two addresses of this machine on its link to the engine's namespace; servers of tests bind to them."""

    block: int

    @property
    def host_address(self) -> str:
        """From a range that is for documentation (RFC 5737), hence in use nowhere."""
        return f"203.0.113.{4 * self.block + 1}"

    @property
    def engine_address(self) -> str:
        """The other end."""
        return f"203.0.113.{4 * self.block + 2}"

    @property
    def link_local_address(self) -> str:
        """In the range of the clouds' metadata services, without taking the place of a real one."""
        return f"169.254.113.{4 * self.block + 1}"


class Daemon:
    """One private engine: its files, its processes, its network namespace."""

    def __init__(self, directory: Path, *, live_restore: bool, release: str | None) -> None:
        self.directory = directory
        self.release = release
        self.run = directory / "run"
        self.socket = self.run / "docker.sock"
        self.log = directory / "dockerd.log"
        self.docker_host = f"unix://{self.socket}"
        self.api = Api(self.docker_host)
        self.live_restore = live_restore
        self._configuration = directory / "daemon.json"
        self._containerd_configuration = directory / "containerd.toml"
        self._namespace = self.run / "netns"
        self._link_file = self.run / "link"
        self._interface = f"aisot-{zlib.crc32(str(directory).encode()):08x}"

    @property
    def pid(self) -> int | None:
        """The pid of dockerd, if it runs."""
        return processes.find("dockerd", str(self._configuration))

    @property
    def link(self) -> Link:
        """The link between this machine and the engine; only while the engine is up."""
        return Link(int(self._link_file.read_text(encoding="utf-8")))

    def nsenter(self, *command: str | Path) -> list[str]:
        """The command that runs `command` in the engine's network namespace."""
        return ["nsenter", f"--net={self._namespace}", *(str(word) for word in command)]

    def start(self, *, state: Path) -> None:
        """Starts the engine, installing what is missing; at once when it answers already.

        Raises:
            EngineError: It does not answer within a minute, with the end of its log; or not root; or see `packages`.
        """
        if self.api.answers(timeout=2):
            return
        if os.geteuid() != 0:
            raise EngineError(
                "Only root can start a private Docker Engine: run this as root, or set DOCKER_HOST to an engine of "
                "your own (with the runtime runsc for the tests of gVisor)."
            )
        if self.pid is not None:
            self._await_answer()
            return
        if len(os.fsencode(self.socket)) > _LONGEST_SOCKET:
            raise EngineError(f"{self.socket} is too long for a unix socket: set XDG_CACHE_HOME to a shorter path.")
        packages.install_missing(state)
        root = None if self.release is None else roots.of_engine(state, self.release)
        fresh = not self._is_mounted() or (root is not None and self._containerd_pid is None)
        if fresh:
            # After a reboot or a crash nothing in there is of use, nor are containers without their network or mounts.
            self.wipe()
        self.run.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._make_network()
        self._configure("/usr/bin/runsc" if root else packages.runsc())
        if self._containerd_pid is None:
            self._start_containerd(root)
        # A pid that was given to something else since would keep dockerd from starting.
        (self.run / "dockerd.pid").unlink(missing_ok=True)
        place = ["nsenter", f"--mount=/proc/{self._containerd_pid}/ns/mnt"] if root else []
        self._spawn(*place, "dockerd", "--config-file", self._configuration, log=self.log)
        self._await_answer()
        if fresh:
            self._empty()

    def stop(self) -> None:
        """Stops dockerd as a service manager would. Containers end, unless live restore is on."""
        if (pid := self.pid) is not None:
            processes.end(pid, timeout=30)

    def kill(self) -> None:
        """SIGKILL for dockerd alone."""
        if (pid := self.pid) is not None:
            os.kill(pid, signal.SIGKILL)
            processes.wait_until(lambda: not processes.alive(pid), timeout=10)

    def signal(self, number: signal.Signals) -> None:
        """Sends dockerd a signal.

        Raises:
            EngineError: It does not run.
        """
        if (pid := self.pid) is None:
            raise EngineError(f"no dockerd of {self.directory} runs")
        os.kill(pid, number)

    def remove(self) -> None:
        """Ends the engine and everything in it; images and logs stay. Nothing of it runs or is mounted afterwards."""
        if self.pid is not None:
            self.signal(signal.SIGCONT)
            if self.api.answers():
                with contextlib.suppress(EngineError):
                    self._empty()
        self.stop()
        if (pid := self._containerd_pid) is not None:
            processes.end(pid, timeout=10)
        self.wipe()

    def wipe(self) -> None:
        """Takes away whatever a stopped or crashed engine has left running, mounted or configured."""
        containers = [path.name for path in (self.directory / "data" / "containers").glob("*")]
        processes.kill_remains(self.directory, containers)
        processes.remove_cgroups(containers)
        processes.unmount(self.directory)
        # The kernel takes the link away with the namespace, in its own time.
        interface = Path(f"/sys/class/net/{self._interface}")
        if interface.exists():
            subprocess.run(["ip", "link", "delete", self._interface], stderr=subprocess.DEVNULL, check=False)
            if not processes.wait_until(lambda: not interface.exists(), timeout=10):
                raise EngineError(f"the network interface {self._interface} cannot be deleted")
        shutil.rmtree(self.run, ignore_errors=True)

    def _empty(self) -> None:
        """Removes containers, volumes and networks: the last service of an engine, or the first after a crash."""
        for container in self.api.json("GET", "/containers/json", query={"all": "1"}):
            with contextlib.suppress(EngineError):
                self.api.request("DELETE", f"/containers/{container['Id']}", query={"force": "1", "v": "1"})
        for volume in self.api.json("GET", "/volumes")["Volumes"] or ():
            # After a live restore this engine takes volumes for mounted; the next start removes them.
            with contextlib.suppress(EngineError):
                self.api.request("DELETE", f"/volumes/{volume['Name']}")
        self.api.request("POST", "/networks/prune")

    @property
    def _containerd_pid(self) -> int | None:
        return processes.find("containerd", str(self._containerd_configuration))

    def _start_containerd(self, root: Path | None) -> None:
        command = ["containerd", "--config", str(self._containerd_configuration)]
        if root:
            command = ["unshare", "--mount", "sh", "-ec", _CHANGE_ROOT, str(root), str(self.directory), *command]
        self._spawn(*command, log=self.directory / "containerd.log")
        if not processes.wait_until(lambda: self._containerd_pid is not None, timeout=10):
            raise EngineError(f"containerd does not start: see {self.directory}/containerd.log")

    def _configure(self, runsc: str | None) -> None:
        wrapper = self.directory / "runsc"
        if runsc is not None and _gvisor_mistakes_namespaces():
            wrapper.write_text(_RUNSC_WRAPPER.replace("RUNSC", runsc), encoding="utf-8")
            wrapper.chmod(0o755)
            runsc = str(wrapper)
        configuration: dict[str, object] = {
            "hosts": [self.docker_host],
            "data-root": str(self.directory / "data"),
            "exec-root": str(self.run / "exec"),
            "pidfile": str(self.run / "dockerd.pid"),
            # One that dockerd starts by itself would be another engine's, where the system's containerd runs.
            "containerd": str(self.run / "containerd.sock"),
            "live-restore": self.live_restore,
            "insecure-registries": ["203.0.113.0/24"],
            "log-level": "warn",
            "runtimes": {"runsc": {"path": runsc}} if runsc else {},
        }
        self._configuration.write_text(json.dumps(configuration, indent=2), encoding="utf-8")
        self._containerd_configuration.write_text(
            f"version = 2\n"
            f"root = {json.dumps(str(self.directory / 'containerd'))}\n"
            f"state = {json.dumps(str(self.run / 'containerd'))}\n"
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f"[grpc]\naddress = {json.dumps(str(self.run / 'containerd.sock'))}\n",
            encoding="utf-8",
        )

    def _is_mounted(self) -> bool:
        return str(self._namespace) in processes.mounts(self.directory)

    def _make_network(self) -> None:
        if self._is_mounted() and self._link_file.exists():
            return
        self.wipe()
        self.run.mkdir(mode=0o711, parents=True)
        self._namespace.touch()
        run("unshare", f"--net={self._namespace}", "true")
        link = Link(self._free_block())
        inside = self.nsenter("ip")
        name = self._interface
        run("ip", "link", "add", name, "type", "veth", "peer", "name", "machine", "netns", self._namespace)
        run("ip", "address", "add", f"{link.host_address}/30", "dev", name)
        run("ip", "address", "add", f"{link.link_local_address}/32", "dev", name)
        run("ip", "link", "set", name, "up")
        run(*inside, "link", "set", "lo", "up")
        run(*inside, "address", "add", f"{link.engine_address}/30", "dev", "machine")
        run(*inside, "link", "set", "machine", "up")
        run(*inside, "route", "add", link.link_local_address, "via", link.host_address)
        self._link_file.write_text(str(link.block), encoding="utf-8")

    def _free_block(self) -> int:
        addresses = run("ip", "-oneline", "-4", "address")
        first = zlib.crc32(str(self.directory).encode())
        for offset in range(_BLOCKS):
            block = (first + offset) % _BLOCKS
            if f" {Link(block).host_address}/" not in addresses:
                return block
        raise EngineError("all of 203.0.113.0/24 is in use on this machine: stop some engines (`engine down`)")

    def _spawn(self, *command: str | Path, log: Path) -> None:
        """Starts a daemon that is nobody's child: no zombie, and no end with the terminal or the test run."""
        with log.open("ab") as output:
            subprocess.run(
                ["setsid", "--fork", *self.nsenter(*command)],
                cwd="/",
                env={"PATH": packages.PATH},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=True,
            )

    def _await_answer(self) -> None:
        # A test that was killed may have left it stopped.
        processes.wait_until(lambda: self.pid is not None, timeout=5)
        if self.pid is not None:
            self.signal(signal.SIGCONT)
        answered = processes.wait_until(lambda: self.pid is None or self.api.answers(), timeout=_READY_SECONDS)
        if answered and self.pid is not None:
            return
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:] if self.log.exists() else []
        raise EngineError(f"dockerd does not answer at {self.docker_host}. The end of {self.log}:\n" + "\n".join(lines))


def _gvisor_mistakes_namespaces() -> bool:
    """Whether a new network namespace shows what gVisor takes for the sign of the initial one (google/gvisor#10704)."""
    sign = "/proc/sys/net/core/rmem_default"
    return subprocess.run(["unshare", "--net", "test", "-e", sign], check=False).returncode == 0


_CHANGE_ROOT = """\
cd "$0"
mount --make-rprivate /
mount --bind . . && cd "$PWD"
for directory in proc sys dev; do mount --rbind /$directory $directory; done
mkdir -p ".$1" && mount --bind "$1" ".$1"
pivot_root . mnt && cd /
umount --lazy /mnt
shift
exec "$@"
"""

_RUNSC_WRAPPER = """\
#!/bin/sh
# gVisor of 2024 refuses to start a container with a network on kernels that show /proc/sys/net/core/rmem_default in
# every network namespace ("cannot run with network enabled in root network namespace"): it is hidden from `start`.
case " $* " in
*" start "*) exec unshare --mount sh -c 'mount -t tmpfs -o ro none /proc/sys/net && exec RUNSC "$@"' runsc "$@" ;;
esac
exec RUNSC "$@"
"""
