"""The service through Envoy for those who have no gRPC: JSON over HTTP/1.1, and gRPC-Web as browsers speak it."""

from __future__ import annotations

import base64
import http.client
import json
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from google.protobuf.json_format import MessageToJson
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from agentic_isolation.v1 import workspace_pb2 as pb
from tests.mesh.conftest import Mesh
from tests.support.jobs import new_mark

ROOT = "/agentic_isolation.v1.WorkspaceService/"
PAGE = "http://localhost:8000"
"""Where a page comes from that may call, as the configuration has it."""
_TRAILER = 0x80
_STEPS = "echo one; until [ -e go ]; do sleep 0.02; done; echo two"


class Web:
    """A client with nothing but HTTP/1.1."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    def send(self, method: str, body: bytes, verb: str = "POST", **headers: str) -> http.client.HTTPResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(verb, ROOT + method, body, named)
        return self._connection.getresponse()

    def pieces(self, method: str, *pieces: bytes) -> http.client.HTTPResponse:
        """Calls a method by gRPC-Web, whose messages come in these pieces, one after the other."""
        connection = self._connection
        connection.putrequest("POST", ROOT + method)
        connection.putheader("content-type", "application/grpc-web+proto")
        connection.putheader("transfer-encoding", "chunked")
        connection.endheaders()
        for piece in pieces:
            connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            time.sleep(0.02)
        connection.send(b"0\r\n\r\n")
        return connection.getresponse()

    def json(self, method: str, **fields: Any) -> Any:
        """Calls a method by JSON, and fails where it does."""
        answer = self.send(method, json.dumps(fields).encode(), content_type="application/json")
        content = answer.read()
        assert answer.status == 200, content
        return json.loads(content)

    def grpc_web(self, method: str, request: Any, **headers: str) -> http.client.HTTPResponse:
        return self.send(
            method,
            framed(request),
            content_type="application/grpc-web+proto",
            x_grpc_web="1",
            **headers,
        )

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def web(mesh: Mesh) -> Iterator[Web]:
    with another(mesh) as web:
        yield web


@contextmanager
def a_workspace(mesh: Mesh, **fields: Any) -> Iterator[str]:
    with another(mesh) as web:
        workspace_id = web.json("CreateWorkspace", provider="local", **fields)["workspace"]["workspaceId"]
    try:
        yield workspace_id
    finally:
        with another(mesh) as web:
            assert web.json("DestroyWorkspace", workspaceId=workspace_id) == {}


@contextmanager
def another(mesh: Mesh) -> Iterator[Web]:
    """A client with a connection of its own: one of HTTP/1.1 does one thing at a time."""
    web = Web(mesh.envoy.port)
    try:
        yield web
    finally:
        web.close()


def framed(*messages: Any) -> bytes:
    """Returns messages as gRPC has them, one after the other."""
    return b"".join(struct.pack(">BI", 0, message.ByteSize()) + message.SerializeToString() for message in messages)


def frames(answer: http.client.HTTPResponse) -> Iterator[tuple[int, bytes]]:
    """Yields the frames of an answer in gRPC-Web, as they come."""
    while head := answer.read(5):
        kind, length = struct.unpack(">BI", head)
        yield kind, answer.read(length)


def test_json_creates_lists_runs_and_destroys(mesh: Mesh, web: Web) -> None:
    mark = new_mark()
    with a_workspace(mesh, labels={"mark": mark}, leaseDuration="60s", requestId=mark) as workspace_id:
        name = workspace_id.split("-")[1]
        answer = web.send(
            "ListWorkspaces",
            json.dumps({"labels": {"mark": mark}}).encode(),
            content_type="application/json",
            agentic_isolation_replica=name,
        )
        [listed] = json.loads(answer.read())["workspaces"]
        assert (listed["workspaceId"], listed["state"]) == (workspace_id, "WORKSPACE_STATE_READY")
        result = web.json("Execute", workspaceId=workspace_id, command={"shell": "echo hi; exit 3"}, requestId="a")
        assert base64.b64decode(result["stdout"]["head"]) == b"hi\n"
        assert result["termination"]["exitCode"] == 3
        assert web.json("Execute", workspaceId=workspace_id, command={"shell": "true"})["termination"]["exitCode"] == 0
        large = web.json("Execute", workspaceId=workspace_id, command={"shell": "head -c 1000000 /dev/zero"})
        assert base64.b64decode(large["stdout"]["head"]) == bytes(1_000_000)


def test_json_watches_a_stream_line_by_line(mesh: Mesh, web: Web) -> None:
    """Each event is a line that comes when it happens: the command goes on only when the first was seen."""
    with a_workspace(mesh) as workspace_id:
        start = {"command": {"shell": _STEPS}, "lineMode": True}
        request = {"workspaceId": workspace_id, "start": start}
        answer = web.send("Stream", json.dumps(request).encode(), content_type="application/json")
        assert answer.status == 200
        started, first = json.loads(answer.readline()), json.loads(answer.readline())
        assert started["started"]["processId"]
        assert base64.b64decode(first["output"]["data"]) == b"one\n"
        with another(mesh) as other:
            other.json("Execute", workspaceId=workspace_id, command={"shell": "touch go"})
        second, exited = json.loads(answer.readline()), json.loads(answer.readline())
        assert base64.b64decode(second["output"]["data"]) == b"two\n"
        assert exited["exited"]["termination"]["exitCode"] == 0
        assert answer.read() == b""


@pytest.mark.parametrize(
    ("method", "fields", "status", "reason"),
    [
        ("GetWorkspace", {"workspaceId": f"ws-one-{'a' * 20}"}, 404, "WORKSPACE_NOT_FOUND"),
        ("CreateWorkspace", {"provider": "none"}, 400, "INVALID_ARGUMENT"),
    ],
)
def test_json_errors_are_read_by_programs(web: Web, method: str, fields: Any, status: int, reason: str) -> None:
    answer = web.send(method, json.dumps(fields).encode(), content_type="application/json")
    told = json.loads(answer.read())
    assert answer.status == status
    [info] = [detail for detail in told["details"] if detail["@type"].endswith("ErrorInfo")]
    assert (info["reason"], info["domain"]) == (reason, "agentic-isolation")
    assert told["message"]


def test_json_that_makes_no_sense_is_refused_by_envoy(web: Web) -> None:
    for method, body in (("GetWorkspace", b"{"), ("NoSuchMethod", b"{}"), ("GetWorkspace", b'{"noSuchField": 1}')):
        answer = web.send(method, body, content_type="application/json")
        answer.read()
        assert answer.status in {400, 404}


def test_grpc_web_runs_and_streams(mesh: Mesh, web: Web) -> None:
    with a_workspace(mesh) as workspace_id:
        request = pb.ExecuteRequest(workspace_id=workspace_id, command=pb.Command(shell="echo hi"))
        answer = web.grpc_web("Execute", request, origin=PAGE)
        assert answer.status == 200
        assert answer.getheader("access-control-allow-origin") == PAGE
        (kind, data), (end, trailer) = frames(answer)
        assert (kind, end) == (0, _TRAILER)
        assert pb.ExecuteResponse.FromString(data).stdout.head == b"hi\n"
        assert b"grpc-status:0" in trailer.replace(b" ", b"")
        start = pb.ProcessStart(command=pb.Command(shell=_STEPS), line_mode=True)
        stream = frames(web.grpc_web("Stream", pb.StreamRequest(workspace_id=workspace_id, start=start)))
        events = [pb.StreamResponse.FromString(next(stream)[1]) for _ in range(2)]
        with another(mesh) as other:
            other.json("Execute", workspaceId=workspace_id, command={"shell": "touch go"})
        events += [pb.StreamResponse.FromString(next(stream)[1]) for _ in range(2)]
        assert [event.output.data for event in events[1:3]] == [b"one\n", b"two\n"]
        assert events[3].exited.termination.exit_code == 0
        assert next(stream)[0] == _TRAILER


def test_grpc_web_errors_come_with_their_details(web: Web) -> None:
    answer = web.grpc_web("GetWorkspace", pb.GetWorkspaceRequest(workspace_id=f"ws-one-{'a' * 20}"), origin=PAGE)
    answer.read()
    assert answer.getheader("grpc-status") == "5"
    status = Status.FromString(base64.b64decode(answer.getheader("grpc-status-details-bin", "") + "=="))
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.reason == "WORKSPACE_NOT_FOUND"
    assert "grpc-status-details-bin" in (answer.getheader("access-control-expose-headers") or "")


@pytest.mark.parametrize("kind", ["application/grpc-web+proto", "application/grpc-web-text", "application/json"])
@pytest.mark.parametrize("method", ["CreateWorkspace", "Execute", "Stream", "Attach", "WriteFile", "GetServerInfo"])
def test_call_without_a_request(web: Web, kind: str, method: str) -> None:
    """It is refused, and waits for nothing; in JSON it is the empty request."""
    answer = web.send(method, b"", content_type=kind, accept=kind)
    answer.read()
    if kind == "application/json":
        assert answer.status == (200 if method == "GetServerInfo" else 400)
    else:
        assert (answer.status, answer.getheader("grpc-status")) == (200, "3")
        assert answer.getheader("content-type", "").startswith(kind)


@pytest.mark.parametrize("kind", ["application/grpc-web+proto", "application/grpc-web-text", "application/json"])
def test_deadline_that_passes(mesh: Mesh, web: Web, kind: str) -> None:
    """It is told as what it is, by Envoy: the service has not yet answered."""
    with a_workspace(mesh) as workspace_id:
        request = pb.ExecuteRequest(workspace_id=workspace_id, command=pb.Command(shell="sleep 60"))
        bodies = {
            "application/grpc-web+proto": framed(request),
            "application/grpc-web-text": base64.b64encode(framed(request)),
            "application/json": MessageToJson(request).encode(),
        }
        answer = web.send("Execute", bodies[kind], content_type=kind, accept=kind, grpc_timeout="300m", origin=PAGE)
        content = answer.read()
        assert answer.getheader("access-control-allow-origin") == PAGE
        if kind == "application/json":
            assert answer.status == 504
            assert json.loads(content)["code"] == 4
        else:
            assert (answer.status, answer.getheader("grpc-status"), content) == (200, "4", b"")
            assert answer.getheader("content-type", "").startswith(kind)


@pytest.mark.parametrize(
    ("header", "malformed", "good"),
    [("grpc_timeout", "5", ["7S", "8S", "9S"]), ("grpc_encoding", "br", ["identity", "identity"])],
)
def test_header_that_cannot_be_read_fails_no_call_but_its_own(
    mesh: Mesh, web: Web, header: str, malformed: str, good: list[str]
) -> None:
    """Envoy's connections to the replicas have calls of all its clients."""
    for replica in mesh.replicas:
        named = {"agentic_isolation_replica": replica.name}
        answer = web.grpc_web("GetServerInfo", pb.GetServerInfoRequest(), **named, **{header: malformed})
        answer.read()
        assert answer.getheader("grpc-status") == "13"
        with another(mesh) as other:
            for value in good:
                answer = other.grpc_web("GetServerInfo", pb.GetServerInfoRequest(), **named, **{header: value})
                (_, data), _ = frames(answer)
                assert pb.GetServerInfoResponse.FromString(data).replica == replica.name


