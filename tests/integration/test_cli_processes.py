"""`ps`, `logs`, `cp` and `completion`, as people and scripts use them."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentic_isolation.sync import Workspace
from tests.integration.cli import run, started
from tests.support.service import ServedProcess
from tests.support.terminal import Terminal


@pytest.fixture
def workspace(service: ServedProcess) -> Iterator[str]:
    """A workspace in which a process has printed and waits."""
    with started(
        "run", "--target", service.target, "--provider", "local", "--", "sh", "-c", "echo up; sleep 1000"
    ) as it:
        assert it.line() == "up\n"
        yield json.loads(run("ls", "--target", service.target, "--json").stdout)[0]["id"]


def test_ps_and_logs(service: ServedProcess, workspace: str) -> None:
    target = ("--target", service.target)
    command = "echo first; echo second; echo err >&2; exit 5"
    assert run("exec", *target, workspace, "--", "sh", "-c", command).returncode == 5
    running, ended = json.loads(run("ps", *target, "--json", workspace).stdout)
    assert (running["termination"], ended["termination"]["exit_code"]) == (None, 5)
    table = run("ps", *target, workspace).stdout.splitlines()
    assert table[0].split()[:3] == ["PROCESS", "STATE", "STARTED"]
    assert table[2].split()[:3] == [ended["id"], "exited", "5"]

    logs = run("logs", *target, workspace, ended["id"])
    assert (logs.stdout, logs.stderr, logs.returncode) == ("first\nsecond\n", "err\n", 0)
    assert run("logs", *target, "-f", "--tail", "2", workspace, ended["id"]).returncode == 5
    assert run("logs", *target, "--tail", "0", workspace, ended["id"]).stdout == ""
    assert run("logs", *target, "--offset", "1", workspace, running["id"]).stdout == "p\n"
    assert run("logs", *target, workspace, running["id"]).stdout == "up\n"
    missing = run("logs", *target, workspace, "p-none")
    assert (missing.returncode, missing.stderr.count("\n")) == (125, 1)
    assert f"agentic-isolation ps {workspace}" in missing.stderr
    with started("logs", *target, "-f", workspace, running["id"]) as following:
        assert following.line() == "up\n"
        assert following.process.poll() is None


def test_cp(service: ServedProcess, workspace: str, directory: Path) -> None:
    target = ("--target", service.target)
    source = directory / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_bytes(b"\0content")
    (source / "left.pyc").write_text("out")
    assert run("cp", *target, "--ignore", "*.pyc", str(source), f"{workspace}:copied").returncode == 0
    back = directory / "back"
    assert run("cp", *target, f"{workspace}:copied", str(back)).returncode == 0
    assert [str(path.relative_to(back)) for path in sorted(back.rglob("*"))] == ["deep", "deep/file"]
    assert (back / "deep" / "file").read_bytes() == b"\0content"

    assert run("cp", *target, str(source / "left.pyc"), f"{workspace}:copied").returncode == 0
    assert run("cp", *target, f"{workspace}:copied/left.pyc", "-").stdout == "out"
    assert run("cp", *target, "-", f"{workspace}:from/stdin", input="typed").returncode == 0
    assert run("cp", *target, f"{workspace}:from/stdin", "-").stdout == "typed"
    assert run("cp", *target, f"{workspace}:none", str(directory)).returncode == 125
    assert run("cp", *target, "one", "other").returncode == 2
    (directory / "patterns").write_bytes(b"\xff")
    done = run("cp", *target, "--ignore-file", str(directory / "patterns"), str(source), f"{workspace}:x")
    assert done.returncode == 2
    assert "patterns is no text in UTF-8" in done.stderr

    (source / "big").write_bytes(bytes(1 << 20))
    with Terminal("cp", *target, str(source / "big"), f"{workspace}:big") as terminal:
        assert terminal.wait() == 0
        assert "1 files, 1.0 MiB" in terminal.text()


WORDS = "[/b] [red]é :bug: \x1b[31m\n\x9b"
SHOWN = "[/b] [red]é :bug: ·[31m··"


def test_words_of_callers_are_shown_as_they_are(service: ServedProcess) -> None:
    """They are no markup, which hides them or has a table end in a traceback, and no terminal acts on them."""
    target = ("--target", service.target)
    with Workspace.create("local", labels={"note": WORDS}, target=service.target) as workspace:
        workspace.execute(["true", WORDS])
        for arguments in (
            ("ls", *target),
            ("info", *target, workspace.id),
            ("ps", *target, workspace.id),
            ("top", "--once", *target),
        ):
            done = run(*arguments)
            assert (done.returncode, done.stderr) == (0, "")
            assert SHOWN in done.stdout, arguments


def test_json_is_shown_without_what_a_terminal_obeys(service: ServedProcess) -> None:
    words = WORDS + "\x7f\x90\u202e\U000e0001"
    target = ("--target", service.target)
    with Workspace.create("local", labels={"note": words}, target=service.target) as workspace:
        workspace.execute(["true", words])
        listed, described, ps = (
            run(*arguments).stdout
            for arguments in (
                ("ls", *target, "--json"),
                ("info", *target, "--json", workspace.id),
                ("ps", *target, "--json", workspace.id),
            )
        )
    assert json.loads(listed)[0]["labels"] == json.loads(described)["labels"] == {"note": words}
    assert json.loads(ps)[0]["args"] == ["true", words]
    for shown in (listed, described, ps):
        assert "é" in shown
        assert shown.replace("\n", "").isprintable()


def test_each_row_is_one_line_for_programs_that_read_it(service: ServedProcess) -> None:
    """A long label or command ends in no line of its own, which would begin with whatever its author likes."""
    target = ("--target", service.target)
    words = "ws-of-somebody-else docker ready " * 7
    with Workspace.create("local", labels={"note": words}, target=service.target) as workspace:
        workspace.execute(["true", words * 500])
        [process] = workspace.processes()
        for arguments, first in (
            (("ls", *target), ("WORKSPACE", workspace.id)),
            (("top", "--once", *target), ("WORKSPACE", workspace.id)),
            (("ps", *target, workspace.id), ("PROCESS", process.id)),
        ):
            lines = run(*arguments).stdout.splitlines()
            assert tuple(line.split()[0] for line in lines) == first
            assert words.strip() in lines[1]
        assert f"label note {words}".split() in [
            line.split() for line in run("info", *target, workspace.id).stdout.splitlines()
        ]


def test_what_goes_wrong_with_a_workload_s_names_is_one_harmless_line(
    service: ServedProcess, workspace: str, directory: Path
) -> None:
    name = "\x1b]0;title\x07\x9b31m\nagentic-isolation: all is well"
    target = ("--target", service.target)
    run("exec", *target, workspace, "mkdir", "-p", f"from/{name}/deeper")
    (directory / name).write_text("in the way of a directory")
    done = run("cp", *target, f"{workspace}:from", str(directory))
    assert done.returncode == 125
    assert done.stderr.endswith("/\\x1b]0;title\\x07\\x9b31m\\nagentic-isolation: all is well: Not a directory\n"), (
        done.stderr
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("columns", [50, 80])
def test_ids_are_whole_whatever_the_terminal(service: ServedProcess, columns: int) -> None:
    with (
        Workspace.create("local", labels={"note": "x" * 200}, target=service.target) as workspace,
        Terminal("ls", "--target", service.target, columns=columns) as terminal,
    ):
        assert terminal.wait() == 0
        assert workspace.id in terminal.output.decode()


@pytest.mark.parametrize("copying", [False, True])
def test_input_that_does_not_end_can_be_interrupted(service: ServedProcess, workspace: str, copying: bool) -> None:
    target = ("--target", service.target)
    arguments = ("cp", *target, "-", f"{workspace}:x") if copying else ("exec", *target, "--stdin", workspace, "cat")
    with Terminal(*arguments) as terminal:
        terminal.type("typed\r")
        terminal.expect("typed")
        time.sleep(2)  # it is connected, and reads
        terminal.type("\x03")
        assert terminal.wait() == 128 + signal.SIGINT
    assert run("exec", *target, workspace, "test", "-e", "x").returncode == 1


def test_completion(service: ServedProcess, workspace: str) -> None:
    """Commands, workspaces, processes and paths; and silence where no service is."""

    def completed(*words: str, target: str = service.target) -> list[str]:
        environment = {
            "_AGENTIC_ISOLATION_COMPLETE": "fish_complete",
            "COMP_WORDS": " ".join(["agentic-isolation", *words]),
            "COMP_CWORD": words[-1],
            "AGENTIC_ISOLATION_TARGET": target,
        }
        done = run(environment=environment)
        assert done.stderr == ""
        return [line.partition(",")[2].partition("\t")[0] for line in done.stdout.splitlines()]

    process = json.loads(run("ps", "--target", service.target, "--json", workspace).stdout)[0]["id"]
    run("cp", "--target", service.target, "-", f"{workspace}:notes/today", input="x")
    assert completed("sh") == ["shell"]
    assert completed("ps", "ws-") == [workspace]
    assert completed("logs", workspace, "") == [process]
    assert completed("cp", workspace[:5]) == [f"{workspace}:"]
    assert completed("cp", f"{workspace}:no") == [f"{workspace}:notes/"]
    assert completed("cp", f"{workspace}:notes/") == [f"{workspace}:notes/today"]
    assert completed("ps", "ws-", target="unix:/nowhere.sock") == [""]
    script = run("completion", "bash").stdout
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert "_AGENTIC_ISOLATION_COMPLETE" in run("completion", "zsh").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_no_name_of_a_file_is_completed_to_a_command(service: ServedProcess, workspace: str, shell: str) -> None:
    """Nor does it give the shell a completion of its own, or the terminal something to obey."""
    names = [
        "harmless-é.txt",
        "a;touch pwned;",
        "$(touch pwned)",
        "b\nplain,;touch pwned;",
        "c\x1b]0;title\x07",
        "d\x9b2J",
    ]
    run("exec", "--target", service.target, workspace, "touch", *names)
    line = f"agentic-isolation cp {workspace}:"
    environment = {
        "_AGENTIC_ISOLATION_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": f"{workspace}:" if shell == "fish" else "2",
        "AGENTIC_ISOLATION_TARGET": service.target,
    }
    shown = run(environment=environment).stdout
    assert f"{workspace}:harmless-é.txt" in shown
    assert shown.replace("\n", "").isprintable()
    assert "\nplain,;" not in shown
    # The others quote what they put into the line.
    assert ("touch pwned" in shown) == (shell != "bash")
