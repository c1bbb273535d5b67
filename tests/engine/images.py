"""The images of the tests, made without a registry where that is possible, and put into an engine that lacks them."""

import contextlib
import io
import os
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tests.engine import packages, roots
from tests.engine.api import Api
from tests.engine.errors import EngineError
from tests.engine.packages import run, say

_LABEL = "LABEL agentic-isolation-test-image=1"
_PATH = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_APPLETS = "true false cat sleep echo env id"
_PYTHON_SOURCE = "docker.io/library/python:3.13-slim-bookworm"
_BUSYBOX_SOURCE = "docker.io/library/busybox:1.37-musl"


@dataclass(frozen=True)
class Images:
    """The names of the test images. Raise a number with every change of what is in an image."""

    python: str = "agentic-isolation-test/python:2"
    """Debian with Python, as `python` and `python3`; a shell, coreutils, and where it is made here vim and top; no
    user, no entrypoint: like a stock image."""
    tiny: str = "agentic-isolation-test/tiny:1"
    """Only /bin/{true,false,cat,sleep,echo,env,id}, static: no shell, no libc, no /etc, no /tmp."""
    entrypoint: str = "agentic-isolation-test/entrypoint:1"
    """As `python`, with an ENTRYPOINT that fails, and a USER, ENV, WORKDIR and VOLUME of its own."""


IMAGES = Images()


def ensure(api: Api, state: Path) -> None:
    """Makes the images that the engine lacks; `state` keeps them as archives, made once per machine."""
    present = {tag for image in api.json("GET", "/images/json") for tag in image["RepoTags"] or ()}
    if IMAGES.python not in present:
        say(f"Making {IMAGES.python}")
        _ensure_python(api, state)
    if IMAGES.tiny not in present:
        say(f"Making {IMAGES.tiny}")
        _ensure_tiny(api, state)
    if IMAGES.entrypoint not in present:
        say(f"Making {IMAGES.entrypoint}")
        changes = [
            'ENTRYPOINT ["/bin/false"]',
            'CMD ["of-the-image"]',
            "USER nobody",
            "ENV FROM_THE_IMAGE=1 HOME=/nowhere",
            "WORKDIR /srv",
            "VOLUME /data",
            _LABEL,
        ]
        with _container(api, IMAGES.python) as container:
            repository, _, tag = IMAGES.entrypoint.rpartition(":")
            api.request(
                "POST", "/commit", query={"container": container, "repo": repository, "tag": tag, "changes": changes}
            )


def _ensure_python(api: Api, state: Path) -> None:
    archive = state / "images" / f"{_file_name(IMAGES.python)}-{os.uname().machine}.tar"
    changes = ['CMD ["python3"]', _PATH, "ENV LANG=C.UTF-8", _LABEL]
    if _runs_here(api) and archive.exists():
        try:
            with archive.open("rb") as stream:
                return _import(api, IMAGES.python, changes, stream)
        except EngineError as error:
            say(f"{archive} is of no use: {error}")
            archive.unlink()
    if _runs_here(api) and packages.can_install() and packages.which("debootstrap"):
        _debootstrap(archive)
        with archive.open("rb") as stream:
            return _import(api, IMAGES.python, changes, stream)
    _pull(api, _PYTHON_SOURCE)
    repository, _, tag = IMAGES.python.rpartition(":")
    api.request("POST", f"/images/{_PYTHON_SOURCE}/tag", query={"repo": repository, "tag": tag})
    return None


def _ensure_tiny(api: Api, state: Path) -> None:
    archive = state / "images" / f"{_file_name(IMAGES.tiny)}-{os.uname().machine}.tar"
    if _runs_here(api) and packages.can_install():
        if not archive.exists():
            with _whole(archive) as output, tempfile.TemporaryDirectory() as directory:
                packages.unpack("busybox-static", state, Path(directory))
                _write_applets(output, (Path(directory) / "bin" / "busybox").read_bytes())
        with archive.open("rb") as stream:
            return _import(api, IMAGES.tiny, [_LABEL], stream)
    _pull(api, _BUSYBOX_SOURCE)
    with _container(api, _BUSYBOX_SOURCE) as container, tempfile.TemporaryFile() as output:
        copy = api.request("GET", f"/containers/{container}/archive", query={"path": "/bin/busybox"})
        with tarfile.open(fileobj=io.BytesIO(copy)) as packed:
            busybox = packed.extractfile("busybox")
            assert busybox is not None
            _write_applets(output, busybox.read())
        return _import(api, IMAGES.tiny, [_LABEL], output)


def _runs_here(api: Api) -> bool:
    """Whether the engine's kind of binaries is this machine's."""
    return bool(api.json("GET", "/info")["Architecture"] == os.uname().machine)


def _debootstrap(archive: Path) -> None:
    with _whole(archive) as output:
        root = Path(tempfile.mkdtemp(prefix="build-", dir=archive.parent))
        try:
            roots.bootstrap(root, "bookworm", "python3", "vim-tiny", "procps")
            (root / "usr/bin/python").symlink_to("python3")
            run("tar", "-C", root, "--numeric-owner", "--exclude=./dev/*", "-cf", output.name, ".")
        finally:
            roots.discard(root)


def _write_applets(output: BinaryIO, busybox: bytes) -> None:
    names = [f"bin/{name}" for name in _APPLETS.split()]
    with tarfile.open(fileobj=output, mode="w") as archive:
        program = tarfile.TarInfo(names[0])
        program.mode = 0o755
        program.size = len(busybox)
        archive.addfile(program, io.BytesIO(busybox))
        for name in names[1:]:
            link = tarfile.TarInfo(name)
            link.mode = 0o755
            link.type = tarfile.LNKTYPE
            link.linkname = names[0]
            archive.addfile(link)


@contextlib.contextmanager
def _whole(archive: Path) -> Iterator[BinaryIO]:
    """A file that gets its name only when it is complete and on disk; takes away what killed runs have left."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    for path in archive.parent.glob("build-*"):
        roots.discard(path)
    archive.unlink(missing_ok=True)
    partial = archive.parent / f"build-{archive.name}"
    with partial.open("w+b") as output:
        yield output
        os.fsync(output.fileno())
    partial.rename(archive)


def _import(api: Api, image: str, changes: list[str], stream: BinaryIO) -> None:
    repository, _, tag = image.rpartition(":")
    query = {"fromSrc": "-", "repo": repository, "tag": tag, "changes": changes}
    api.progress("POST", "/images/create", query=query, stream=stream, timeout=600)


def _pull(api: Api, image: str) -> None:
    say(f"Pulling {image} into {api.docker_host}")
    repository, _, tag = image.rpartition(":")
    try:
        api.progress("POST", "/images/create", query={"fromImage": repository, "tag": tag}, timeout=600)
    except EngineError as error:
        raise EngineError(
            f"{image} cannot be pulled ({error}): give the engine access to that registry, or run this as root on "
            "Debian, where the test images are made without one."
        ) from error


@contextlib.contextmanager
def _container(api: Api, image: str) -> Iterator[str]:
    identity = api.json("POST", "/containers/create", content={"Image": image, "Cmd": ["true"]})["Id"]
    try:
        yield identity
    finally:
        api.request("DELETE", f"/containers/{identity}", query={"force": "1", "v": "1"})


def _file_name(image: str) -> str:
    return image.rpartition("/")[2].replace(":", "-")
