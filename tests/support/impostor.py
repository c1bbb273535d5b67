"""An image that means to run its own program where ours is: for tests that it does not come to it."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator

from tests.engine import Engine

_DIRECTORY = "a/b"
_PROGRAM = b'#!/bin/sh\necho an impostor was asked for "$*" >&2\nexit 1\n'
_REPOSITORY = "agentic-isolation-test/impostor"


@contextlib.contextmanager
def impostor_image(engine: Engine) -> Iterator[str]:
    """Yields the name of an image that knows where the guest's volume used to be mounted.

    There it has a symbolic link to a volume of its own, which engines mount on top of what is mounted at the link, with
    a program in the guest's place and the mark of a complete volume.
    """
    api = engine.api
    container = api.json("POST", "/containers/create", content={"Image": engine.images.python})["Id"]
    try:
        api.request("PUT", f"/containers/{container}/archive", query={"path": "/"}, stream=io.BytesIO(_files()))
        changes = {"container": container, "repo": _REPOSITORY, "tag": "1", "changes": f"VOLUME /{_DIRECTORY}"}
        api.request("POST", "/commit", query=changes)
    finally:
        api.request("DELETE", f"/containers/{container}", query={"force": "1", "v": "1"})
    try:
        yield f"{_REPOSITORY}:1"
    finally:
        api.request("DELETE", f"/images/{_REPOSITORY}:1", query={"force": "1"})


def _files() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo(".agentic-isolation")
        link.type, link.linkname = tarfile.SYMTYPE, f"/{_DIRECTORY}"
        archive.addfile(link)
        for name, content in (("agentic-guest", _PROGRAM), ("complete", b"")):
            entry = tarfile.TarInfo(f"{_DIRECTORY}/{name}")
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
