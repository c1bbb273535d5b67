"""The service's image, built by the engine's API from this checkout as `docker build` does it, without any network."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pathspec

from tests.engine import Engine
from tests.engine.errors import EngineError
from tests.image.running import Container
from tests.support.program import CHECKOUT

_DOCKERFILE = "deploy/Dockerfile"
_WHEELS = "deploy/wheels"
_DOWNLOAD_TIMEOUT = 300


@contextlib.contextmanager
def built(engine: Engine) -> Iterator[str]:
    """Builds the image on the tests' own image of Python and yields its name; it goes away on the way out."""
    name = f"agentic-isolation-test/service:{uuid.uuid4().hex[:12]}"
    with tempfile.TemporaryDirectory() as directory, tempfile.TemporaryFile() as context:
        _download(_python_of(engine), Path(directory))
        _pack(context, Path(directory))
        before = _nameless(engine)
        try:
            # The first stage gets a name too: without one it would stay behind, and nobody could tell whose it is.
            for tag, target in ((f"{name}-build", {"target": "build"}), (name, {})):
                query = {"t": tag, "dockerfile": _DOCKERFILE, "networkmode": "none", "rm": "1", "forcerm": "1"}
                arguments = json.dumps({"PYTHON_IMAGE": engine.images.python})
                engine.api.progress(
                    "POST", "/build", query=query | target | {"buildargs": arguments}, stream=context, timeout=300
                )
            yield name
        finally:
            for tag in (name, f"{name}-build"):
                with contextlib.suppress(EngineError):
                    engine.api.request("DELETE", f"/images/{tag}")
        assert _nameless(engine) <= before, "a build left something behind"


def _nameless(engine: Engine) -> set[str]:
    query = {"filters": json.dumps({"dangling": ["true"]})}
    return {image["Id"] for image in engine.api.json("GET", "/images/json", query=query)}


def _pack(context: BinaryIO, wheels: Path) -> None:
    """Writes what the build is given: what .dockerignore leaves of the checkout, with these wheels in their place."""
    with tarfile.open(fileobj=context, mode="w") as archive:
        archive.add(CHECKOUT / _DOCKERFILE, _DOCKERFILE)  # docker sends it whatever .dockerignore says
        for path in _sent():
            archive.add(path, _name(path))
        for wheel in sorted(wheels.iterdir()):
            archive.add(wheel, f"{_WHEELS}/{wheel.name}")


def _sent() -> Iterator[Path]:
    ignored = pathspec.GitIgnoreSpec.from_lines((CHECKOUT / ".dockerignore").read_text().splitlines())
    for top in sorted(CHECKOUT.iterdir()):
        if top.is_dir() and not ignored.match_file(f"{top.name}/any"):
            yield from (path for path in top.rglob("*") if path.is_file() and not ignored.match_file(_name(path)))
        elif top.is_file() and not ignored.match_file(top.name):
            yield top


def _name(path: Path) -> str:
    return path.relative_to(CHECKOUT).as_posix()


def _python_of(engine: Engine) -> str:
    """Returns the version of Python in the tests' image, as 3.11."""
    words = ["python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    with Container.started(engine, {"Image": engine.images.python, "Cmd": words}) as container:
        assert container.wait() == 0
        return container.log().strip()


def _download(python: str, wheels: Path) -> None:
    """Does what `make wheelhouse` does."""
    target = ["--python-version", python, "--only-binary", ":all:"]
    subprocess.run(
        ["make", "--silent", "wheelhouse", f"WHEELS={wheels}", f"WHEELS_ARGS={' '.join(target)}"],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        check=True,
        timeout=_DOWNLOAD_TIMEOUT,
    )
