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
from agentic_isolation_service.config_file import CONFIG_VARIABLE, read_pools
from agentic_isolation_service.core.workspaces import DEFAULT_MAX_WORKSPACES, DEFAULT_REQUEST_WINDOW

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@click.command()
@click.option("--address", default=DEFAULT_ADDRESS, show_default=True, help="host:port (loopback) or unix:PATH.")
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory for its state; one service at a time holds it. Workspaces outlive the service, and the next one "
    "with this directory takes them up. Without it, they end with the service.",
)
@click.option(
    "--takeover-timeout",
    default=60.0,
    show_default=True,
    help="Seconds to wait for another service with this state directory to end.",
)
@click.option(
    "--request-window",
    default=DEFAULT_REQUEST_WINDOW,
    show_default=True,
    help="Seconds that the id of a request is remembered after its end.",
)
@click.option("--max-workspaces", default=DEFAULT_MAX_WORKSPACES, show_default=True, help="Workspaces at a time.")
@click.option(
    "--config",
    "config_file",
    envvar=CONFIG_VARIABLE,
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file with pools: places that are kept ready, each kind by a table [[pool]] with name, provider, image, "
    "working_dir, min, max, security and limits.",
)
@click.option("--grace", default=10.0, show_default=True, help="Seconds that running calls have when it stops.")
@click.option("--docker-host", envvar="DOCKER_HOST", help="The Docker Engine, as DOCKER_HOST spells it.")
@click.option("--docker-image", envvar=IMAGE_VARIABLE, help="Image of workspaces that name none.")
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True)
@click.option("--log-json", is_flag=True, help="Log JSON for programs.")
def serve(
    address: str,
    state_dir: Path | None,
    takeover_timeout: float,
    request_window: float,
    max_workspaces: int,
    config_file: Path | None,
    grace: float,
    docker_host: str | None,
    docker_image: str | None,
    log_level: str,
    log_json: bool,
) -> None:
    """Run the service until SIGTERM or SIGINT; a second one ends it at once.

    When it stops it refuses new calls, waits for running ones, and ends streams so that they can be resumed. Its
    workspaces stay for the next service with its state directory; without one they are destroyed.
    """
    configure_logs(log_level, as_json=log_json)
    docker = DockerConfig.from_environment()
    docker = replace(docker, host=docker_host, image=docker_image or docker.image)
    config = ServiceConfig(
        address=address,
        state_dir=state_dir,
        takeover_timeout=takeover_timeout,
        request_window=request_window,
        max_workspaces=max_workspaces,
        pools=read_pools(config_file) if config_file is not None else (),
        grace=grace,
        docker=docker,
    )
    asyncio.run(_serve(config))


async def _serve(config: ServiceConfig) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    main = asyncio.current_task()
    starting = True

    def first_signal() -> None:
        stop.set()
        if starting and main is not None:
            main.cancel()
        for number in _STOP_SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, first_signal)
    try:
        async with run_service(config) as address:
            starting = False
            click.echo(f"listening on {address}")
            await stop.wait()
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
