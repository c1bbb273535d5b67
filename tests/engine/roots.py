"""Directories with an installed Debian: what an image is made of, or what an engine of another release runs in."""

import os
import shutil
import tempfile
from pathlib import Path

from tests.engine import packages, processes
from tests.engine.packages import run, say

_WASTE = "var/cache/apt var/lib/apt/lists var/log usr/share/doc usr/share/man usr/share/locale"


def bootstrap(root: Path, release: str, *include: str) -> None:
    """Installs a minimal Debian with some packages into an empty directory."""
    what = ("--variant=minbase", f"--include={','.join(include)}", release, root, packages.debian_mirror())
    # It would otherwise go on when this process is killed.
    run("setpriv", "--pdeathsig", "KILL", "debootstrap", *what, timeout=1200)
    for waste in _WASTE.split():
        shutil.rmtree(root / waste, ignore_errors=True)
        (root / waste).mkdir()
    root.chmod(0o755)


def discard(path: Path) -> None:
    """Removes a file, or a directory with all that is mounted in it."""
    processes.unmount(path)
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def of_engine(state: Path, release: str) -> Path:
    """The directory with Docker Engine and gVisor of a Debian release, made once per machine."""
    root = state / "roots" / f"{release}-{os.uname().machine}"
    if not root.exists():
        say(f"Installing the Docker Engine of Debian {release} into {root}")
        root.parent.mkdir(parents=True, exist_ok=True)
        for path in root.parent.glob("build-*"):
            discard(path)
        partial = Path(tempfile.mkdtemp(prefix="build-", dir=root.parent))
        try:
            bootstrap(partial, release, "docker.io", "iptables", "runsc")
            partial.rename(root)
        finally:
            discard(partial)
    return root
