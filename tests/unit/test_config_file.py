"""The configuration file: what it gives, and what it is refused for, by the name of the setting."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agentic_isolation import InvalidArgumentError, ResourceLimits, SecurityConfig, WorkspaceConfig
from agentic_isolation_service.config import ServiceConfig
from agentic_isolation_service.core.templates import PoolTemplate
from agentic_isolation_service.settings.audit import AuditSettings
from agentic_isolation_service.settings.file import (
    CONFIG_VARIABLE,
    FileSettings,
    read_settings,
    settings_of_environment,
)
from agentic_isolation_service.settings.telemetry import TracingSettings

FULL = """
[[pool]]
name = "python"
image = "python:3.12-slim"
working_dir = "/work"
min = 2
max = 9
security = { use_gvisor = true, pids_limit = 64, user = "1000:1000" }
[pool.limits]
cpu = 0.5
memory = "512M"
network = true

[[pool]]
provider = "local"
min = 0

[metrics]
address = "[::1]:9464"

[tracing]
endpoint = "http://127.0.0.1:4317"
service_name = "isolation"
sample_ratio = 0.25
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_byte_order_mark_is_no_part_of_it(file: Path) -> None:
    """Editors of Windows begin files with it, unseen."""
    file.write_text(FULL, encoding="utf-8-sig")
    marked = read_settings(file)
    file.write_text(FULL, encoding="utf-8")
    assert marked == read_settings(file)


def test_every_setting(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(FULL)
    config = WorkspaceConfig(
        image="python:3.12-slim",
        working_dir="/work",
        security=SecurityConfig(use_gvisor=True, pids_limit=64, user="1000:1000"),
        limits=ResourceLimits(cpu=0.5, memory="512M", network=True),
    )
    pools = (
        PoolTemplate(name="python", config=config, min=2, max=9),
        PoolTemplate(name="local", config=WorkspaceConfig(provider="local"), min=0),
    )
    settings = read_settings(file)
    assert settings.pools == pools
    assert settings.metrics_address == "[::1]:9464"
    assert settings.tracing == TracingSettings(
        endpoint="http://127.0.0.1:4317", service_name="isolation", sample_ratio=0.25
    )
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    assert settings_of_environment().pools == pools
    monkeypatch.delenv(CONFIG_VARIABLE)
    assert settings_of_environment() == FileSettings()


def test_environment_that_names_no_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (file.with_name("nowhere.toml"), file.parent):
        monkeypatch.setenv(CONFIG_VARIABLE, str(path))
        with pytest.raises(InvalidArgumentError, match=re.escape(f"{CONFIG_VARIABLE}: '{path}' cannot be read")):
            settings_of_environment()


def test_traces_by_the_variables_of_opentelemetry_alone(file: Path) -> None:
    file.write_text("[tracing]")
    assert read_settings(file) == FileSettings(tracing=TracingSettings())


def test_audit_log(file: Path) -> None:
    file.write_text("")
    assert read_settings(file).audit is None
    file.write_text('[audit]\npath = "/var/log/audit.jsonl"')
    assert read_settings(file).audit == AuditSettings(path=Path("/var/log/audit.jsonl"))
    file.write_text('[audit]\npath = "/var/log/audit.jsonl"\nsync_interval = 0\nfail_closed = false')
    expected = AuditSettings(path=Path("/var/log/audit.jsonl"), sync_interval=0, fail_closed=False)
    assert read_settings(file).audit == expected


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ("audit = 5", "audit"),
        ("[audit]", "audit.path"),
        ('[audit]\npath = "audit.jsonl"', "audit.path"),
        ('[audit]\npath = "/audit.jsonl"\nsync = 1', "audit.sync"),
        ('[audit]\npath = "/audit.jsonl"\nsync_interval = -1', "audit.sync_interval"),
        ('[audit]\npath = "/audit.jsonl"\nfail_closed = 1', "audit.fail_closed"),
        ("pool = 5", "pool"),
        ("[pool]", "pool"),
        ("pool = [5]", "pool[0]"),
        ("[service]", "service"),
        ("[[pool]]\nsize = 5", "pool[0].size"),
        ("[[pool]]\nlabels = {}", "pool[0].labels"),
        ('[[pool]]\nmin = "2"', "pool[0].min"),
        ("[[pool]]\nmin = true", "pool[0].min"),
        ("[[pool]]\nmin = 1.5", "pool[0].min"),
        ("[[pool]]\nmin = -1", "pool[0].min"),
        ("[[pool]]\nmin = 5", "pool[0].min"),
        ("[[pool]]\nmax = 0", "pool[0].max"),
        ("[[pool]]\nmax = 1001", "pool[0].max"),
        ('[[pool]]\nname = ""', "pool[0].name"),
        ("[[pool]]\n[[pool]]", "pool[1].name"),
        ("[[pool]]\nsecurity = 1", "pool[0].security"),
        ("[[pool]]\nsecurity = { user = 1000 }", "pool[0].security.user"),
        ("[[pool]]\nlimits = { cpus = 1 }", "pool[0].limits.cpus"),
        ("[[pool]]\nlimits = { network = 1 }", "pool[0].limits.network"),
        ("[[pool]", "config"),
        ('[[pool]]\nimage = "a\\u0000"', "pool[0].image"),
        ('[tls]\ncertificate = "a\\u0000"', "tls.certificate"),
        ('[audit]\npath = "/a\\u0000"', "audit.path"),
        ("[metrics]", "metrics.address"),
        ("metrics = 9464", "metrics"),
        ("[metrics]\naddress = 9464", "metrics.address"),
        ('[metrics]\naddress = "9464"', "metrics.address"),
        ('[metrics]\naddress = "::1:9464"', "metrics.address"),
        ('[metrics]\naddress = "127.0.0.1:65536"', "metrics.address"),
        ('[metrics]\nport = "9464"', "metrics.port"),
        ('[tracing]\nendpoint = "127.0.0.1:4317"', "tracing.endpoint"),
        ('[tracing]\nendpoint = "http://"', "tracing.endpoint"),
        ('[tracing]\nendpoint = "http://[::1"', "tracing.endpoint"),
        ('[tracing]\nservice_name = ""', "tracing.service_name"),
        ("[tracing]\nsample_ratio = 1.5", "tracing.sample_ratio"),
        ("[tracing]\nsample_ratio = nan", "tracing.sample_ratio"),
        ("[tracing]\nsampler = 1", "tracing.sampler"),
    ],
)
def test_what_is_refused(file: Path, content: str, field: str) -> None:
    file.write_text(content)
    with pytest.raises(InvalidArgumentError) as refused:
        read_settings(file)
    assert refused.value.field == field
    assert len(str(refused.value)) > len(field) + 10
    assert str(file) in str(refused.value)


def test_not_more_than_there_may_be() -> None:
    pool = PoolTemplate(name="a", config=WorkspaceConfig(), min=6, max=6)
    with pytest.raises(InvalidArgumentError, match="pool: the pools keep 6 places"):
        ServiceConfig(file=FileSettings(pools=[pool]), max_workspaces=5)
