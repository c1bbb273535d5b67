"""Values of image pulls: how far each layer is, and that the image is there."""

from __future__ import annotations

from dataclasses import dataclass

from agentic_isolation.runs import KeepAlive

__all__ = ["ImageLayer", "PullEvent", "PulledImage"]


@dataclass(frozen=True, slots=True)
class ImageLayer:
    """How far one layer of an image is."""

    id: str
    """Identifies it in this pull."""
    status: str
    """What is done with it, in the engine's words."""
    done_bytes: int
    """Bytes done of this step."""
    total_bytes: int
    """Bytes in all; 0 where they are not known."""


@dataclass(frozen=True, slots=True)
class PulledImage:
    """The image is there."""

    image: str
    """Its name."""
    was_present: bool
    """It was there before."""


PullEvent = ImageLayer | PulledImage | KeepAlive
"""What a pull consists of; PulledImage is its last one."""
