"""Secrets: given to processes and to nothing else, and hidden in output where that is asked for."""

from __future__ import annotations

import pytest

from agentic_isolation import InvalidArgumentError, Output, SecurityConfig
from tests.support.jobs import python
from tests.support.ways import Way

TOKEN = "s3cr3t-Zx91-token"
SPLIT = "import os, sys, time\nfor c in 'a ' + os.environ['TOKEN'] + ' b\\n':\n print(c, end='', flush=True)"


async def test_secrets_are_given_to_processes_and_hidden_on_request(way: Way) -> None:
    config = way.config(secrets={"TOKEN": TOKEN, "OTHER": "line one\nline two"}, environment={"PLAIN": "seen"})
    assert TOKEN not in repr(config)
    async with way.open(config) as ws:
        assert TOKEN not in repr(await ws.describe())
        assert (await ws.execute("echo $TOKEN $PLAIN")).stdout == f"{TOKEN} seen\n"
        assert (await ws.execute("echo $TOKEN", env={"TOKEN": "mine"})).stdout == "mine\n"
        result = await ws.execute('echo "$TOKEN"; echo "$OTHER" >&2; echo x', redact_secrets=True)
        assert (result.stdout, result.stderr) == ("***\nx\n", "***\n")
        assert [line async for line in ws.stream(python(SPLIT), redact_secrets=True)] == ["a *** b"]
        async with await ws.start(python(SPLIT), redact_secrets=True) as process:
            printed = b"".join([event.data async for event in process if isinstance(event, Output)])
        assert printed == b"a *** b\n"
        assert all(TOKEN not in repr(process) for process in await ws.processes())


@pytest.mark.places("local")
async def test_many_beside_a_large_environment(way: Way) -> None:
    """Of what takes most room when it is encoded."""
    secrets = dict.fromkeys("ABCD", "\x01" * (30 << 10))
    environment = dict.fromkeys("EFG", '"' * (30 << 10))
    async with way.open(way.config(secrets=secrets, environment=environment)) as ws:
        assert (await ws.execute("printf %s%s $A $F | wc -c")).stdout.strip() == str(60 << 10)


@pytest.mark.places("local")
async def test_secrets_that_make_no_sense_are_refused_without_being_shown(way: Way) -> None:
    for secrets, environment, field in (
        ({"TOKEN": TOKEN}, {"TOKEN": "x"}, 'secrets["TOKEN"]'),
        ({"": TOKEN}, {}, "secrets"),
        ({"A=B": TOKEN}, {}, "secrets"),
        ({"TOKEN": TOKEN + "\0"}, {}, 'secrets["TOKEN"]'),
        ({"TOKEN": TOKEN * (8 << 10)}, {}, "secrets"),
    ):
        with pytest.raises(InvalidArgumentError) as caught:
            await way.create(way.config(secrets=secrets, environment=environment))
        assert caught.value.field == field
        assert TOKEN not in str(caught.value)
    assert TOKEN not in repr(SecurityConfig())
