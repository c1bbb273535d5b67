"""Messages of image pulls ↔ models, for client and server alike."""

from __future__ import annotations

from agentic_isolation.images import ImageLayer, PulledImage, PullEvent
from agentic_isolation.v1 import workspace_pb2 as pb


def pull_event_to_pb(event: PullEvent) -> pb.PullImageResponse:
    """PullEvent → PullImageResponse."""
    match event:
        case ImageLayer(layer_id, status, done, total):
            layer = pb.ImageLayer(layer_id=layer_id, status=status, done_bytes=done, total_bytes=total)
            return pb.PullImageResponse(layer=layer)
        case PulledImage(image, was_present):
            return pb.PullImageResponse(image=pb.PulledImage(image=image, was_present=was_present))
        case _:
            return pb.PullImageResponse(keepalive=pb.KeepAlive())


def pull_event_from_pb(message: pb.PullImageResponse) -> ImageLayer | PulledImage | None:
    """PullImageResponse → event; None for a sign of life and for what a newer server sends."""
    match message.WhichOneof("event"):
        case "layer":
            layer = message.layer
            return ImageLayer(layer.layer_id, layer.status, layer.done_bytes, layer.total_bytes)
        case "image":
            return PulledImage(message.image.image, message.image.was_present)
        case _:
            return None
