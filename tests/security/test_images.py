"""Images that nobody has looked into: what is in them is not taken for anything of ours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agentic_isolation import AgenticWorkspace, InvalidArgumentError, ResourceLimits, SecurityConfig
from tests.engine import Engine
from tests.support.impostor import impostor_image
from tests.support.service import ServedProcess

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("network")]
RUNTIMES = [pytest.param(False, id="runc"), pytest.param(True, id="gvisor", marks=pytest.mark.gvisor)]


@pytest.fixture
def impostor(engine: Engine) -> Iterator[str]:
    with impostor_image(engine) as image:
        yield image


@pytest.mark.parametrize("gvisor", RUNTIMES)
async def test_program_in_the_place_of_the_guest(directory: object, impostor: str, gvisor: bool) -> None:
    """It is not run: not as the guest, and not with rights in the network of the engine's host, for its firewall."""
    with ServedProcess("--address", f"unix:{directory}/s") as service:  # one that has not seen to the firewall lately
        async with AgenticWorkspace.create(
            provider="docker",
            image=impostor,
            security=SecurityConfig(use_gvisor=gvisor),
            limits=ResourceLimits(network=True),
            lease=60,
            target=service.target,
        ) as ws:
            assert (await ws.execute("cat /.agentic-isolation/agentic-guest")).stdout.startswith("#!/bin/sh")


async def test_working_directories_that_an_engine_reads_otherwise(service: ServedProcess) -> None:
    for path in ("//proc", "/./proc/sys", "//etc", "//tmp//", "///"):
        with pytest.raises(InvalidArgumentError, match="is the system's"):
            await AgenticWorkspace.create(provider="docker", working_dir=path, target=service.target)
