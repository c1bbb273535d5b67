"""Refused calls of those who prove nothing: whoever can reach the service can make any number of them."""

from __future__ import annotations

import asyncio

from agentic_isolation_service.audit.log import AuditLog, Entry

MOST = 100
"""Calls that are written down one by one in an INTERVAL; the others are counted, as a flood would fill the disk."""
INTERVAL = 60.0
"""Seconds."""


class Strangers:
    """Decides which of these calls are written down one by one, and counts the others.

    Args:
        log: Where it is written how many they were.
    """

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self._written = 0
        self._counted = 0
        self._timer: asyncio.TimerHandle | None = None

    def come(self) -> bool:
        """Notes a call; returns whether it is written down by itself."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL, self.tell)
        if self._written < MOST:
            self._written += 1
            return True
        self._counted += 1
        return False

    def tell(self) -> None:
        """Writes down how many were counted, and begins anew."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._counted:
            self._log.note(Entry("refused", {"code": "UNAUTHENTICATED", "calls": self._counted}))
        self._written = self._counted = 0
