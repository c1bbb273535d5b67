"""Unix sockets: the kernel lets in whom their mode lets in, from their first moment on, and nobody else."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from agentic_isolation import Credentials, UnauthenticatedError
from agentic_isolation.service import ServiceClient
from agentic_isolation_service.config import ServiceConfig
from agentic_isolation_service.core.tokens import StaticToken
from agentic_isolation_service.rpc.authentication.unix_peers import UNIX_IDENTITY
from agentic_isolation_service.serving import serve
from agentic_isolation_service.settings.file import FileSettings
from tests.integration.identified import identified
from tests.integration.other_users import as_root, asked, connects, mode_of
from tests.support.service import ServedProcess

GROUP = 54321


def allow(path: Path, mode: int) -> None:
    path.chmod(mode)


@as_root
async def test_socket_is_its_owners_alone_whatever_the_umask(common: Path) -> None:
    path = common / "s"
    before = os.umask(0)
    try:
        async with serve(ServiceConfig(address=f"unix:{path}", grace=0)) as target:
            assert mode_of(path) == 0o600
            assert not await connects(path)
            await asked(target)
        assert os.umask(0) == 0, "the umask is what it was"
    finally:
        os.umask(before)
    assert not path.exists()


@as_root
async def test_socket_of_a_group_is_open_to_its_members(common: Path) -> None:
    path = common / "s"
    config = ServiceConfig(address=f"unix:{path}", grace=0, socket_mode=0o660, socket_group=str(GROUP))
    async with serve(config):
        assert (mode_of(path), path.stat().st_gid) == (0o660, GROUP)
        assert await connects(path, GROUP)
        assert not await connects(path)


@as_root
async def test_socket_is_open_to_all_where_that_was_asked_for(common: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = common / "s"
    config = ServiceConfig(address=f"unix:{path}", grace=0, socket_mode=0o666, insecure_listen=True)
    async with serve(config):
        assert await connects(path)
    assert "insecure_listen: anybody" in caplog.text


@pytest.mark.parametrize("below", ["", "mine"])
async def test_directory_where_others_may_replace_it_is_refused(common: Path, below: str) -> None:
    (common / below).mkdir(exist_ok=True)
    allow(common, 0o777)
    with pytest.raises(OSError, match=f"every user may replace what lies in {common}"):
        async with serve(ServiceConfig(address=f"unix:{common / below / 's'}", grace=0)):
            pass
    allow(common, 0o1777)
    async with serve(ServiceConfig(address=f"unix:{common / below / 's'}", grace=0)) as target:
        await asked(target)


async def test_what_is_no_socket_is_left_alone(directory: Path) -> None:
    (directory / "s").write_text("precious")
    with pytest.raises(OSError, match="no socket"):
        async with serve(ServiceConfig(address=f"unix:{directory / 's'}", grace=0)):
            pass
    assert (directory / "s").read_text() == "precious"


@pytest.mark.parametrize("group", ["of-nobody", "4294967295", "99999999999"])
async def test_group_that_is_not_there_is_refused(directory: Path, group: str) -> None:
    with pytest.raises(OSError, match=f"no group '{group}'"):
        async with serve(ServiceConfig(address=f"unix:{directory / 's'}", socket_group=group, grace=0)):
            pass


def test_options_of_the_command_line(directory: Path) -> None:
    path = directory / "s"
    options = ("--address", f"unix:{path}", "--socket-mode", "0666", "--insecure-listen")
    with ServedProcess(*options, "--socket-group", str(os.getgid())) as served:
        assert mode_of(path) == 0o666
        assert "insecure_listen: anybody" in served.log


async def test_peers_are_known_by_their_token_else_as_users_of_the_socket(directory: Path) -> None:
    token = StaticToken(name="ci", sha256=hashlib.sha256(b"secret").hexdigest())
    config = ServiceConfig(address=f"unix:{directory / 's'}", file=FileSettings(tokens=(token,)))
    async with identified(config) as service:
        await asked(service.target)
        async with ServiceClient(service.target, credentials=Credentials(token="secret")) as client:
            await client.info()
        assert [caller.identity for caller in service.callers] == [UNIX_IDENTITY, "token:ci"]
        assert all(caller.admin for caller in service.callers)
        with pytest.raises(UnauthenticatedError):
            async with ServiceClient(service.target, credentials=Credentials(token="wrong")) as client:
                await client.info()
