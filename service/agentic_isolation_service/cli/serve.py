"""`serve`: the service."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import click

from agentic_isolation_service.cli.logs import LEVELS, configure_logs, flush_logs
from agentic_isolation_service.config import (
    DEFAULT_ADDRESS,
    DEFAULT_IMAGE,
    IMAGE_VARIABLE,
    REPLICA_VARIABLE,
    DockerConfig,
    ServiceConfig,
)
from agentic_isolation_service.core.workspaces import DEFAULT_MAX_WORKSPACES, DEFAULT_REQUEST_WINDOW
from agentic_isolation_service.serving import serve as run_service
from agentic_isolation_service.settings.audit import AuditSettings
from agentic_isolation_service.settings.file import CONFIG_VARIABLE, FileSettings, read_settings
from agentic_isolation_service.settings.providers import PROVIDERS

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_END_TIMEOUT = 8.0
"""Seconds beyond its grace that a service has to end whose workspaces stay: one more than the calls have, to be ended.
What is still under way then waits for an engine that does not answer."""
_log = logging.getLogger(__name__)


def _mode(context: click.Context, option: click.Parameter, value: str) -> int:
    try:
        return int(value, 8)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no mode in octal, such as 0660") from None


@click.command()
@click.option("--address", default=DEFAULT_ADDRESS, show_default=True, help="host:port or unix:PATH.")
@click.option(
    "--insecure-listen",
    is_flag=True,
    help="Listen where anybody who can reach the address, or open the socket, has every workspace.",
)
@click.option(
    "--plaintext",
    is_flag=True,
    help="Listen beyond loopback without TLS: a mesh or a proxy in front of the service has it.",
)
@click.option(
    "--socket-mode",
    default="0600",
    show_default=True,
    metavar="OCTAL",
    callback=_mode,
    help="Mode of the unix socket: who may write to it may connect, and has every workspace.",
)
@click.option("--socket-group", metavar="NAME", help="Group of the unix socket.")
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
    "working_dir, min, max, tenants, security and limits; with [tls], [[token]], [jwt] and [unix]: who may call; with "
    "[[tenant]]: whose workspaces are; with [quota] and [tenant_quota]; with [cluster]: the name of this replica; with "
    "[metrics], [tracing] and [audit].",
)
@click.option(
    "--replica",
    envvar=REPLICA_VARIABLE,
    help="Its name among the replicas behind one proxy, a part of its workspaces' ids; else that of the file.",
)
@click.option("--metrics-address", help="host:port to serve metrics for Prometheus on, at /metrics. Default: nowhere.")
@click.option("--channelz", is_flag=True, help="Serve gRPC's channelz, which tells of all connections and calls.")
@click.option(
    "--audit-log",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File that says who has called what, in place of `path` in the table [audit] of the configuration file.",
)
@click.option("--grace", default=10.0, show_default=True, help="Seconds that running calls have when it stops.")
@click.option("--docker-host", envvar="DOCKER_HOST", help="The Docker Engine, as DOCKER_HOST spells it.")
@click.option(
    "--docker-image", envvar=IMAGE_VARIABLE, help=f"Image of workspaces that name none.  [default: {DEFAULT_IMAGE}]"
)
@click.option(
    "--provider",
    "providers",
    type=click.Choice(PROVIDERS),
    multiple=True,
    default=PROVIDERS,
    help="What callers may make workspaces of; repeatable. Default: both. The local one runs their commands with this "
    "program's own rights: leave it out wherever they are not yours.",
)
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True)
@click.option("--log-json", is_flag=True, help="Log JSON for programs.")
def serve(
    address: str,
    insecure_listen: bool,
    plaintext: bool,
    socket_mode: int,
    socket_group: str | None,
    state_dir: Path | None,
    takeover_timeout: float,
    request_window: float,
    max_workspaces: int,
    config_file: Path | None,
    replica: str | None,
    metrics_address: str | None,
    channelz: bool,
    audit_log: Path | None,
    grace: float,
    docker_host: str | None,
    docker_image: str | None,
    providers: tuple[str, ...],
    log_level: str,
    log_json: bool,
) -> None:
    """Run the service until SIGTERM, SIGINT or SIGHUP; a second one of the first two ends it at once.

    When it stops it refuses new calls, waits for running ones, and ends streams so that they can be resumed. Its
    workspaces stay for the next service with its state directory; without one they are destroyed.
    """
    configure_logs(log_level, as_json=log_json)
    file = read_settings(config_file) if config_file is not None else FileSettings()
    if audit_log is not None:
        path = audit_log.absolute()
        file = replace(file, audit=replace(file.audit, path=path) if file.audit else AuditSettings(path=path))
    docker = DockerConfig.from_environment()
    docker = replace(docker, host=docker_host, image=docker_image or docker.image)
    config = ServiceConfig(
        address=address,
        insecure_listen=insecure_listen,
        plaintext=plaintext,
        socket_mode=socket_mode,
        socket_group=socket_group,
        state_dir=state_dir,
        takeover_timeout=takeover_timeout,
        request_window=request_window,
        max_workspaces=max_workspaces,
        replica=replica or file.cluster.replica,
        file=file,
        metrics_address=metrics_address,
        channelz=channelz,
        grace=grace,
        docker=docker,
        providers=providers,
    )
    asyncio.run(_serve(config))


async def _serve(config: ServiceConfig) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    main = asyncio.current_task()
    starting = True

    def first_signal() -> None:
        stop.set()
        if config.state_dir is not None:
            loop.call_later(config.grace + _END_TIMEOUT, _end_at_once)
        if starting and main is not None:
            main.cancel()
        for number in handled:
            loop.remove_signal_handler(number)
            # A terminal that is closed may say so twice: the kernel does, and its shell.
            signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else signal.SIG_DFL)

    # nohup(1) has SIGHUP ignored.
    handled = [n for n in _STOP_SIGNALS if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]
    for number in handled:
        loop.add_signal_handler(number, first_signal)
    try:
        async with run_service(config) as address:
            starting = False
            await asyncio.to_thread(flush_logs)  # who waits for the line below finds in the log what came before it
            _announce(f"listening on {address}")
            await stop.wait()
    except asyncio.CancelledError:
        if not stop.is_set():
            raise


def _end_at_once() -> None:
    """Ends this process as a second signal does. Nothing is lost: the next service takes up what is half done."""
    _log.warning("something under way does not end; it is left to the next service")
    flush_logs()
    os._exit(0)


def _announce(words: str) -> None:
    """Prints a line, which nobody need read."""
    try:
        click.echo(words)
    except OSError as error:
        _log.warning("standard output takes nothing: %s", words, extra={"cause": error.strerror})
        # What was not taken stays in the buffer, and would fail again at the program's end.
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
