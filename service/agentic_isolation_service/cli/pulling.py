"""A workspace that is made for one command, with the download of its image where people can see it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING

from agentic_isolation import AgenticWorkspace, ImageLayer, UnsupportedError
from agentic_isolation._target import connected
from agentic_isolation.service import ServiceCalls

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_DOCKER = "docker"


@contextlib.asynccontextmanager
async def workspace_of_image(
    provider: str,
    image: str | None,
    target: str,
    retry_timeout: float,
    *,
    working_dir: str = "/workspace",
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[AgenticWorkspace]:
    """Yields a new workspace, which is destroyed at the end.

    Where standard error is a terminal and the image is not there yet, its download is shown there.

    Args:
        provider: "docker" or "local".
        image: For docker; None: the service's default.
        target: The service's address; empty: one is embedded.
        retry_timeout: As AgenticWorkspace.create.
        working_dir: As AgenticWorkspace.create.
        environment: As AgenticWorkspace.create.
    """
    async with connected(target, retry_timeout) as connection:
        if provider == _DOCKER and sys.stderr.isatty():
            await _pull(ServiceCalls(connection), image or "")
        async with AgenticWorkspace.create(
            provider, image, working_dir, environment=environment, target=target, retry_timeout=retry_timeout
        ) as workspace:
            yield workspace


async def _pull(service: ServiceCalls, image: str) -> None:
    with contextlib.ExitStack() as shown, contextlib.suppress(UnsupportedError):  # of an older service
        display: _Display | None = None
        async with contextlib.aclosing(service.pull_image(_DOCKER, image)) as events:
            async for event in events:
                if isinstance(event, ImageLayer):
                    display = display or shown.enter_context(_displayed())
                    display.show(event)


class _Display:
    """A bar for each layer."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._layers: dict[str, TaskID] = {}

    def show(self, layer: ImageLayer) -> None:
        """Takes note of how far a layer is."""
        task = self._layers.get(layer.id)
        if task is None:
            task = self._layers[layer.id] = self._progress.add_task(layer.id, total=None, status="")
        self._progress.update(
            task, completed=layer.done_bytes, total=layer.total_bytes or None, status=layer.status.replace("\n", " ")
        )


@contextlib.contextmanager
def _displayed() -> Iterator[_Display]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), TextColumn("{task.fields[status]}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Display(progress)
