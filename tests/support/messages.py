"""Messages of the contract that are made from its descriptors, so that no RPC and no field is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from agentic_isolation.v1 import workspace_pb2 as pb

METHODS: dict[str, MethodDescriptor] = dict(pb.DESCRIPTOR.services_by_name["WorkspaceService"].methods_by_name)
"""Every RPC, by its name."""


def is_repeated(field: FieldDescriptor) -> bool:
    """Whether a field may hold several values."""
    return bool(field.is_repeated)


def is_map(field: FieldDescriptor) -> bool:
    """Whether a field is a map."""
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry)


def choices(descriptor: Descriptor) -> Iterator[set[str]]:
    """Yields sets of fields that can be set together, so that each field is in one of them."""
    oneofs = [oneof for oneof in descriptor.oneofs if len(oneof.fields) > 1]
    alternatives = {field.name for oneof in oneofs for field in oneof.fields}
    always = {field.name for field in descriptor.fields} - alternatives
    for turn in range(max([1, *(len(oneof.fields) for oneof in oneofs)])):
        yield always | {oneof.fields[turn % len(oneof.fields)].name for oneof in oneofs}


def filled(descriptor: Descriptor, text: str) -> Iterator[Any]:
    """Yields messages whose fields are set, strings and bytes to `text`, so that each field is in one of them."""
    for names in choices(descriptor):
        variants: dict[str, list[Any]] = {
            field.name: list(filled(field.message_type, text))
            for field in descriptor.fields
            if field.name in names and field.message_type is not None and not is_map(field)
        }
        for turn in range(max([1, *map(len, variants.values())])):
            yield _filled(descriptor, names, text, {name: found[turn % len(found)] for name, found in variants.items()})


def _filled(descriptor: Descriptor, names: set[str], text: str, messages: dict[str, Any]) -> Any:
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if field.name not in names:
            continue
        if is_map(field):
            getattr(message, field.name)[text] = text
        elif field.name in messages:
            target = getattr(message, field.name)
            target.append(messages[field.name]) if is_repeated(field) else target.CopyFrom(messages[field.name])
        elif is_repeated(field):
            getattr(message, field.name).append(_scalar(field, text))
        else:
            setattr(message, field.name, _scalar(field, text))
    return message


def _scalar(field: FieldDescriptor, text: str) -> object:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return text.encode() if field.type == field.TYPE_BYTES else text
        case FieldDescriptor.CPPTYPE_BOOL:
            return True
        case FieldDescriptor.CPPTYPE_ENUM:
            return 1
        case _:
            return 7