def test_pages_from_elsewhere_may_not_call(web: Web) -> None:
    asked = {"access_control_request_method": "POST", "access_control_request_headers": "content-type,x-grpc-web"}
    for page, allowed in ((PAGE, PAGE), ("http://elsewhere.example", None)):
        answer = web.send("Execute", b"", "OPTIONS", origin=page, **asked)
        answer.read()
        assert answer.getheader("access-control-allow-origin") == allowed


def test_pages_from_elsewhere_do_nothing_by_not_asking(mesh: Mesh, web: Web) -> None:
    """Browsers send such a call at once; that its page is not shown the answer undoes nothing."""
    mark = new_mark()
    body = json.dumps({"provider": "local", "leaseDuration": "60s", "labels": {"mark": mark}}).encode()
    for page in ("http://elsewhere.example", "null", f"http://127.0.0.1:{mesh.envoy.port}"):
        answer = web.send("CreateWorkspace", body, content_type="text/plain", origin=page)
        answer.read()
        assert answer.status == 403
    assert web.json("ListWorkspaces", labels={"mark": mark})["workspaces"] == []


def test_messages_of_an_upload_that_come_together(mesh: Mesh, web: Web) -> None:
    """However they are cut on the way: a message that begins where the first one ends is lost by no filter."""
    content = bytes(range(256)) * 1024
    with a_workspace(mesh) as workspace_id:
        header = framed(pb.WriteFileRequest(header=pb.WriteFileHeader(workspace_id=workspace_id, path="file")))
        end = pb.WriteFileEnd(size_bytes=len(content))
        upload = header + framed(pb.WriteFileRequest(data=content), pb.WriteFileRequest(end=end))
        for cut in (0, 1, 5, 9, len(header) - 1, len(header), len(header) + 1, len(header) + 5, len(header) + 1000):
            cuts = [piece for piece in (upload[:cut], upload[cut:]) if piece]
            answer = web.pieces("WriteFile", *cuts)
            assert answer.getheader("grpc-status") is None, f"{cut}: {dict(answer.headers)}"
            (_, message), _ = frames(answer)
            assert pb.WriteFileResponse.FromString(message).file.size_bytes == len(content)
            read = frames(web.grpc_web("ReadFile", pb.ReadFileRequest(workspace_id=workspace_id, path="file")))
            messages = [pb.ReadFileResponse.FromString(message) for kind, message in read if kind == 0]
            assert b"".join(message.data for message in messages) == content, cut


def test_input_that_comes_with_the_opening(mesh: Mesh, web: Web) -> None:
    with a_workspace(mesh) as workspace_id:
        opening = pb.AttachOpen(workspace_id=workspace_id, start=pb.ProcessStart(command=pb.Command(shell="wc -c")))
        inputs = [pb.AttachRequest(stdin=bytes([letter]) * 65536) for letter in b"abc"]
        end = pb.AttachRequest(end_of_input=pb.EndOfInput())
        answer = web.pieces("Attach", framed(pb.AttachRequest(open=opening), *inputs, end))
        events = [pb.AttachResponse.FromString(message) for kind, message in frames(answer) if kind == 0]
        assert [event.output.data for event in events if event.HasField("output")] == [b"196608\n"]
