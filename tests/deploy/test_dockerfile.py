"""What the Dockerfile says, without building it; tests/image builds it and runs what comes out."""

from __future__ import annotations

import json

import pytest

from agentic_isolation_service.config import ServiceConfig
from tests.deploy.serving import DEPLOY, check_service, options_of


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """Those of the last stage, with their arguments."""
    text = (DEPLOY / "Dockerfile").read_text()
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ").splitlines()
    found = [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line)]
    last = max(position for position, (word, _) in enumerate(found) if word == "FROM")
    return found[last:]


def only(instructions: list[tuple[str, str]], name: str) -> str:
    (found,) = [rest for word, rest in instructions if word == name]
    return found


def test_it_runs_as_a_user_that_can_be_told_from_root(instructions: list[tuple[str, str]]) -> None:
    user, _, group = only(instructions, "USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0


def test_last_stage_runs_nothing_and_fetches_nothing(instructions: list[tuple[str, str]]) -> None:
    assert not {"RUN", "ADD", "SHELL", "ONBUILD"} & {word for word, _ in instructions}
    assert all(rest.startswith("--from=build ") for word, rest in instructions if word == "COPY")


def test_it_ends_in_good_order(instructions: list[tuple[str, str]]) -> None:
    assert only(instructions, "STOPSIGNAL") == "SIGTERM"
    assert json.loads(only(instructions, "ENTRYPOINT")) == ["/app/bin/agentic-isolation"], "no shell is between"
    assert "agentic-isolation" in only(instructions, "HEALTHCHECK")


def test_what_it_runs_by_itself(instructions: list[tuple[str, str]]) -> None:
    options = options_of(json.loads(only(instructions, "CMD")))
    check_service(options)
    ServiceConfig(address=options["address"])
    assert options["address"].startswith("127.0.0.1:"), "callers prove nothing unless somebody says how"
    assert str(options["state_dir"]).startswith(only(instructions, "VOLUME"))
