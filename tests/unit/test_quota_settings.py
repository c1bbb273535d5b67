"""Quotas in the configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentic_isolation import InvalidArgumentError
from agentic_isolation_service.core.quotas import UNBOUND, Quota
from agentic_isolation_service.settings.file import read_settings

EVERYTHING = """
workspaces = 3
memory = "8G"
cpu = 2.5
creates_per_minute = 6
commands = 0
streams = 7
output_per_second = "1M"
message = "1M"
"""
QUOTA = Quota(
    workspaces=3,
    memory_bytes=8 << 30,
    cpu_millis=2500,
    creates_per_minute=6,
    commands=0,
    streams=7,
    output_bytes_per_second=1 << 20,
    message_bytes=1 << 20,
)
TENANT = '[[tenant]]\nname = "a"\nidentities = ["a"]\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_there_are_none_where_none_are_written(file: Path) -> None:
    file.write_text(TENANT)
    assert read_settings(file).quotas == UNBOUND
    assert not read_settings(file).quotas.bound_anything


def test_all_of_them(file: Path) -> None:
    file.write_text(f"[quota]\n{EVERYTHING}\n[tenant_quota]\ncommands = 9\n{TENANT}\n[tenant.quota]\n{EVERYTHING}")
    quotas = read_settings(file).quotas
    assert quotas.bound_anything
    assert quotas.service == QUOTA
    assert quotas.default == Quota(commands=9)
    assert quotas.of_tenants == {"a": QUOTA}


@pytest.mark.parametrize(
    ("line", "field", "words"),
    [
        ("workspace = 3", "workspace", "there are workspaces, memory"),
        ("workspaces = -1", "workspaces", "not 0 or more"),
        ("commands = true", "commands", "not an integer"),
        ('memory = "lots"', "memory", "no size"),
        ("cpu = -1", "cpu", "not 0 or more"),
        ('cpu = "many"', "cpu", "no number"),
        ("output_per_second = 1000", "output_per_second", "65536"),
        ('message = "1000K"', "message", "1048576"),
        ('message = "8M"', "message", "4194304"),
    ],
)
def test_what_makes_no_sense_is_named(file: Path, line: str, field: str, words: str) -> None:
    for table, place in (("[quota]", "quota"), ("[tenant_quota]", "tenant_quota")):
        file.write_text(f"{table}\n{line}\n")
        with pytest.raises(InvalidArgumentError, match=words) as caught:
            read_settings(file)
        assert caught.value.field == f"{place}.{field}"
    file.write_text(f"{TENANT}\n[tenant.quota]\n{line}\n")
    with pytest.raises(InvalidArgumentError, match=words) as caught:
        read_settings(file)
    assert caught.value.field == f"tenant['a'].quota.{field}"
