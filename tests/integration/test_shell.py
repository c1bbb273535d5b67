"""`shell`, in a real terminal: what people do there works as it does on the machine itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentic_isolation import AgenticWorkspace, SecurityConfig
from tests.integration.cli import run, started
from tests.support.jobs import new_mark
from tests.support.proc import mentioning
from tests.support.service import ServedProcess
from tests.support.terminal import Terminal, at_prompt

LOCAL = ("--provider", "local")


def test_bash_with_job_control() -> None:
    """Ctrl-C, Ctrl-Z, fg, Ctrl-D, sizes, and the exit code; the terminal is as it was in the end."""
    mark = new_mark()
    with at_prompt(*LOCAL) as terminal:
        terminal.type("tty >/dev/null && stty size; echo $TERM\r")
        terminal.expect("24 80\nxterm-256color")
        terminal.resize(100, 30)
        terminal.type("clear; stty size\r")
        terminal.expect("30 100")

        terminal.type(f"clear; sleep {mark}\r")
        terminal.until(lambda: bool(mentioning(f"sleep {mark}")), "it runs")
        terminal.type("\x03")
        terminal.type("echo interrupted $?\r")
        terminal.expect("interrupted 130")

        # The quotes tell what echo prints from the line as it is typed, when bash has not handed the terminal over yet.
        terminal.type("clear; echo cat 'begins'; cat\r")
        terminal.expect("cat begins")
        terminal.type("typed\r")
        terminal.until(lambda: terminal.text().count("typed") == 2, "cat has answered")
        terminal.type("\x1a")
        terminal.expect("Stopped")
        terminal.type("jobs\r")
        terminal.until(lambda: terminal.text().count("Stopped") == 2, "jobs lists it")
        terminal.type("clear; fg\r")
        terminal.until(lambda: terminal.text() == "cat", "it is in the foreground")
        terminal.type("again\r")
        terminal.until(lambda: terminal.text().count("again") == 2, "cat goes on")
        terminal.type("\x04")
        terminal.type("echo cat has ended with $?\r")
        terminal.expect("cat has ended with 0")
        terminal.type("exit 7\r")
        assert terminal.wait() == 7
        assert terminal.modes() == terminal.settings


def test_python_repl() -> None:
    with Terminal("shell", *LOCAL, "--", "python3", "-q") as terminal:
        terminal.expect(">>>")
        terminal.type("import os; os.isatty(0), 6 * 7\r")
        terminal.expect("(True, 42)")
        terminal.type("while True: pass\r\r")
        terminal.expect("...")
        terminal.type("\x03")
        terminal.expect("KeyboardInterrupt")
        terminal.type("exit(3)\r")
        assert terminal.wait() == 3
        assert terminal.modes() == terminal.settings


def test_keys_typed_ahead_paste_and_output_in_bulk() -> None:
    """Nothing is lost or changed in either direction, however much it is."""
    with at_prompt(*LOCAL) as terminal:
        before = len(terminal.output)
        terminal.type("seq 200000; echo end of 'it'\r")
        terminal.until(lambda: b"end of it" in terminal.output, "all was printed")
        printed = bytes(terminal.output[before:]).decode()
        assert re.findall(r"(?<![\d;])(\d+)\r\n", printed) == [str(n) for n in range(1, 200001)]
        terminal.type("clear; cat > pasted\r")
        lines = [f"line {n} of what is pasted, as it is" for n in range(5000)]
        for line in lines:
            terminal.type(f"{line}\n")
        terminal.type("\x04")
        terminal.type("wc -l < pasted\r")
        terminal.expect("5000")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_gives_the_terminal_back(number: signal.Signals) -> None:
    """And nothing of the command is left: the fixtures look for that."""
    mark = new_mark()
    with at_prompt(*LOCAL) as terminal:
        terminal.type(f"sleep {mark}\r")
        terminal.until(lambda: bool(mentioning(f"sleep {mark}")), "it runs")
        assert terminal.modes() != terminal.settings
        terminal.signal(number)
        assert terminal.wait() == 128 + number
        assert terminal.modes() == terminal.settings
    assert not mentioning(mark)


def test_stopped_and_continued_from_outside() -> None:
    """SIGTSTP gives the terminal back; SIGCONT takes it again, with the size that it has by then."""
    with at_prompt(*LOCAL) as terminal:
        terminal.signal(signal.SIGTSTP)
        terminal.until(lambda: terminal.modes() == terminal.settings, "the terminal is given back")
        os.waitpid(terminal.process.pid, os.WUNTRACED)
        terminal.resize(90, 20)
        terminal.signal(signal.SIGCONT)
        terminal.until(lambda: terminal.modes() != terminal.settings, "it is raw again")
        terminal.type("clear; stty size\r")
        terminal.expect("20 90")


def test_shell_without_a_terminal() -> None:
    """Standard input to its end, through plain pipes; outputs apart; the exit code."""
    done = run("shell", *LOCAL, input="echo out\necho err >&2\ntty\nexit 3\n")
    assert (done.stdout, done.stderr, done.returncode) == ("out\nnot a tty\n", "err\n", 3)
    done = run("shell", *LOCAL, "--", "cat", input="x" * 1_000_000)
    assert (len(done.stdout), done.returncode) == (1_000_000, 0)
    assert run("shell", *LOCAL, "-e", "A=b", "--", "sh", "-c", "echo $A").stdout == "b\n"


def test_detached_and_attached_again(service: ServedProcess) -> None:
    """Ctrl-P Ctrl-Q leaves it running; what was printed before is shown, and somebody else's input can be taken."""
    target = ("--target", service.target)
    with workspace_of(service) as workspace:
        with at_prompt(*target, "--detachable", workspace) as terminal:
            terminal.type("X=kept; clear\r")
            terminal.until(lambda: terminal.text() == "ready>", "it is set")
            terminal.type("\x10")
            terminal.expect("ready> X=kept; clear")
            terminal.type("\x15")
            terminal.type("\x10\x11")
            assert terminal.wait() == 0
            assert terminal.modes() == terminal.settings
            terminal.expect("Detached; go on with: agentic-isolation shell")
            process = terminal.text().split()[-1]
        listed = json.loads(run("ps", *target, "--json", workspace).stdout)[-1]
        assert (listed["id"], listed["termination"], listed["detached"]) == (process, None, True)
        again = ("shell", *target, workspace, "--process", process)
        with Terminal(*again, columns=100) as terminal:
            terminal.expect("ready>")
            terminal.type("clear; stty size; echo $X\r")
            terminal.expect("24 100\nkept")
            refused = Terminal(*again, columns=150)
            with refused:
                refused.expect("by --take-input")
                assert refused.wait() == 125
            with Terminal(*again, "--take-input") as other:
                other.expect("kept")
                other.type("exit 5\r")
                assert other.wait() == 5
            assert terminal.wait() == 125
    done = run("shell", *target, workspace, "--process", "p-none")
    assert done.returncode == 125


