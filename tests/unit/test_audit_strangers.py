"""Calls that prove nothing: some are written down, the others counted, and each is told once."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from agentic_isolation_service.audit import strangers
from agentic_isolation_service.audit.log import AuditLog, Entry
from agentic_isolation_service.audit.strangers import MOST, Strangers
from tests.support.eventually import eventually


class Noted(list[Entry]):
    """A log that keeps what it is told."""

    def note(self, entry: Entry) -> bool:
        self.append(entry)
        return True


def met(noted: Noted) -> Strangers:
    return Strangers(cast("AuditLog", cast("Any", noted)))


async def test_the_first_are_written_and_the_others_counted() -> None:
    noted = Noted()
    met_ones = met(noted)
    assert [met_ones.come() for _ in range(MOST + 5)] == [True] * MOST + [False] * 5
    assert not noted
    met_ones.tell()
    assert [entry.content for entry in noted] == [{"code": "UNAUTHENTICATED", "calls": 5}]
    met_ones.tell()
    assert len(noted) == 1
    assert met_ones.come()
    met_ones.tell()
    assert len(noted) == 1


async def test_they_are_told_after_an_interval_and_others_are_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "INTERVAL", 0.05)
    noted = Noted()
    met_ones = met(noted)
    for _ in range(MOST + 1):
        met_ones.come()
    await eventually(lambda: len(noted) == 1, "they are told")
    assert met_ones.come()
    await asyncio.sleep(0.1)
    assert len(noted) == 1
