"""Settings of the service: what is listened on is never reachable from other machines."""

from __future__ import annotations

import pytest

from agentic_isolation import InvalidArgumentError, WorkspaceConfig
from agentic_isolation_service.config import DNS_VARIABLE, IMAGE_VARIABLE, LABELS_VARIABLE, DockerConfig, ServiceConfig
from agentic_isolation_service.core.templates import PoolTemplate
from agentic_isolation_service.settings.file import FileSettings


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:0",
        "127.0.0.1:65535",
        "127.8.8.8:50051",
        "[::1]:50051",
        "localhost:1",
        "unix:s",
        "unix:/run/agentic-isolation/grpc.sock",
        "unix:" + "x" * 107,
    ],
)
def test_address_that_is_accepted(address: str) -> None:
    assert ServiceConfig(address=address).address == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        ":50051",
        "50051",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:http",
        "127.0.0.1:-1",
        "127.0.0.1:65536",
        "127.0.0.1:٣",
        "0.0.0.0:50051",
        "[::]:50051",
        "10.0.0.1:50051",
        "[fe80::1]:50051",
        "192.168.1.1:50051",
        "example.org:50051",
        "localhost.example.org:50051",
        "2130706433:50051",
        "127.1:50051",
        "dns:127.0.0.1:50051",
        "unix:",
        "unix:" + "x" * 108,
        "unix:" + "ü" * 54,
        "::1:80",
        "[::1:80",
        "[localhost]:80",
        "unix-abstract:name",
        "vsock:1:2",
    ],
)
def test_address_that_is_refused(address: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        ServiceConfig(address=address)
    assert caught.value.field == "address"


def test_refusal_of_a_reachable_address_says_what_would_work() -> None:
    with pytest.raises(InvalidArgumentError, match=r"0\.0\.0\.0 is reachable.*listen on 127\.0\.0\.1"):
        ServiceConfig(address="0.0.0.0:50051")


@pytest.mark.parametrize(
    ("field", "value"), [("max_workspaces", 0), ("grace", -1.0), ("grace", 3601.0), ("grace", float("nan"))]
)
def test_number_that_is_refused(field: str, value: float) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        ServiceConfig(**{field: value})  # type: ignore[arg-type]
    assert caught.value.field == field


@pytest.mark.parametrize("providers", [(), ("podman",), ("docker", "podman")])
def test_providers_that_are_refused(providers: tuple[str, ...]) -> None:
    with pytest.raises(InvalidArgumentError, match="use docker or local, or both") as caught:
        ServiceConfig(providers=providers)
    assert caught.value.field == "providers"


def test_pool_of_a_provider_that_is_not_offered() -> None:
    pool = PoolTemplate(name="any", config=WorkspaceConfig(provider="local"))
    with pytest.raises(InvalidArgumentError, match="only of docker") as caught:
        ServiceConfig(providers=("docker",), file=FileSettings(pools=[pool]))
    assert caught.value.field == "pool[0].provider"


def test_defaults_listen_on_loopback() -> None:
    assert ServiceConfig().address.startswith("127.0.0.1:")
    assert ServiceConfig(max_workspaces=1, grace=0).grace == 0


def test_docker_settings_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(IMAGE_VARIABLE, "alpine:3")
    monkeypatch.setenv(LABELS_VARIABLE, "run=7,owner=a=b,empty=")
    monkeypatch.setenv(DNS_VARIABLE, "203.0.113.1, 203.0.113.2")
    assert DockerConfig.from_environment() == DockerConfig(
        image="alpine:3", labels={"run": "7", "owner": "a=b", "empty": ""}, dns=("203.0.113.1", "203.0.113.2")
    )
    monkeypatch.setenv(DNS_VARIABLE, "")
    monkeypatch.setenv(IMAGE_VARIABLE, "")
    monkeypatch.delenv(LABELS_VARIABLE)
    assert DockerConfig.from_environment() == DockerConfig()


def test_malformed_docker_label_of_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LABELS_VARIABLE, "run")
    with pytest.raises(InvalidArgumentError, match="NAME=VALUE") as caught:
        DockerConfig.from_environment()
    assert caught.value.field == LABELS_VARIABLE


@pytest.mark.parametrize("address", ["resolver.test", "2001:db8::53", "203.0.113.1:53"])
def test_name_server_that_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv(DNS_VARIABLE, address)
    with pytest.raises(InvalidArgumentError, match="IPv4") as caught:
        DockerConfig.from_environment()
    assert caught.value.field == DNS_VARIABLE
