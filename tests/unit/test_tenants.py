"""Tenants as the configuration file has them: whose a caller is, and what is refused when the file is read."""

from __future__ import annotations

import textwrap
import time
from pathlib import Path

import pytest

from agentic_isolation import InvalidArgumentError, ResourceLimits, SecurityConfig
from agentic_isolation.errors import NotAllowedError
from agentic_isolation_service.core.caller import OPERATOR, Caller
from agentic_isolation_service.core.policy import OPERATORS, HostPath, Policy
from agentic_isolation_service.core.tenants import Tenants
from agentic_isolation_service.settings.file import FileSettings, read_settings

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "tenancy.md"
FULL = """
[[pool]]
image = "python:3.12-slim"
tenants = ["agents"]

[[tenant]]
name = "agents"
identities = ["spiffe://example.org/agents/*", "token:ci", "jwt:https://issuer.example.org#**"]
providers = ["docker", "local"]
images = ["python:*", "registry.example.org/**"]
floor = "development"
network = true
mounts = ["/srv/models", "/srv/cache:rw"]
limits = { cpu = 2, memory = "4G", disk = "2G", open_files = 4096, pids = 256 }
max_lease = 600
max_lifetime = 86400.5
quota = { workspaces = 10, output_per_second = "1M" }

[[tenant]]
name = "operators"
identities = ["unix", "jwt:https://issuer.example.org#alice"]
admin = true
floor = { read_only_root = false, user = "0:0" }
"""


def settings(directory: Path, content: str) -> FileSettings:
    file = directory / "config.toml"
    file.write_text(textwrap.dedent(content))
    return read_settings(file)


@pytest.fixture
def tenants(tmp_path: Path) -> Tenants:
    return settings(tmp_path, FULL).tenants


def test_every_setting(tenants: Tenants, tmp_path: Path) -> None:
    agents, operators = tenants
    assert (agents.name, agents.admin, operators.name, operators.admin) == ("agents", False, "operators", True)
    assert agents.quota == {"workspaces": 10, "output_per_second": "1M"}
    policy = agents.policy
    assert [pattern.text for pattern in policy.images or ()] == ["python:*", "registry.example.org/**"]
    assert (policy.providers, policy.floor) == (("docker", "local"), SecurityConfig.development())
    assert policy.limits == ResourceLimits(cpu=2, memory="4G", disk="2G", open_files=4096)
    assert (policy.pids, policy.network, policy.max_lease, policy.max_lifetime) == (256, True, 600, 86400.5)
    assert policy.mounts == (HostPath("/srv/models"), HostPath("/srv/cache", writable=True))
    assert operators.policy == Policy(floor=SecurityConfig(read_only_root=False, user="0:0"))
    found = settings(tmp_path, FULL)
    assert found.identifies
    assert found.pools[0].tenants == ("agents",)


@pytest.mark.parametrize(
    ("identity", "tenant"),
    [
        ("token:ci", "agents"),
        ("spiffe://example.org/agents/a", "agents"),
        ("jwt:https://issuer.example.org#bob", "agents"),
        ("jwt:https://issuer.example.org#repo:acme/app", "agents"),
        ("jwt:https://issuer.example.org#alice", "operators"),
        ("unix", "operators"),
    ],
)
def test_callers(tenants: Tenants, identity: str, tenant: str) -> None:
    caller = Caller(identity=identity, tenant=tenant, admin=tenant == "operators")
    assert tenants.caller_of(identity) == caller
    assert tenants.caller_of(identity) == caller, "once more, from memory"
    assert tenants.policy_of(caller) is next(known for known in tenants if known.name == tenant).policy


@pytest.mark.parametrize(
    "identity",
    ["", "token:cii", "token:c", "spiffe://example.org/agents", "spiffe://example.org/agents/a/b", "unix:", "*"],
)
def test_identity_that_is_nobodys(tenants: Tenants, identity: str) -> None:
    with pytest.raises(NotAllowedError, match="no tenant's"):
        tenants.caller_of(identity)


def test_operator_may_have_anything_and_strangers_nothing(tenants: Tenants) -> None:
    assert tenants.policy_of(OPERATOR) is OPERATORS
    assert Tenants().policy_of(OPERATOR) is OPERATORS
    with pytest.raises(NotAllowedError, match="no tenant 'gone'"):
        tenants.policy_of(Caller(identity="token:x", tenant="gone"))


ONE = '[[tenant]]\nname = "one"\nidentities = ["{}"]\n'
TWO = '[[tenant]]\nname = "two"\nidentities = ["other", "{}"]\n'


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("token:a", "token:a"),
        ("token:*", "token:*"),
        ("token:a*", "token:*b"),
        ("spiffe://example.org/*/a", "spiffe://example.org/b/*"),
        ("spiffe://example.org/**", "spiffe://*/a"),
        ("**", "token:*"),
    ],
)
def test_identities_that_could_be_two_tenants(one: str, two: str, tmp_path: Path) -> None:
    for first, second in ((one, two), (two, one)):
        with pytest.raises(InvalidArgumentError, match="can stand for the same caller") as refused:
            settings(tmp_path, ONE.format(first) + TWO.format(second))
        assert refused.value.field == "tenant[1].identities[1]"


