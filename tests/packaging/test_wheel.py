"""What a user gets: the sdist, the wheel built from it, and that wheel in an environment outside the checkout."""

import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

# One group, so that all of it shares one build; fetching the dependencies may take a while.
pytestmark = [pytest.mark.xdist_group("packaging"), pytest.mark.timeout(600)]

CHECKOUT = Path(__file__).parents[2]
NOT_COPIED = shutil.ignore_patterns(".*_cache", ".git", ".venv", ".hypothesis", "__pycache__", "bin", "build", "dist")
ELF_MACHINES = {"agentic-guest-linux-amd64": 0x3E, "agentic-guest-linux-arm64": 0xB7}
PT_INTERP = 3


def run(*command: str | Path, cwd: Path) -> str:
    """Runs a command as a stranger to the checkout would, and returns its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "AGENTIC_"))}
    # Where PATH has no Go, `make setup` has put one beside this interpreter.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def pip(binaries: Path, *arguments: str | Path, cwd: Path) -> str:
    """Has this interpreter's pip work on another environment, which needs none: to put one there takes seconds."""
    return run(sys.executable, "-m", "pip", "--python", binaries / "python", *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sdist, and the wheel that was built from it (`build` does it in this order)."""
    directory = tmp_path_factory.mktemp("build")
    shutil.copytree(CHECKOUT, directory / "checkout", ignore=NOT_COPIED)
    run(sys.executable, "-m", "build", "--outdir", directory / "dist", directory / "checkout", cwd=directory)
    return directory / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a fresh environment with the wheel and, from the package index, what it depends on."""
    directory = tmp_path_factory.mktemp("stranger")
    venv.create(directory / "venv")
    binaries = directory / "venv" / "bin"
    pip(binaries, "install", "--quiet", "--disable-pip-version-check", wheel, cwd=directory)
    return binaries


def test_wheel_holds_the_two_packages_and_nothing_else(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    top_level = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert top_level == {"agentic_isolation", "agentic_isolation_service"}
    assert "agentic_isolation/py.typed" in names
    assert "agentic_isolation/v1/workspace_pb2.pyi" in names
    assert not [name for name in names if name.endswith((".pyc", ".go", ".proto", ".stamp"))]


@pytest.mark.parametrize("name", ELF_MACHINES)
def test_wheel_carries_static_executable_guests(wheel: Path, name: str) -> None:
    archive = zipfile.ZipFile(wheel)
    member = archive.getinfo(f"agentic_isolation_service/guest/bin/{name}")
    assert member.external_attr >> 16 & stat.S_IXUSR
    image = archive.read(member)
    assert image[:6] == b"\x7fELF\x02\x01"  # 64 bits, little endian
    (machine,) = struct.unpack_from("<H", image, 18)
    assert machine == ELF_MACHINES[name]
    (table,) = struct.unpack_from("<Q", image, 32)
    size, count = struct.unpack_from("<HH", image, 54)
    segments = {struct.unpack_from("<I", image, table + size * index)[0] for index in range(count)}
    assert PT_INTERP not in segments, "the guest has to run in images without a libc"


def test_sdist_has_the_sources_of_the_guest_and_no_binary(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert {"guest/go.mod", "hatch_build.py", "proto/agentic_isolation/v1/workspace.proto"} <= set(names)
    assert not [name for name in names if "agentic-guest-" in name]


def test_installed_command_line_and_dependencies(environment: Path, tmp_path: Path) -> None:
    pip(environment, "check", cwd=tmp_path)
    assert "serve" in run(environment / "agentic-isolation", "--help", cwd=tmp_path)
    where = run(environment / "python", "-c", "import agentic_isolation as a; print(a.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(environment.parent)


def test_quick_start_of_the_examples(environment: Path, tmp_path: Path) -> None:
    shutil.copy(CHECKOUT / "examples" / "quickstart.py", tmp_path)
    output = run(environment / "python", "-W", "error", "quickstart.py", cwd=tmp_path)
    assert output.splitlines() == ["0 hi", "3", "2", "1", "lift-off"]


def test_quick_start_of_the_readme(environment: Path, tmp_path: Path) -> None:
    """The first Python block below the heading 'Quick start' runs as it stands."""
    section = re.split(r"(?mi)^##+ .*quick ?start.*$", (CHECKOUT / "README.md").read_text(encoding="utf-8"))[1]
    block = re.search(r"(?ms)^```python\n(.*?)^```$", section)
    assert block is not None
    assert 'provider="local"' in block[1]
    (tmp_path / "readme.py").write_text(block[1], encoding="utf-8")
    assert "hi" in run(environment / "python", "-W", "error", "readme.py", cwd=tmp_path)
