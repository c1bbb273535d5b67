"""`shell`, in a real terminal: what people do there works as it does on the machine itself."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator

import pytest

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

        terminal.type("clear; cat\r")
        terminal.expect("clear; cat")
        terminal.type("typed\r")
        terminal.until(lambda: terminal.text().count("typed") == 2, "cat has answered")
        terminal.type("\x1a")
        terminal.expect("Stopped")
        terminal.type("jobs\r")
        terminal.until(lambda: terminal.text().count("Stopped") == 2, "jobs lists it")
        terminal.type("fg\r")
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
        terminal.type("stty -echo; clear\r")
        terminal.until(lambda: terminal.text() == "ready>", "nothing is echoed")
        before = len(terminal.output)
        terminal.type("seq 200000; echo end of it\r")
        terminal.expect("end of it")
        printed = bytes(terminal.output[before:]).decode()
        assert [line for line in printed.split("\r\n") if line.isdigit()] == [str(n) for n in range(1, 200001)]
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
            terminal.type("X=kept; echo before\x10\x15echo set\r")
            terminal.expect("set")
            terminal.type("\x10\x11")
            assert terminal.wait() == 0
            assert terminal.modes() == terminal.settings
            terminal.expect("Detached; go on with: agentic-isolation shell")
            process = terminal.text().split()[-1]
        (listed,) = json.loads(run("ps", *target, "--json", workspace).stdout)
        assert (listed["id"], listed["termination"], listed["detached"]) == (process, None, True)
        again = ("shell", *target, workspace, "--process", process)
        with Terminal(*again, columns=90) as terminal:
            terminal.expect("ready>")
            terminal.type("clear; stty size; echo $X\r")
            terminal.expect("24 90\nkept")
            refused = Terminal(*again)
            with refused:
                refused.expect("--take-input")
                assert refused.wait() == 125
            with Terminal(*again, "--take-input") as other:
                other.expect("kept")
                other.type("exit 5\r")
                assert other.wait() == 5
            assert terminal.wait() == 5
    done = run("shell", *target, workspace, "--process", "p-none")
    assert done.returncode == 125


def test_leaving_a_detachable_one_by_a_signal_kills_it(service: ServedProcess) -> None:
    mark = new_mark()
    with workspace_of(service) as workspace:
        with at_prompt("--target", service.target, "-d", workspace) as terminal:
            terminal.type(f"sleep {mark}\r")
            terminal.until(lambda: bool(mentioning(f"sleep {mark}")), "it runs")
            terminal.signal(signal.SIGTERM)
            assert terminal.wait() == 128 + signal.SIGTERM
        assert not mentioning(mark)


@contextlib.contextmanager
def workspace_of(service: ServedProcess) -> Iterator[str]:
    """The id of a workspace that lives until this is left."""
    with started("run", "--target", service.target, *LOCAL, "--", "sh", "-c", "echo here; sleep 1000") as program:
        assert program.line() == "here\n"
        (listed,) = json.loads(run("ls", "--target", service.target, "--json").stdout)
        yield listed["id"]