@pytest.mark.parametrize(
    ("one", "two"), [("token:a", "token:*"), ("token:*", "jwt:*"), ("spiffe://a.org/*", "spiffe://a.org/b/*")]
)
def test_identities_that_are_told_apart(one: str, two: str, tmp_path: Path) -> None:
    assert len(settings(tmp_path, ONE.format(one) + TWO.format(two)).tenants) == 2


NAMED = '[[tenant]]\nname = "a"\nidentities = ["x"]\n'


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ("[tenant]", "tenant"),
        ("tenant = [5]", "tenant[0]"),
        ("[[tenant]]\nidentities = ['x']", "tenant[0].name"),
        ("[[tenant]]\nname = 'a'", "tenant[0].identities"),
        ("[[tenant]]\nname = 'a'\nidentities = []", "tenant[0].identities"),
        ("[[tenant]]\nname = 'a'\nidentities = ['x', '']", "tenant[0].identities[1]"),
        ("[[tenant]]\nname = 'a'\nidentities = ['**/x']", "tenant[0].identities[0]"),
        ("[[tenant]]\nname = 'a'\nidentities = [5]", "tenant[0].identities[0]"),
        ("[[tenant]]\nname = ''\nidentities = ['x']", "tenant[0].name"),
        ("[[tenant]]\nname = 'A b'\nidentities = ['x']", "tenant[0].name"),
        (NAMED + NAMED.replace('"x"', '"y"'), "tenant[1].name"),
        (NAMED + "color = 'red'", "tenant[0].color"),
        (NAMED + "admin = 1", "tenant[0].admin"),
        (NAMED + "providers = 'docker'", "tenant[0].providers"),
        (NAMED + "providers = [1]", "tenant[0].providers[0]"),
        (NAMED + "images = ['a**b']", "tenant[0].images[0]"),
        (NAMED + "floor = 'none'", "tenant[0].floor"),
        (NAMED + "floor = { pids_limit = 5 }", "tenant[0].floor.pids_limit"),
        (NAMED + "floor = { user = '7:7' }", "tenant[0].floor.user"),
        (NAMED + "floor = { use_gvisor = 'yes' }", "tenant[0].floor.use_gvisor"),
        (NAMED + "network = 'no'", "tenant[0].network"),
        (NAMED + "limits = { network = true }", "tenant[0].limits.network"),
        (NAMED + "limits = { memory = 'lots' }", "tenant[0].limits.memory"),
        (NAMED + "limits = { pids = 0 }", "tenant[0].limits.pids"),
        (NAMED + "max_lease = 0", "tenant[0].max_lease"),
        (NAMED + "max_lifetime = 'long'", "tenant[0].max_lifetime"),
        (NAMED + "quota = 5", "tenant[0].quota"),
        (NAMED + "[[pool]]\ntenants = ['a', 'b']", "pool[0].tenants[1]"),
        (NAMED + "[[pool]]\ntenants = 'a'", "pool[0].tenants"),
        ("[[pool]]\ntenants = [5]", "pool[0].tenants[0]"),
    ],
)
def test_what_is_refused(content: str, field: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        settings(tmp_path, content)
    assert refused.value.field == field
    assert len(str(refused.value)) > len(field) + 10


def test_documented_example(tmp_path: Path) -> None:
    text = DOCUMENTATION.read_text()
    example = text.partition("```toml\n")[2].partition("```")[0]
    assert [tenant.name for tenant in settings(tmp_path, example).tenants] == ["agents", "research", "operators"]


def test_many_identities_are_read_in_no_time(tmp_path: Path) -> None:
    names = [[f"{kind}{number}{rest}" for kind, rest in (("token:", ""), ("jwt:", "#*"))] for number in range(500)]
    tables = [f'[[tenant]]\nname = "t{number}"\nidentities = {both}\n' for number, both in enumerate(names)]
    began = time.process_time()
    tenants = settings(tmp_path, "".join(tables)).tenants
    assert tenants.caller_of("jwt:499#someone").tenant == "t499"
    assert time.process_time() - began < 5


def test_providers_that_there_are_not(tenants: Tenants, tmp_path: Path) -> None:
    tenants.check(["docker", "local"])
    with pytest.raises(InvalidArgumentError, match="no provider 'local'") as refused:
        tenants.check(["docker"])
    assert refused.value.field == "tenant[0].providers[1]"


@pytest.mark.parametrize(
    ("mounts", "others", "field", "words"),
    [
        ('["srv"]', "[]", "tenant[0].mounts[0]", "relative"),
        ('["/srv/../etc"]', "[]", "tenant[0].mounts[0]", "'..'"),
        ('["/srv/"]', "[]", "tenant[0].mounts[0]", "'/srv'"),
        ('["/srv:rw", "/srv/models"]', "[]", "tenant[0].mounts[1]", "symbolic link"),
        ('["/srv:rw"]', '["/srv/models"]', "tenant[1].mounts[0]", "symbolic link"),
        ('["/:rw"]', '["/srv"]', "tenant[1].mounts[0]", "symbolic link"),
    ],
)
def test_mounts_that_make_no_sense(tmp_path: Path, mounts: str, others: str, field: str, words: str) -> None:
    tables = "".join(
        f'[[tenant]]\nname = "{name}"\nidentities = ["token:{name}"]\nmounts = {paths}\n'
        for name, paths in (("a", mounts), ("b", others))
    )
    with pytest.raises(InvalidArgumentError) as refused:
        settings(tmp_path, tables)
    assert refused.value.field is not None
    assert field in refused.value.field
    assert words in refused.value.message
