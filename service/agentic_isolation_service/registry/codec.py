"""Records as text: the contract's own messages in JSON, which grow as the contract does."""

from __future__ import annotations

import hashlib
import json

from google.protobuf import json_format

from agentic_isolation import _convert as convert
from agentic_isolation.models import WorkspaceConfig
from agentic_isolation.v1 import workspace_pb2 as pb
from agentic_isolation_service.core.records import WorkspaceRecord


def encode(record: WorkspaceRecord) -> str:
    """Returns a record as JSON."""
    config = convert.config_to_pb(record.config)
    config.request_id = record.request_id
    return json.dumps(
        {
            "config": json_format.MessageToDict(config, preserving_proto_field_name=True),
            "workspace": json_format.MessageToDict(
                convert.workspace_to_pb(record.info), preserving_proto_field_name=True
            ),
            "owner": record.owner,
            "secrets_fingerprint": record.secrets_fingerprint,
            **({"pool": record.pool, "image_id": record.image_id} if record.pool else {}),
            "boot_id": record.boot_id,
        }
    )


def decode(text: str) -> WorkspaceRecord:
    """Returns the record of a JSON text, also of one that a newer version has written.

    Raises:
        ValueError: It is none.
    """
    try:
        value = json.loads(text)
        config = json_format.ParseDict(value["config"], pb.CreateWorkspaceRequest(), ignore_unknown_fields=True)
        workspace = json_format.ParseDict(value["workspace"], pb.Workspace(), ignore_unknown_fields=True)
        owner, fingerprint = str(value["owner"]), str(value.get("secrets_fingerprint", ""))
        pool, image_id, boot_id = (str(value.get(name, "")) for name in ("pool", "image_id", "boot_id"))
    except (json_format.ParseError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"no record of a workspace: {error}") from error
    info = convert.workspace_from_pb(workspace)
    return WorkspaceRecord(
        convert.config_from_pb(config), info, config.request_id, owner, fingerprint, pool, image_id, boot_id
    )


def digest(config: WorkspaceConfig, secrets_fingerprint: str) -> str:
    """Returns what is equal for equal requests, whatever the order of their labels and variables."""
    message = convert.config_to_pb(config)
    text = message.SerializeToString(deterministic=True) + secrets_fingerprint.encode()
    return hashlib.sha256(text).hexdigest()