async def test_service_that_is_killed_and_started_anew(directory: Path) -> None:
    """The shell goes on, with what was typed meanwhile."""
    options = ("--state-dir", str(directory / "state"), "--address")
    with ServedProcess(*options, "127.0.0.1:0") as service:
        target = service.target
        workspace = await AgenticWorkspace.create("local", lease=120, target=target)
        with contextlib.ExitStack() as later:

            def work() -> None:
                with at_prompt("--target", target, workspace.id) as terminal:
                    service.kill()
                    terminal.type("clear; echo typed meanwhile; exit 6\r")
                    later.enter_context(ServedProcess(*options, target))
                    assert terminal.wait() == 6
                    assert "typed meanwhile" in terminal.text()

            await asyncio.to_thread(work)
            await workspace.close()


def test_leaving_a_detachable_one_by_a_signal_kills_it(service: ServedProcess) -> None:
    mark = new_mark()
    with workspace_of(service) as workspace:
        with at_prompt("--target", service.target, "-d", workspace) as terminal:
            terminal.type(f"sleep {mark}\r")
            terminal.until(lambda: bool(mentioning(f"sleep {mark}")), "it runs")
            terminal.signal(signal.SIGTERM)
            assert terminal.wait() == 128 + signal.SIGTERM
        assert not mentioning(mark)


@pytest.mark.docker
async def test_full_screen_programs_in_a_container(service: ServedProcess, security: SecurityConfig) -> None:
    """vim and top, and job control once more: their terminal is the container's kernel's, under gVisor another one."""
    async with AgenticWorkspace.create(security=security, lease=120, target=service.target) as workspace:
        if not (await workspace.execute("command -v vim.tiny && command -v top")).success:
            pytest.skip("the image has no vim and no top")
        await asyncio.to_thread(use_full_screen_programs, service.target, workspace.id)
        assert await workspace.read_file("poem") == b"first\nsecond\n"


def use_full_screen_programs(target: str, workspace: str) -> None:
    with at_prompt("--target", target, workspace) as terminal:
        terminal.type("vim.tiny -u NONE poem\r")
        terminal.expect("~\n~\n~")
        terminal.type("ifirst\rthird\x1b")
        terminal.expect("first\nthird\n~")
        terminal.resize(70, 12)
        terminal.until(lambda: terminal.lines()[1] == "third" and len(terminal.lines()) == 12, "it is drawn anew")
        terminal.type("ccsecond\x1b:wq\r")
        terminal.expect("ready>")

        terminal.type("clear; top -d 1\r")
        terminal.expect("PID USER")
        terminal.type("q")
        terminal.until(lambda: terminal.text().endswith("ready>"), "it has ended")

        terminal.type("clear; sh -c 'echo begun; echo; exec sleep 1000'\r")
        terminal.until(lambda: terminal.text() == "begun", "it runs")
        terminal.type("\x1a")
        terminal.expect("Stopped")
        terminal.type("bg; stty size; kill %1; wait; exit 9\r")
        terminal.expect("12 70")
        assert terminal.wait() == 9
        assert terminal.modes() == terminal.settings


@contextlib.contextmanager
def workspace_of(service: ServedProcess) -> Iterator[str]:
    """The id of a workspace that lives until this is left."""
    with started("run", "--target", service.target, *LOCAL, "--", "sh", "-c", "echo here; sleep 1000") as program:
        assert program.line() == "here\n"
        (listed,) = json.loads(run("ls", "--target", service.target, "--json").stdout)
        yield listed["id"]


def test_help_says_where_a_workspace_is_looked_for() -> None:
    words = " ".join(run("shell", "--help").stdout.split())
    assert "Without it, WORKSPACE is looked for at 127.0.0.1:50051" in words
