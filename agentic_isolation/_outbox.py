"""A process's input on its way: kept until it has been taken, so that a broken call loses and doubles nothing."""

from __future__ import annotations

_PIECE = 64 << 10
"""Bytes of one message of input, as the contract says."""


class Outbox:
    """Input from its writing to its taking. Places are counted in bytes from the process's beginning."""

    def __init__(self) -> None:
        self.ended = False
        """Whether the process takes no more."""
        self.end_wanted = False
        """Whether the input is to end after what was put in."""
        self._kept = bytearray()
        self._begin: int | None = None
        """Place of the first byte that is kept; None until the process has said where its input is."""
        self._sent: int | None = None
        """Place of the first byte that was not sent in this call; None until the call may send."""
        self._end_sent = False

    def __len__(self) -> int:
        return len(self._kept)

    def is_placed(self) -> bool:
        """Whether the process has said where its input is."""
        return self._begin is not None

    def put(self, data: bytes) -> None:
        """Adds bytes to be sent."""
        self._kept += data

    def begin_call(self) -> None:
        """Forgets what was sent: another call has to say first how much of it has arrived."""
        self._sent = None
        self._end_sent = False

    def note(self, offset: int, *, ended: bool) -> None:
        """Takes note of how much the process has taken."""
        self.ended = self.ended or ended
        begin = offset if self._begin is None else self._begin
        # More than was ever written here: somebody else has written meanwhile, and has had the input.
        del self._kept[: max(0, offset - begin)]
        self._begin = offset
        self._sent = max(offset, self._sent or 0)

    def take(self) -> bytes | None:
        """Returns what is to be sent next, b"" for the end of the input; None: nothing now."""
        if self._sent is None or self._begin is None or self.ended:
            return None
        at = self._sent - self._begin
        piece = bytes(self._kept[at : at + _PIECE])
        self._sent += len(piece)
        if piece:
            return piece
        if self.end_wanted and not self._end_sent:
            self._end_sent = True
            return b""
        return None
