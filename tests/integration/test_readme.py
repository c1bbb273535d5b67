"""What the README shows is true: its Python runs as written, its command lines parse."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from agentic_isolation_service.config import DEFAULT_IMAGE
from tests.integration.cli import run
from tests.support.program import CHECKOUT, python_environment

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAM = "agentic-isolation"


def blocks(language: str, text: str = README) -> list[str]:
    """Returns the README's blocks of a language."""
    return [block for name, block in BLOCK.findall(text) if name == language]


def command_lines() -> list[list[str]]:
    """Returns the arguments of every command line of our program that the README shows."""
    lines = [
        line for language in ("bash", "sh", "console") for block in blocks(language) for line in block.splitlines()
    ]
    words = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return [line[1:] for line in words if line[:1] == [PROGRAM]]


PYTHON = blocks("python")
NEEDS_ENGINE = re.compile(r"WorkspaceDockerProvider|provider=\"docker\"")
EXAMPLES = [pytest.param(code, marks=[pytest.mark.docker] if NEEDS_ENGINE.search(code) else []) for code in PYTHON]


def test_there_are_examples() -> None:
    assert {bool(NEEDS_ENGINE.search(code)) for code in PYTHON} == {True, False}
    assert any("WorkspaceDockerProvider" in code for code in PYTHON)
    assert {line[0] for line in command_lines()} == {"run", "serve", "info", "doctor", "ls", "exec", "rm"}


@pytest.mark.parametrize("code", EXAMPLES)
def test_python_runs_as_written(code: str, directory: Path) -> None:
    """In an empty directory, without a word on standard error; only the images' name is that of the tests."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=python_environment(),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert list(directory.iterdir()) == []


def test_quick_start_prints_what_it_says(directory: Path) -> None:
    quick_start = PYTHON[0]
    done = subprocess.run(
        [sys.executable, "-c", quick_start], env=python_environment(), capture_output=True, check=True
    )
    assert done.stdout == b"0 hi\n\nhi\n"


@pytest.mark.parametrize("arguments", command_lines(), ids=" ".join)
def test_command_line_parses(arguments: list[str]) -> None:
    """Without being carried out."""
    cli: click.Group = vars(importlib.import_module("agentic_isolation_service.cli"))["_cli"]
    name, command, rest = cli.resolve_command(click.Context(cli, info_name=PROGRAM), arguments)
    assert name == arguments[0]
    assert command is not None
    with command.make_context(name, rest) as context:
        assert context.params


def test_run_examples_do_what_their_comments_say(directory: Path) -> None:
    (directory / "script.py").write_text("print('from the script')")
    results = [run(*line, cwd=directory) for line in command_lines() if line[0] == "run" and "local" in line]
    assert [(done.stdout, done.stderr, done.returncode) for done in results] == [
        ("out\n", "err\n", 3),
        ("from the script\n", "", 0),
    ]


def test_every_variable_is_documented() -> None:
    """Of those that our sources read; the one of shells' completion is click's."""
    sources = [*(CHECKOUT / "agentic_isolation").rglob("*.py"), *(CHECKOUT / "service").rglob("*.py")]
    code = "".join(source.read_text(encoding="utf-8") for source in sources)
    read = set(re.findall(r"AGENTIC_ISOLATION_[A-Z_]+", code))
    told = README + "".join(page.read_text(encoding="utf-8") for page in (CHECKOUT / "docs").glob("*.md"))
    assert len(read) > 5
    assert [name for name in read - {"AGENTIC_ISOLATION_COMPLETE"} if f"`{name}" not in told] == []
    assert f"[default: {DEFAULT_IMAGE}]" in " ".join(run("serve", "--help").stdout.split())


def test_links_lead_somewhere() -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)", README) if "://" not in target]
    assert targets
    assert [target for target in targets if not (CHECKOUT / target).exists()] == []
