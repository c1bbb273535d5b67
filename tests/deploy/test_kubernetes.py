"""The Kubernetes manifests keep what they promise. That they are valid is checked by `make lint-deploy`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentic_isolation_service.settings.file import read_settings
from tests.deploy.serving import DEPLOY, ENDING, SPARE, check_service, options_of
from tests.support.program import CHECKOUT

BASE = DEPLOY / "kubernetes" / "base"
MESH = DEPLOY / "kubernetes" / "mesh"


def documents(kind: str) -> list[dict[str, Any]]:
    """The base's manifests of one kind, of the files that its kustomization names."""
    names = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    found = [each for name in names for each in yaml.safe_load_all((BASE / name).read_text())]
    return [each for each in found if each["kind"] == kind]


def documented(kind: str) -> list[dict[str, Any]]:
    """The manifests of one kind that docs/operations.md shows."""
    operations = (CHECKOUT / "docs" / "operations.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```", operations, re.MULTILINE | re.DOTALL)
    return [each for block in blocks for each in yaml.safe_load_all(block) if each["kind"] == kind]


@pytest.fixture(scope="module")
def stateful_set() -> dict[str, Any]:
    (found,) = documents("StatefulSet")
    return dict(found["spec"])


@pytest.fixture(scope="module")
def pod(stateful_set: dict[str, Any]) -> dict[str, Any]:
    return dict(stateful_set["template"]["spec"])


@pytest.fixture(scope="module")
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (found,) = pod["containers"]
    return dict(found)


@pytest.fixture(scope="module")
def options(container: dict[str, Any]) -> dict[str, Any]:
    return options_of(container["args"])


def test_pod_has_no_rights(pod: dict[str, Any], container: dict[str, Any]) -> None:
    """All of the Pod Security Standard `restricted` but for the one hostPath."""
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["runAsGroup"] > 0
    assert 0 not in security["supplementalGroups"]
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"} & set(pod)
    on_host = [volume["hostPath"] for volume in pod["volumes"] if "hostPath" in volume]
    assert on_host == [{"path": "/run/agentic-isolation-engine", "type": "Directory"}]
    allowed = {"configMap", "secret", "emptyDir", "hostPath"}
    assert all(set(volume) - {"name"} <= allowed for volume in pod["volumes"])
    assert "memory" in container["resources"]["limits"]


