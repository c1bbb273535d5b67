"""What `import agentic_isolation` gives, and what it does not load."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

import agentic_isolation
from agentic_isolation import errors, models

DIRECT_PROVIDERS = {"WorkspaceDockerProvider", "WorkspaceLocalProvider"}
HEAVY = {"agentic_isolation_service", "aiodocker", "aiohttp", "click", "rich", "structlog", "hypothesis", "pytest"}


def test_all_is_sorted_and_equals_the_public_names() -> None:
    public = {
        name
        for name, value in vars(agentic_isolation).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    } - {"annotations", "TYPE_CHECKING"}
    assert agentic_isolation.__all__ == sorted(agentic_isolation.__all__)
    assert set(agentic_isolation.__all__) == public | DIRECT_PROVIDERS | {"__version__"}


@pytest.mark.parametrize("name", agentic_isolation.__all__)
def test_name_resolves(name: str) -> None:
    assert getattr(agentic_isolation, name) is not None


@pytest.mark.parametrize("module", [errors, models], ids=lambda module: module.__name__)
def test_modules_export_what_they_define(module: types.ModuleType) -> None:
    defined = {name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
    public = {name for name in defined if not name.startswith("_")}
    assert public - set(module.__all__) == set()
    assert module.__all__ == sorted(module.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="NoSuchThing"):
        agentic_isolation.NoSuchThing  # noqa: B018


def test_import_is_light() -> None:
    """Neither the service nor an engine's library is loaded by a program that uses a remote service."""
    program = "import agentic_isolation, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.split())
    assert "agentic_isolation" in loaded
    assert loaded & HEAVY == set()
