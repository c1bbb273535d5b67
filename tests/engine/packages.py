"""What a bare Debian machine lacks: Docker Engine, gVisor and the tools that make images, by apt-get."""

import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.engine.errors import EngineError

PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])

_PACKAGES = {
    "dockerd": "docker.io",
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "debootstrap": "debootstrap",
}

_OLDEST_RUNSC = 20240101
"""Bookworm's own, of 2022, fails on current kernels; the one in bookworm-backports works."""

_LISTS_LAST_SECONDS = 6 * 3600

_POLICY = Path("/usr/sbin/policy-rc.d")
_SAVED_POLICY = _POLICY.with_name("policy-rc.d.before-agentic-isolation")
_POLICY_TEXT = "#!/bin/sh\n# Of agentic-isolation's tests, while they install: no service may start.\nexit 101\n"
_FORBIDDEN = 101


def run(*command: str | Path, timeout: float = 600, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Runs a tool and returns what it prints.

    Raises:
        EngineError: It cannot be started, fails, or takes longer than `timeout` seconds; with the end of its output.
    """
    words = [str(word) for word in command]
    environment = {**os.environ, "PATH": PATH, "LC_ALL": "C.UTF-8", **(env or {})}
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"{' '.join(words)}: {error}") from error
    if done.returncode:
        output = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise EngineError(f"{' '.join(words)} exited with {done.returncode}:\n{output}")
    return done.stdout


def say(text: str) -> None:
    """Tells whoever waits what is being done."""
    print(text, file=sys.stderr, flush=True)


def which(name: str) -> str | None:
    """The path of a program, also where an ordinary user's PATH leaves out the administrator's directories."""
    return shutil.which(name, path=PATH)


def runsc() -> str | None:
    """The path of a gVisor that is new enough."""
    for path in dict.fromkeys([which("runsc"), "/usr/local/bin/runsc", "/usr/bin/runsc"]):
        if path and os.access(path, os.X_OK):
            date = re.search(r"20\d{6}", run(path, "--version"))
            if date and int(date[0]) >= _OLDEST_RUNSC:
                return path
    return None


def install_missing(state: Path) -> None:
    """Installs what is missing, starts no service, and leaves apt's own lists of packages and sources alone.

    Raises:
        EngineError: Something is missing and this is not root on a Debian machine, or apt-get fails.
    """
    _restore_policy()
    missing = sorted({package for program, package in _PACKAGES.items() if which(program) is None})
    if runsc() is None:
        # Later releases of Debian have a gVisor of their own that works.
        missing.append("runsc/bookworm-backports" if _release()["VERSION_CODENAME"] == "bookworm" else "runsc")
    if not missing:
        return
    _demand_debian(missing)
    say(f"Installing {' '.join(missing)}")
    apt = _apt(state)
    with _no_service_starts():
        run(*apt, "--no-install-recommends", "install", *missing, env={"DEBIAN_FRONTEND": "noninteractive"})
    if "docker.io" in missing and which("systemctl"):
        # Nor at the next boot: the tests' engine is started by the tests.
        with contextlib.suppress(EngineError):
            run("systemctl", "disable", "--quiet", "docker.socket", "docker.service", "containerd.service")


def unpack(package: str, state: Path, destination: Path) -> None:
    """Unpacks a Debian package into a directory, without installing it."""
    _demand_debian([package])
    with tempfile.TemporaryDirectory() as directory:
        run(*_apt(state), "download", package, cwd=Path(directory))
        (archive,) = Path(directory).glob("*.deb")
        run("dpkg-deb", "--extract", archive, destination)


def debian_mirror() -> str:
    """Where this machine gets the packages of its own release from."""
    codename = _release()["VERSION_CODENAME"]
    wanted = ("Created-By: Packages", f"Release: {codename}", "Component: main")
    targets = run("apt-get", "indextargets", "--format", "$(REPO_URI)", *wanted).split()
    if not targets:
        raise EngineError(f"apt has no source for {codename} main: look into /etc/apt/sources.list and sources.list.d")
    return targets[0]


def _release() -> dict[str, str]:
    return {"ID": "", "VERSION_CODENAME": "", **platform.freedesktop_os_release()}


def can_install() -> bool:
    """Whether this is root on a Debian machine."""
    return os.geteuid() == 0 and which("apt-get") is not None and _release()["ID"] == "debian"


def _demand_debian(missing: list[str]) -> None:
    what = f"A private Docker Engine for tests needs {' '.join(missing)}"
    instead = "set DOCKER_HOST to an engine of your own (with the runtime runsc for the tests of gVisor)"
    if os.geteuid() != 0:
        raise EngineError(f"{what}, and only root can install that: run this as root, or {instead}.")
    if not can_install():
        this = _release().get("PRETTY_NAME", platform.platform())
        raise EngineError(f"{what}; Debian's packages are installed, but this is {this}: install it, or {instead}.")


def _apt(state: Path) -> list[str]:
    """An apt-get command with backports on, whose lists and sources are the tests' own."""
    apt = state / "apt"
    sources, lists = apt / "sources", apt / "lists"
    options = [
        f"Dir::Etc::SourceParts={sources}",
        f"Dir::State::Lists={lists}",
        "APT::Sandbox::User=root",
        "DPkg::Lock::Timeout=300",
    ]
    command = ["apt-get", "--quiet", "--yes", *(word for option in options for word in ("--option", option))]
    updated = apt / "updated"
    if updated.exists() and time.time() - updated.stat().st_mtime < _LISTS_LAST_SECONDS:
        return command
    shutil.rmtree(apt, ignore_errors=True)
    (lists / "partial").mkdir(parents=True)
    sources.mkdir()
    for path in Path("/etc/apt/sources.list.d").glob("*"):
        if path.suffix in {".list", ".sources"}:
            shutil.copy(path, sources)
    if _release()["VERSION_CODENAME"] == "bookworm":
        keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
        signed = f" [signed-by={keyring}]" if keyring.exists() else ""
        backports = f"deb{signed} {debian_mirror()} bookworm-backports main\n"
        (sources / "agentic-isolation-backports.list").write_text(backports, encoding="utf-8")
    run(*command, "update")
    updated.touch()
    return command


@contextlib.contextmanager
def _no_service_starts() -> Iterator[None]:
    """Debian starts a service as soon as it is installed; /usr/sbin/policy-rc.d is the way to forbid it."""
    if os.access(_POLICY, os.X_OK):
        verdict = subprocess.run([_POLICY, "docker", "start"], check=False)
        if verdict.returncode == _FORBIDDEN:
            yield
            return
    if _POLICY.exists():
        _POLICY.rename(_SAVED_POLICY)
    _POLICY.write_text(_POLICY_TEXT, encoding="utf-8")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _restore_policy()


def _restore_policy() -> None:
    """Also takes back what a run that was killed has left."""
    with contextlib.suppress(OSError):
        if _POLICY.read_text(encoding="utf-8", errors="replace") == _POLICY_TEXT:
            _POLICY.unlink()
    if _SAVED_POLICY.exists():
        _SAVED_POLICY.rename(_POLICY)
