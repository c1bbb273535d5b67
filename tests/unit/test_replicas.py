"""Names of replicas, and the ids of workspaces that carry them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agentic_isolation import InvalidArgumentError, UnavailableError, WrongReplicaError
from agentic_isolation._routing import Routing
from agentic_isolation.errors import error_classes
from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation_service.config import ServiceConfig
from agentic_isolation_service.core.replicas import Replica, hide_ids
from agentic_isolation_service.rpc.drain import DrainingError
from agentic_isolation_service.settings.file import read_settings

RANDOM = "a" * 20
LONGEST = "a-very-long-name-019"


@pytest.mark.parametrize("name", ["a", "0", "one", "agentic-isolation-10", LONGEST])
def test_ids_carry_the_name(name: str) -> None:
    replica = Replica(name)
    made = {replica.new_id() for _ in range(100)}
    assert len(made) == 100
    for workspace_id in made:
        assert re.fullmatch(f"ws-{name}-[a-z2-7]{{20}}", workspace_id)
        assert len(workspace_id) <= 44
        replica.check(workspace_id)
        Replica().check(workspace_id)
        with pytest.raises(WrongReplicaError) as raised:
            Replica("other").check(workspace_id)
        assert raised.value.replica == name
        assert hide_ids(f"cannot make {workspace_id}: no") == "cannot make ws-…: no"


def test_without_a_name_ids_are_as_ever() -> None:
    workspace_id = Replica().new_id()
    assert re.fullmatch("ws-[a-z2-7]{20}", workspace_id)
    Replica("one").check(workspace_id)
    assert hide_ids(workspace_id) == "ws-…"


@pytest.mark.parametrize("other", [f"ws-a-{RANDOM}", f"ws-a-b-c-{RANDOM}", f"ws-b-{RANDOM}"])
def test_names_that_begin_alike(other: str) -> None:
    with pytest.raises(WrongReplicaError):
        Replica("a-b").check(other)
    Replica("a-b").check(f"ws-a-b-{RANDOM}")


@pytest.mark.parametrize(
    "nonsense", ["", "ws-", "x", f"ws-other-{RANDOM}x", f"ws--{RANDOM}", f"ws-{'a' * 21}-{RANDOM}"]
)
def test_what_is_no_id_is_nobodys(nonsense: str) -> None:
    Replica("one").check(nonsense)


@pytest.mark.parametrize("name", ["-a", "a-", "A", "a_b", "a.b", "a" * 21, "ä", "a\n"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^replica: .* is no name of a replica"):
        ServiceConfig(replica=name)


def test_name_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[cluster]\nreplica = "one"\n')
    assert read_settings(file).cluster.replica == "one"
    for text, field in (
        ('[cluster]\nreplica = "-"', "cluster.replica"),
        ("[cluster]\nreplica = 1", "cluster.replica"),
        ('[cluster]\nname = "one"', "cluster.name"),
        ('cluster = "one"', "cluster"),
        ("[cluster]\nproxies = [1]", "cluster.proxies"),
        ('[cluster]\nproxies = "spiffe://a/b"', "cluster.proxies"),
        ('[[cluster]]\nreplica = "one"', "cluster"),
    ):
        file.write_text(text)
        with pytest.raises(InvalidArgumentError) as raised:
            read_settings(file)
        assert raised.value.field == field


def test_metadata_of_calls() -> None:
    routing = Routing()
    execute = pb.ExecuteRequest(workspace_id="ws-1", request_id="r")
    assert dict(routing.metadata(execute)) == {
        "agentic-isolation-workspace": "ws-1",
        "agentic-isolation-request": "r",
    }
    # Its request_id is another call's, and a repeat of this one would be none of that.
    signal = pb.SignalProcessRequest(workspace_id="ws-1", request_id="r")
    assert dict(routing.metadata(signal)) == {"agentic-isolation-workspace": "ws-1"}
    assert dict(routing.metadata(pb.CreateWorkspaceRequest(request_id="c"))) == {"agentic-isolation-request": "c"}
    resume = pb.StreamRequest(workspace_id="ws-1", resume=pb.ProcessResume(process_id="p"))
    assert dict(routing.metadata(resume))["agentic-isolation-request"] == "p"
    assert routing.metadata(pb.ListWorkspacesRequest()) == ()
    assert routing.learn(execute, "two")
    assert not routing.learn(execute, "two")
    assert dict(routing.metadata(signal))["agentic-isolation-replica"] == "two"
    assert routing.metadata(pb.ListWorkspacesRequest()) == ()
    assert dict(Routing("one").metadata(pb.ListWorkspacesRequest())) == {"agentic-isolation-replica": "one"}


@pytest.mark.parametrize("strange", ["\n", "ü", "x" * 10_000, "\0"])
def test_what_metadata_cannot_hold_is_left_to_the_service(strange: str) -> None:
    assert Routing().metadata(pb.GetWorkspaceRequest(workspace_id=strange)) == ()


def test_what_is_learned_is_bounded() -> None:
    routing = Routing()
    for number in range(5_000):
        routing.learn(pb.GetWorkspaceRequest(workspace_id=f"ws-{number}"), "two")
    assert len(routing._learned) <= 1024
    assert dict(routing.metadata(pb.GetWorkspaceRequest(workspace_id="ws-4999")))["agentic-isolation-replica"] == "two"


def test_draining_travels_as_unavailable() -> None:
    assert issubclass(DrainingError, UnavailableError)
    assert error_classes()["UNAVAILABLE"] is UnavailableError
