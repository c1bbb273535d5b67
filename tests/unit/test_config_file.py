"""The configuration file: what it gives, and what it is refused for, by the name of the setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentic_isolation import InvalidArgumentError, ResourceLimits, SecurityConfig, WorkspaceConfig
from agentic_isolation_service.config import ServiceConfig
from agentic_isolation_service.config_file import CONFIG_VARIABLE, pools_of_environment, read_pools
from agentic_isolation_service.core.templates import PoolTemplate

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
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


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
    assert read_pools(file) == pools
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    assert pools_of_environment() == pools
    monkeypatch.delenv(CONFIG_VARIABLE)
    assert pools_of_environment() == ()


@pytest.mark.parametrize(
    ("content", "field"),
    [
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
    ],
)
def test_what_is_refused(file: Path, content: str, field: str) -> None:
    file.write_text(content)
    with pytest.raises(InvalidArgumentError) as refused:
        read_pools(file)
    assert refused.value.field == field
    assert len(str(refused.value)) > len(field) + 10


def test_not_more_than_there_may_be() -> None:
    pool = PoolTemplate(name="a", config=WorkspaceConfig(), min=6, max=6)
    with pytest.raises(InvalidArgumentError, match="pool: the pools keep 6 places"):
        ServiceConfig(pools=[pool], max_workspaces=5)
