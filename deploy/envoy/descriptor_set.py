"""Writes the contract as a FileDescriptorSet, by which Envoy reads requests and translates JSON.

    python descriptor_set.py agentic_isolation.binpb

It needs the installed package and no protobuf compiler: generated stubs know the files that they come from.
"""

from __future__ import annotations

import sys
from pathlib import Path

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.rpc import error_details_pb2, status_pb2

from agentic_isolation.v1 import workspace_pb2


def descriptor_set() -> FileDescriptorSet:
    """Returns the contract's files, those of its errors' details, and what they import, each after its imports."""
    files: dict[str, FileDescriptor] = {}

    def add(file: FileDescriptor) -> None:
        if file.name not in files:
            for imported in file.dependencies:
                add(imported)
            files[file.name] = file

    for module in (workspace_pb2, status_pb2, error_details_pb2):
        add(module.DESCRIPTOR)
    result = FileDescriptorSet()
    for file in files.values():
        file.CopyToProto(result.file.add())
    return result


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(descriptor_set().SerializeToString())