def test_pod_has_no_token(pod: dict[str, Any]) -> None:
    assert pod["automountServiceAccountToken"] is False
    (account,) = documents("ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    assert account["metadata"]["name"] == pod["serviceAccountName"]
    assert not documents("Role") + documents("RoleBinding") + documents("ClusterRoleBinding")


def test_it_has_the_time_to_end(pod: dict[str, Any], container: dict[str, Any], options: dict[str, Any]) -> None:
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= before + options["grace"] + ENDING + SPARE


def test_it_has_the_time_to_start(container: dict[str, Any], options: dict[str, Any]) -> None:
    """It may have to wait for the one before it, and then takes up what that one had."""
    probe = container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= options["takeover_timeout"] + 60


def test_no_two_pods_of_a_replica(stateful_set: dict[str, Any], pod: dict[str, Any]) -> None:
    """A new one that had to be ready before the old one ends would wait for that one's state, for ever."""
    assert stateful_set["updateStrategy"] == {"type": "RollingUpdate"}
    (claim,) = stateful_set["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert set(stateful_set["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}
    (apart,) = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert apart["topologyKey"] == "kubernetes.io/hostname"


def test_documented_volumes_are_those_that_are_claimed(stateful_set: dict[str, Any]) -> None:
    (claim,) = stateful_set["volumeClaimTemplates"]
    (kind,) = documented("StorageClass")
    assert kind["metadata"]["name"] == claim["spec"]["storageClassName"]
    assert kind["volumeBindingMode"] == "WaitForFirstConsumer", "a claim would be bound before its pod has a node"
    (volume,) = [each["spec"] for each in documented("PersistentVolume")]
    for name in ("storageClassName", "accessModes"):
        assert volume[name] == claim["spec"][name]
    assert volume["capacity"]["storage"] == claim["spec"]["resources"]["requests"]["storage"]
    assert volume["nodeAffinity"]["required"], "a local volume without it is refused"
    assert volume["persistentVolumeReclaimPolicy"] == "Retain"


def test_options(container: dict[str, Any], options: dict[str, Any]) -> None:
    check_service(options)
    assert options["config_file"].name == "service.toml"
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert str(options["config_file"]) in mounts
    assert str(options["state_dir"].parent) in mounts
    environment = {variable["name"]: variable for variable in container["env"]}
    assert environment["AGENTIC_ISOLATION_REPLICA"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    engine = environment["DOCKER_HOST"]["value"].removeprefix("unix://")
    assert any(engine.startswith(f"{path}/") and mount["name"] == "engine" for path, mount in mounts.items())
    assert all(mount.get("readOnly") for path, mount in mounts.items() if path.startswith("/etc"))


def test_what_is_named_is_there(stateful_set: dict[str, Any], pod: dict[str, Any], container: dict[str, Any]) -> None:
    labels = stateful_set["template"]["metadata"]["labels"]
    assert stateful_set["selector"]["matchLabels"] == labels
    ports = {port["name"] for port in container["ports"]}
    services = {service["metadata"]["name"]: service["spec"] for service in documents("Service")}
    assert stateful_set["serviceName"] in services
    for service in services.values():
        assert service["selector"] == labels
        assert {port["targetPort"] for port in service["ports"]} <= ports
    (policy,) = documents("NetworkPolicy")
    (budget,) = documents("PodDisruptionBudget")
    assert policy["spec"]["podSelector"]["matchLabels"] == budget["spec"]["selector"]["matchLabels"] == labels
    assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} == ports
    volumes = {volume["name"] for volume in pod["volumes"]} | {
        claim["metadata"]["name"] for claim in stateful_set["volumeClaimTemplates"]
    }
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    (generated,) = yaml.safe_load((BASE / "kustomization.yaml").read_text())["configMapGenerator"]
    (configuration,) = [volume["configMap"] for volume in pod["volumes"] if "configMap" in volume]
    assert configuration["name"] == generated["name"]


def test_nothing_is_let_in_but_what_is_named() -> None:
    (policy,) = documents("NetworkPolicy")
    assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    assert "egress" not in policy["spec"], "an empty list means the same, but is not kept: a change for ever"
    assert all(rule["from"] and rule["ports"] for rule in policy["spec"]["ingress"])


@pytest.mark.parametrize(("directory", "proof"), [(BASE, "tls"), (MESH, "token")], ids=["base", "mesh"])
def test_configuration_files_are_accepted(directory: Path, proof: str) -> None:
    """And each asks callers for a proof, as it is reachable from other machines."""
    settings = read_settings(directory / "service.toml")
    assert [pool.config.provider for pool in settings.pools] == ["docker"]
    content = tomllib.loads((directory / "service.toml").read_text())
    assert {"tls", "token"} & set(content) == {proof}
    assert proof != "tls" or content["tls"]["client_ca"]


def test_mesh_differs_by_its_plaintext_and_its_probes(container: dict[str, Any]) -> None:
    (meshed,) = yaml.safe_load((MESH / "statefulset.yaml").read_text())["spec"]["template"]["spec"]["containers"]
    assert set(meshed["args"]) ^ set(container["args"]) == {"--plaintext"}
    assert options_of(meshed["args"])["plaintext"]
    for name in ("startupProbe", "readinessProbe"):
        assert meshed[name]["exec"] is None
        assert meshed[name]["grpc"]["service"] == "agentic_isolation.v1.WorkspaceService"
    kept = {variable["name"] for variable in meshed["env"] if variable.get("$patch") != "delete"}
    assert not kept


def test_both_meshes_are_asked_for_a_sidecar() -> None:
    """Without one the service would speak plaintext to the network."""
    template = yaml.safe_load((MESH / "statefulset.yaml").read_text())["spec"]["template"]
    assert template["metadata"]["labels"] == {"sidecar.istio.io/inject": "true"}
    assert template["metadata"]["annotations"]["linkerd.io/inject"] == "enabled"


def test_sidecar_reaches_its_control_plane() -> None:
    """The base lets nothing out, and the sidecar is in the pod; all else is as there."""
    patches = [patch.get("path") for patch in yaml.safe_load((MESH / "kustomization.yaml").read_text())["patches"]]
    assert "networkpolicy.yaml" in patches
    meshed = yaml.safe_load((MESH / "networkpolicy.yaml").read_text())
    (policy,) = documents("NetworkPolicy")
    assert meshed["metadata"]["name"] == policy["metadata"]["name"]
    reached = {
        (peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], port["port"])
        for rule in meshed["spec"]["egress"]
        for peer in rule["to"]
        for port in rule["ports"]
    }
    linkerd = {("linkerd", port) for port in (8080, 8086, 8090)}
    assert reached == {("kube-system", 53), ("istio-system", 15012)} | linkerd
    calls, metrics = meshed["spec"]["ingress"]
    assert calls["ports"].pop() == {"port": 4143, "protocol": "TCP"}
    assert [calls, metrics] == policy["spec"]["ingress"]


def test_routes_for_istio_do_not_bound_calls() -> None:
    """Without a `timeout` they do not; `0s`, which other proxies know for that, is refused by Istio's own schema."""
    (service,) = [each["spec"] for each in documented("VirtualService")]
    assert all(not {"timeout", "perTryTimeout"} & (set(route) | set(route["retries"])) for route in service["http"])
    (rule,) = [each["spec"] for each in documented("DestinationRule")]
    routed = {route["route"][0]["destination"].get("subset") for route in service["http"]}
    assert routed == {None} | {subset["name"] for subset in rule["subsets"]}
