"""What the core asks of a provider."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Hashable
from dataclasses import dataclass, field
from typing import Protocol

from agentic_isolation.images import PullEvent
from agentic_isolation.models import Isolation, ProviderInfo, WorkspaceConfig
from agentic_isolation_service.guest.stream import ByteStream

__all__ = ["ByteStream", "Place", "PlaceSpec", "Provider"]


@dataclass(frozen=True, slots=True)
class PlaceSpec:
    """A place to make: where one guest will run."""

    workspace_id: str
    config: WorkspaceConfig
    key: bytes = field(repr=False)
    """The secret of the guest's handshake."""
    request_window: float = 600.0
    """Seconds that the guest remembers the results of requests."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place that was made, with a guest that answers."""

    workspace_id: str
    runtime: str
    """What runs it, as Isolation.runtime."""
    host_path: str = ""
    """Where its files lie on this host, where they do."""


class Provider(Protocol):
    """Makes places and opens byte streams to the guests in them. Everything else happens inside, through the guest."""

    @property
    def name(self) -> str:
        """The name that clients ask for it by."""

    def check(self, config: WorkspaceConfig) -> None:
        """Raises IsolationUnavailableError or InvalidArgumentError where this provider cannot do what is asked.

        Does no I/O: it is asked before anything is created.
        """

    def with_defaults(self, config: WorkspaceConfig) -> WorkspaceConfig:
        """Returns a configuration with what holds where something is left out, at its most; None: it is not held.

        Does no I/O.

        Raises:
            InvalidArgumentError: A limit is no number or size.
        """

    def shape(self, config: WorkspaceConfig) -> Hashable:
        """Returns all of a configuration that a place is made from, with defaults in place of what is left out.

        Places of equal shapes are as good as each other. Does no I/O.

        Raises:
            InvalidArgumentError: A limit is no number or size.
        """

    async def image_id(self, config: WorkspaceConfig) -> str:
        """Returns what the image of a configuration stands for now; empty: it is not there, or there are no images.

        Raises:
            ProviderUnavailableError: The engine cannot be reached.
        """

    async def create(self, spec: PlaceSpec) -> Place:
        """Makes a place and returns when its guest listens.

        Leaves nothing behind when it fails or is cancelled.

        Raises:
            ProviderUnavailableError: The engine cannot be reached.
            IsolationUnavailableError: What was asked for turned out not to be had.
        """

    def pull(self, image: str) -> AsyncGenerator[PullEvent, None]:
        """Makes sure that an image is there and yields how its download goes, at the end PulledImage.

        Left, it does not end the download for others who wait for it.

        Args:
            image: Its name; empty: the default one.

        Raises:
            InvalidArgumentError: This provider has no images, or the name is none.
            ImageUnavailableError: It cannot be had.
            ProviderUnavailableError: The engine cannot be reached.
        """

    async def list(self) -> frozenset[str]:
        """Returns the workspace ids of this service's places whose guests may live.

        Removes what dead ones left where nobody else would.

        Raises:
            ProviderUnavailableError: The engine cannot be reached.
        """

    def adopt(self, place: Place) -> None:
        """Takes a place in hand that an earlier process of this service made. Does no I/O."""

    async def connect(self, place: Place) -> ByteStream:
        """Opens a byte stream to the guest.

        Raises:
            UnavailableError: It cannot be told for now whether the guest is there.
            OSError: The guest is gone.
        """

    async def exhausted(self, place: Place, *, wait: bool) -> bool:
        """Returns whether the kernel has killed something in a place for want of memory, which its guest cannot tell.

        Args:
            place: The place.
            wait: For half a second at most, if that may just have happened and not have been told yet.
        """

    async def destroy(self, place: Place, *, ending: bool = False) -> None:
        """Removes the place with everything in it; returns when nothing of it is left.

        May be called twice, and for a place that was half made or never there.

        Args:
            place: The place.
            ending: Its guest was told to end, and may have a moment to do so by itself.

        Raises:
            UnavailableError: It cannot be removed for now.
        """

    async def isolation(
        self, place: Place, config: WorkspaceConfig, measured: Isolation, *, in_gvisor: bool
    ) -> Isolation:
        """Returns the isolation of a place: what the guest measured, with what only the engine knows.

        Args:
            place: A place that was just made.
            config: What was asked for.
            measured: What its guest has found.
            in_gvisor: Whether the guest's kernel says that it is gVisor's.

        Raises:
            IsolationUnavailableError: It has less than what was asked for.
        """

    async def describe(self) -> ProviderInfo:
        """Returns what this provider can give on this host. Raises nothing: being unavailable is an answer."""

    async def aclose(self) -> None:
        """Lets go of the engine. Places stay. May be called twice."""
