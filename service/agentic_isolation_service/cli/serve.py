"""`serve`: the service."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from pathlib import Path

import click

from agentic_isolation_service.app import serve as run_service
from agentic_isolation_service.cli.logs import LEVELS, configure_logs
from agentic_isolation_service.config import DEFAULT_ADDRESS, IMAGE_VARIABLE, DockerConfig, ServiceConfig
from agentic_isolation_service.core.workspaces import DEFAULT_MAX_WORKSPACES

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@click.command()
@click.option("--address", default=DEFAULT_ADDRESS, show_default=True, help="host:port (loopback) or unix:PATH.")
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory for its state; one service at a time holds it. Without it, a temporary one.",
)
@click.option("--max-workspaces", default=DEFAULT_MAX_WORKSPACES, show_default=True, help="Workspaces at a time.")
@click.option("--grace", default=10.0, show_default=True, help="Seconds that running calls have when it stops.")
@click.option("--docker-host", envvar="DOCKER_HOST", help="The Docker Engine, as DOCKER_HOST spells it.")
@click.option("--docker-image", envvar=IMAGE_VARIABLE, help="Image of workspaces that name none.")
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True)
@click.option("--log-json", is_flag=True, help="Log JSON for programs.")
def serve(
    address: str,
    state_dir: Path | None,
    max_workspaces: int,
    grace: float,
    docker_host: str | None,
    docker_image: str | None,
    log_level: str,
    log_json: bool,
) -> None:
    """Run the service until SIGTERM or SIGINT; a second one ends it at once.

    When it stops it refuses new calls, waits for running ones, and destroys its workspaces.
    """
    configure_logs(log_level, as_json=log_json)
    docker = DockerConfig.from_environment()
    docker = replace(docker, host=docker_host, image=docker_image or docker.image)
    config = ServiceConfig(
        address=address, state_dir=state_dir, max_workspaces=max_workspaces, grace=grace, docker=docker
    )
    asyncio.run(_serve(config))


async def _serve(config: ServiceConfig) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def first_signal() -> None:
        stop.set()
        for number in _STOP_SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, first_signal)
    async with run_service(config) as address:
        click.echo(f"listening on {address}")
        await stop.wait()
