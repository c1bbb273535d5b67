"""What people use now, from PyPI: each in a virtual environment of its own, made when it is first asked for."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.worker_process import CHECKOUT, Missing

PEERS: Mapping[str, Sequence[str]] = {
    "docker-py": ["docker>=7.1,<8"],
    "llm-sandbox": ["llm-sandbox[docker]>=0.3.30,<0.4"],
    "swe-rex": ["swe-rex>=1.4,<2", "aiohttp"],
    "inspect-ai": ["inspect-ai>=0.3.130,<0.4"],
}
"""Requirements by name, in the ranges that contenders/ was written for. swe-rex does not say that it needs aiohttp."""
_DIRECTORY = CHECKOUT / "build" / "bench" / "peers"


def interpreter(peer: str) -> Path:
    """Returns the interpreter that has a peer, and installs it where there is none.

    Raises:
        Missing: It cannot be installed.
    """
    home = _DIRECTORY / peer
    python = home / "bin" / "python"
    stamp = home / ".installed"
    wanted = "\n".join(PEERS[peer])
    _DIRECTORY.mkdir(parents=True, exist_ok=True)
    with (_DIRECTORY / f"{peer}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            _install(peer, home)
            stamp.write_text(wanted)
    return python


def _install(peer: str, home: Path) -> None:
    print(f"Installing {' '.join(PEERS[peer])} into {home}", file=sys.stderr)
    try:
        _run(sys.executable, "-m", "venv", "--clear", str(home))
        _run(
            str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PEERS[peer]
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Missing(f"cannot be installed: {error}") from error


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=600, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    for name in PEERS:
        interpreter(name)
