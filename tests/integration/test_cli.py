"""The command line, as people and scripts use it: in processes of its own."""

from __future__ import annotations

import itertools
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentic_isolation import __version__
from tests.integration.cli import run, started
from tests.support.jobs import TREE_SIZE, new_mark, tree
from tests.support.proc import mentioning
from tests.support.program import CHECKOUT, python_environment
from tests.support.service import ServedProcess

LOCAL = ("run", "--provider", "local")


def test_run_keeps_the_outputs_apart_and_passes_the_exit_code_on() -> None:
    done = run(*LOCAL, "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 3)


@pytest.mark.parametrize("code", [0, 77, 255])
def test_run_passes_exit_codes_on(code: int) -> None:
    assert run(*LOCAL, "--", "sh", "-c", f"exit {code}").returncode == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_run_of_a_command_that_a_signal_ends(number: signal.Signals) -> None:
    done = run(*LOCAL, "--", "sh", "-c", f"echo before; kill -{number.value} $$")
    assert (done.stdout, done.returncode) == ("before\n", 128 + number)


def test_files_that_cannot_be_read_are_named(directory: Path) -> None:
    missing, config = directory / "missing", directory / "service.toml"
    config.write_text(f'[tls]\ncertificate = "{missing}"\nkey = "{missing}"\n')
    for option in (missing, config):
        done = run("serve", "--address", "127.0.0.1:0", "--config", str(option))
        assert done.stderr == f"agentic-isolation: {missing}: No such file or directory\n"
        assert done.returncode == 125


def test_run_with_a_timeout() -> None:
    """The tree is gone, and what was printed before is there."""
    mark = new_mark()
    done = run(*LOCAL, "--timeout", "1.5", "--", *tree(mark))
    assert (done.stdout, done.returncode) == ("ready\n", 124)
    assert not mentioning(mark)


def test_run_passes_arguments_on_as_they_are() -> None:
    arguments = ["--help", "-e", "a b", "", "*", "$HOME", "'\"", "--", "ä\n"]
    done = run(*LOCAL, "--", "printf", "<%s>", *arguments)
    assert done.stdout == "".join(f"<{argument}>" for argument in arguments)


def test_run_passes_bytes_on_as_they_are() -> None:
    done = run(*LOCAL, "--", "printf", r"\377\000\n\303", text=False)
    assert done.stdout == b"\xff\0\n\xc3"


def test_run_shows_output_when_it_is_printed() -> None:
    """The first line is there while the command waits for what comes after it."""
    mark = new_mark()
    with started(*LOCAL, "--", "sh", "-c", f"echo first; sleep {mark}") as program:
        assert program.line() == "first\n"
        assert program.process.poll() is None
        assert mentioning(f"sleep {mark}")


def test_run_with_environment_and_working_directory() -> None:
    line = 'echo "$A|$B|$UNSET"; pwd'
    done = run(*LOCAL, "-e", "A=one", "--env", "B=two=2 ", "--workdir", "/srv/app", "--", "sh", "-c", line)
    assert done.stdout.splitlines()[0] == "one|two=2 |"
    assert done.returncode == 0


def test_run_with_files(directory: Path) -> None:
    (directory / "script.py").write_text("print(open('data/numbers.txt').read())")
    (directory / "numbers").write_bytes(b"1 2 3")
    files = ("--file", "script.py", "-f", "numbers:data/numbers.txt")
    done = run(*LOCAL, *files, "--", "python3", "script.py", cwd=directory)
    assert (done.stdout, done.returncode) == ("1 2 3\n", 0)


def test_run_with_standard_input() -> None:
    assert run(*LOCAL, "--stdin", "--", "cat", input="typed\n").stdout == "typed\n"
    assert run(*LOCAL, "--", "cat", input="typed\n").stdout == ""


def test_standard_input_that_is_too_long() -> None:
    """It need not be read to its end, which there may be none of."""
    line = 'ulimit -v 8000000; exec "$@" --stdin -- cat < /dev/zero'
    done = subprocess.run(
        ["sh", "-c", line, "sh", sys.executable, "-m", "agentic_isolation_service", *LOCAL],
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout) == (125, "")
    assert re.fullmatch(r"agentic-isolation: command\.stdin: [0-9]+ bytes, more than 1048576; .*\n", done.stderr)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--provider", "nowhere", "--", "true"), "there is no provider 'nowhere'"),
        (("--provider", "local", "--", "no-such-program"), "no-such-program"),
        (("--provider", "local", "--image", "python:3.12", "--", "true"), "image"),
        (("--provider", "local", "--workdir", "here", "--", "true"), "working_dir"),
        (("--provider", "local", "--timeout", "0", "--", "true"), "timeout"),
        (("--provider", "local", "--target", "unix:/nowhere.sock", "--", "true"), "nowhere.sock"),
        (("--", "true"), "no-engine.sock"),
    ],
    ids=["provider", "program", "image", "workdir", "timeout", "target", "docker"],
)
def test_failure_of_our_own(arguments: tuple[str, ...], words: str) -> None:
    """Exit code 125 and one line that helps, as `docker run`; never a traceback."""
    done = run("run", *arguments, environment={"DOCKER_HOST": "unix:///no-engine.sock"})
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("agentic-isolation: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--provider", "local"),
        ("--env", "novalue", "--", "true"),
        ("--file", "/no/such/file", "--", "true"),
        ("--timeout", "soon", "--", "true"),
    ],
    ids=["nothing", "no command", "env", "file", "timeout"],
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    done = run("run", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: agentic-isolation run" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("run", "--provder", "local", "--", "true"), "--provder"),
        (("run", "--provider", "local", "--imgae=x", "true"), "--imgae"),
        (("run", "-x", "true"), "-x"),
        (("exec", "--wrkdir", "/tmp", "ws-1", "true"), "--wrkdir"),
    ],
    ids=["run", "with a value", "short", "exec"],
)
def test_options_that_there_are_not(arguments: tuple[str, ...], option: str) -> None:
    """They are neither the command nor the workspace."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = (line for line in done.stderr.splitlines() if "No such option" in line)
    assert option in line


def test_options_of_the_command() -> None:
    assert run(*LOCAL, "printf", "%s ", "--provder", "-e", "--", "-x").stdout == "--provder -e -- -x "
    assert 'no program "--provder"' in run(*LOCAL, "--", "--provder").stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_to_run_cleans_up(number: signal.Signals) -> None:
    """The fixtures look for directories, guests and commands that are left."""
    mark = new_mark()
    with started(*LOCAL, "--", *tree(mark)) as program:
        assert program.line() == "ready\n"
        assert len(mentioning(mark)) >= TREE_SIZE
        program.process.send_signal(number)
        assert program.wait() == 128 + number
        assert "Traceback" not in program.errors()
    assert not mentioning(mark)


def test_interrupt_before_anything_was_begun(directory: Path) -> None:
    """While a command's modules are loaded, here by one of them that is slow to: no exit code that is a command's."""
    (directory / "rich").mkdir()
    (directory / "rich" / "__init__.py").write_text("print('loading', flush=True)\nimport time\ntime.sleep(60)")
    with started("ls", environment={"PYTHONPATH": str(directory)}) as program:
        assert program.line() == "loading\n"
        program.process.send_signal(signal.SIGINT)
        assert program.wait() == -signal.SIGINT
        assert program.errors() == ""


def test_reader_that_goes_ends_run() -> None:
    """`agentic-isolation run … | head -1`."""
    mark = new_mark()
    with started(*LOCAL, "--", "sh", "-c", f"while echo {mark}; do sleep 0.05; done") as program:
        assert program.line() == f"{mark}\n"
        assert program.process.stdout is not None
        program.process.stdout.close()
        assert program.wait() != 0
        assert "Traceback" not in program.errors()
    assert not mentioning(mark)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--label", ("ls", "-l", "x")),
        ("--label", ("top", "--once", "-l", "x")),
        ("--env", ("run", "-e", "x", "true")),
        ("--env", ("exec", "-e", "x", "ws-none", "true")),
        ("--env", ("shell", "-e", "x", "ws-none")),
    ],
    ids=lambda it: it[0] if isinstance(it, tuple) else "",
)
def test_option_that_is_no_pair_is_named(option: str, words: tuple[str, ...]) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert f"Invalid value for {option}: 'x' is not NAME=VALUE" in done.stderr


def test_exit_code_without_a_reader_is_no_commands() -> None:
    """As other programs have it in a pipeline: 128 + SIGPIPE; 1 would be that of a command such as grep."""
    with started(*LOCAL, "--", "sh", "-c", "while echo line; do sleep 0.05; done") as program:
        assert program.line() == "line\n"
        assert program.process.stdout is not None
        program.process.stdout.close()
        assert program.wait() == 128 + signal.SIGPIPE
        assert program.errors() == ""


def test_agent_streams_its_events_as_they_happen() -> None:
    """`make demo`: each event arrives when it happens, in order, and the last one says that the agent is done."""
    arrivals, events = [], []
    file = str(CHECKOUT / "examples" / "agent.py")
    with started(
        *LOCAL, "--env", "AGENT_THINKING_SECONDS=0.1", "-f", file, "--", "python3", "-u", "agent.py"
    ) as program:
        while line := program.line():
            arrivals.append(time.monotonic())
            events.append(json.loads(line))
        assert program.wait() == 0
        assert program.errors() == ""
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[0]["type"] == "plan"
    assert events[-1]["type"] == "final"
    assert events[-1]["success"] is True
    calls = [arrival for arrival, event in zip(arrivals, events, strict=True) if event["type"] == "tool_call"]
    assert len(calls) >= 8
    # It thinks for 0.1 s before each call: had the lines been held back, they would have arrived together.
    assert all(later > earlier for earlier, later in itertools.pairwise(calls))
    assert calls[-1] - calls[0] >= 0.05 * (len(calls) - 1)


def test_workspaces_of_a_service(service: ServedProcess) -> None:
    target = ("--target", service.target)
    mark = new_mark()
    with started("run", *target, "--provider", "local", "--", "sh", "-c", f"echo $PWD; sleep {mark}") as program:
        program.line()
        (listed,) = json.loads(run("ls", *target, "--json").stdout)
        workspace = listed["id"]
        assert (listed["provider"], listed["state"], listed["working_dir"]) == ("local", "ready", "/workspace")

        table = run("ls", *target).stdout.splitlines()
        assert table[0].split()[:3] == ["WORKSPACE", "PROVIDER", "STATE"]
        assert table[1].split()[:3] == [workspace, "local", "ready"]
        assert json.loads(run("ls", *target, "--json", "--label", "no=such").stdout) == []

        described = json.loads(run("info", *target, workspace, "--json").stdout)
        assert described["id"] == workspace
        assert re.search(rf"^workspace +{workspace}$", run("info", *target, workspace).stdout, re.MULTILINE)

        line = 'echo "$A"; cat; echo err >&2; exit 7'
        done = run("exec", *target, "-e", "A=b", "--stdin", workspace, "--", "sh", "-c", line, input="typed")
        assert (done.stdout, done.stderr, done.returncode) == ("b\ntyped", "err\n", 7)
        assert run("exec", *target, "--timeout", "0.5", workspace, "sleep", "1000").returncode == 124

        assert run("rm", *target, workspace).stdout == f"{workspace}\n"
        assert program.wait() == 125
        assert workspace in program.errors()
    assert json.loads(run("ls", *target, "--json").stdout) == []
    gone = run("rm", *target, workspace)
    assert (gone.returncode, gone.stdout) == (125, "")
    assert workspace in gone.stderr
    assert run("exec", *target, workspace, "true").returncode == 125


def test_removal_goes_on_past_what_is_gone(service: ServedProcess) -> None:
    target = ("--target", service.target)
    with started("run", *target, "--provider", "local", "--", "sh", "-c", f"echo $PWD; sleep {new_mark()}") as program:
        program.line()
        (listed,) = json.loads(run("ls", *target, "--json").stdout)
        gone = ("ws-" + 20 * "a", "ws-" + 20 * "b")
        done = run("rm", *target, gone[0], listed["id"], gone[1])
        assert (done.returncode, done.stdout) == (125, f"{listed['id']}\n")
        assert [name for name in gone if name in done.stderr] == list(gone)
        assert program.wait() == 125
        program.errors()


def test_target_from_the_environment(service: ServedProcess) -> None:
    environment = {"AGENTIC_ISOLATION_TARGET": service.target}
    mark = new_mark()
    with started(
        *LOCAL, "--", "sh", "-c", f'echo "<$AGENTIC_ISOLATION_TARGET>"; sleep {mark}', environment=environment
    ) as it:
        assert it.line() == "<>\n", "a workspace gets nothing of our environment"
        (listed,) = json.loads(run("ls", "--json", environment=environment).stdout)
        assert listed["provider"] == "local"


def test_info_without_a_service() -> None:
    described = json.loads(run("info", "--json").stdout)
    assert described["version"] == __version__
    providers = {provider["name"]: provider for provider in described["providers"]}
    assert providers["local"]["available"] is True
    assert providers["local"]["isolation"]["runtime"] == "local"
    text = run("info").stdout
    assert __version__ in text
    assert "local: available" in text


def test_info_about_a_workspace_needs_a_service() -> None:
    done = run("info", "ws-any")
    assert done.returncode == 2
    assert "--target" in done.stderr


def test_serve_logs_json(directory: Path) -> None:
    options = ("--address", f"unix:{directory}/grpc.sock", "--log-json", "--log-level", "debug")
    with ServedProcess(*options) as service:
        run("run", "--target", service.target, "--provider", "local", "-e", "SECRET=hush", "--", "true")
        service.process.terminate()
        assert service.process.wait(20) == 0
        events = [json.loads(line) for line in service.log.splitlines()]
    created = next(event for event in events if event["event"] == "workspace created")
    assert created["workspace_id"].startswith("ws-")
    assert "hush" not in json.dumps(events)


@pytest.mark.parametrize("command", ["run", "exec", "ls", "info", "rm", "serve", "doctor", "health"])
def test_help(command: str) -> None:
    done = run(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: agentic-isolation {command} ")
    assert command in run("--help").stdout


def test_help_for_tokens_shows_lines_that_can_be_copied() -> None:
    lines = [line.strip() for line in run("token", "--help").stdout.splitlines()]
    assert "umask 077; agentic-isolation token ci > ci.token" in lines
    assert "\\b" not in lines


def test_version_of_the_installed_program() -> None:
    program = Path(sys.executable).with_name("agentic-isolation")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == f"agentic-isolation, version {__version__}\n"
