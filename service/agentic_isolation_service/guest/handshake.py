"""The handshake of a link: both sides prove to each other that they know the workspace's key."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from typing import NamedTuple

from agentic_isolation_service.guest.frames import Frame, FrameType, ProtocolError, decode_json, encode_json

LOWEST_VERSION, HIGHEST_VERSION = 1, 4
"""Versions of the protocol that the service speaks: guests outlive its upgrades."""
_NONCE = re.compile(r"[0-9a-f]{32}")
_BOOT_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")


class Peer(NamedTuple):
    """Who is at the other end of a link."""

    workspace_id: str
    boot_id: str
    """What the guest has made up for itself when it started."""
    version: int
    """Of the protocol, that both sides speak."""


class Handshake:
    """The service's side of one handshake, which frames drive on.

    Args:
        key: The workspace's.
        post: Sends a frame to the guest.
    """

    def __init__(self, key: bytes, post: Callable[[bytes], None]) -> None:
        self.peer: asyncio.Future[Peer] = asyncio.get_running_loop().create_future()
        """Who it is, once that is proved."""
        self._key = key
        self._post = post
        self._guest_nonce = ""
        self._nonce = secrets.token_hex(16)
        self._version = 0
        self.begun = False
        """Whether a frame has come: something there speaks the protocol, well or not."""

    def accept(self, frame: Frame) -> None:
        """Takes the guest's next frame.

        Raises:
            ProtocolError: It is none of a handshake's, or proves that its sender does not know the key.
        """
        self.begun = True
        if frame.type is not FrameType.HELLO or frame.channel != 0:
            raise ProtocolError("the handshake was not a HELLO frame")
        hello = decode_json(frame.payload)
        if self._version:
            self._finish(hello)
        else:
            self._answer(hello)

    def _answer(self, hello: dict[str, object]) -> None:
        match hello:
            case {"versions": [int(lowest), int(highest)], "nonce": str(guest_nonce)} if _NONCE.fullmatch(guest_nonce):
                pass
            case _:
                raise ProtocolError("malformed HELLO")
        version = min(highest, HIGHEST_VERSION)
        if version < max(lowest, LOWEST_VERSION):
            raise ProtocolError(
                f"the guest speaks versions {lowest} to {highest}, this service {LOWEST_VERSION} to {HIGHEST_VERSION}"
            )
        self._version, self._guest_nonce = version, guest_nonce
        answer = {"version": version, "nonce": self._nonce, "proof": self._proof("service")}
        self._post(encode_json(FrameType.HELLO, 0, answer))

    def _finish(self, hello: dict[str, object]) -> None:
        match hello:
            case {"workspace_id": str(workspace_id), "boot_id": str(boot_id), "proof": str(guest_proof)}:
                if not (guest_proof.isascii() and hmac.compare_digest(guest_proof, self._proof("guest"))):
                    raise ProtocolError("the guest does not hold the workspace's key")
                if not _BOOT_ID.fullmatch(boot_id):
                    raise ProtocolError("malformed boot_id")
                if not self.peer.done():
                    self.peer.set_result(Peer(workspace_id, boot_id, self._version))
            case _:
                raise ProtocolError("malformed HELLO")

    def _proof(self, side: str) -> str:
        text = f"{side}:{self._guest_nonce}:{self._nonce}"
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()
