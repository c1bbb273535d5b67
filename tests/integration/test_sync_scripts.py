"""Scripts that use workspaces without an event loop: interrupted, left without closing, forked. Nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import proc
from tests.support.eventually import eventually
from tests.support.jobs import new_mark
from tests.support.program import announced, python_environment
from tests.support.service import ServedProcess

PREAMBLE = """
import os, threading, time, warnings
from agentic_isolation.sync import Workspace
MARK = os.environ["MARK"]
def local():
    return Workspace.create(provider="local", target="")
"""


class Script:
    """A script that runs as a program and must end by itself, with nothing of it left.

    Args:
        code: It finds the names of PREAMBLE.
    """

    def __init__(self, code: str) -> None:
        self.mark = new_mark()
        self._program = subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + textwrap.dedent(code)],
            env=python_environment(MARK=self.mark),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def interrupt(self) -> None:
        """Sends it what Ctrl-C does, as soon as its command runs."""
        with self._at_fault():
            assert announced(self._program, "the script") == "ready"
            asyncio.run(eventually(lambda: proc.mentioning(self.mark), "the command runs"))
        self._program.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, list[str], list[str]]:
        """Returns its exit code and what it has written to stdout and stderr, by lines."""
        with self._at_fault():
            output, errors = self._program.communicate(timeout=30)
        assert not proc.mentioning(self.mark)
        return self._program.returncode, output.decode().splitlines(), errors.decode().splitlines()

    @contextlib.contextmanager
    def _at_fault(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._program.kill()
            self._program.communicate()
            raise


def test_interrupted_script() -> None:
    script = Script("""
        with local() as ws:
            for line in ws.stream(f"echo ready; sleep {MARK}"):
                print(line, flush=True)
    """)
    script.interrupt()
    code, _, errors = script.end()
    assert code == -signal.SIGINT
    assert errors[-1] == "KeyboardInterrupt"


def test_interrupted_call_dies_and_the_workspace_lives_on() -> None:
    script = Script("""
        with local() as ws:
            print("ready", flush=True)
            try:
                ws.execute(f"sleep {MARK}; touch gone-on")
            except KeyboardInterrupt:
                print(ws.execute(["pgrep", "-f", f"^sleep {MARK}"]).exit_code, ws.file_exists("gone-on"))
    """)
    script.interrupt()
    assert script.end() == (0, ["1 False"], [])


def test_interrupted_creation_leaves_nothing() -> None:
    """At whatever moment: the fixtures look for what is left."""
    script = Script("""
        import signal
        def interrupt(number, frame):
            raise InterruptedError
        signal.signal(signal.SIGALRM, interrupt)
        for number in range(12):
            signal.setitimer(signal.ITIMER_REAL, 0.001 + number * 0.01)
            try:
                local().close()
            except InterruptedError:
                pass
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("agentic-isolation")]
        print(Workspace.list(target=""), threads)
    """)
    assert script.end()[:2] == (0, ["[] []"])


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("", 0),
        ("raise SystemExit(7)", 7),
        ("1 / 0", 1),
        ("threading.Thread(target=ws.execute, args=(f'sleep {MARK}',)).start()", 0),
    ],
    ids=["end", "exit", "error", "thread"],
)
def test_script_that_ends_without_closing(ending: str, code: int) -> None:
    script = Script(f"""
        ws = local()
        stream = ws.stream(f"echo ready; sleep {{MARK}}")
        print(next(stream), ws.info.host_path)
        {ending}
    """)
    ended, output, errors = script.end()
    ready, path = output[0].split()
    assert (ended, ready) == (code, "ready")
    assert not Path(path).exists()
    assert bool(errors) == (code == 1 or "Thread" in ending)


def test_in_a_process_that_was_forked() -> None:
    """Its workspaces are its parent's, and live on."""
    script = Script("""
        warnings.simplefilter("ignore")
        with local() as ws:
            child = os.fork()
            if not child:
                try:
                    ws.execute("true")
                except Exception as error:
                    print(type(error).__name__, "forked" in str(error), "spawn" in str(error), flush=True)
                ws.close()
                raise SystemExit
            os.waitpid(child, 0)
            print(ws.execute("echo $0").stdout, end="")
    """)
    assert script.end()[:2] == (0, ["ClosedError True True", "/bin/sh"])


def test_workspaces_in_a_process_that_was_forked(service: ServedProcess) -> None:
    """They work, but a service's where gRPC was in use just then; there they say so, and do not wait for ever."""
    script = Script(f"""
        import asyncio, signal
        from agentic_isolation import AgenticWorkspace, UnsupportedError
        SERVED = {service.target!r}
        def made(target):
            return Workspace.create(provider="local", target=target)
        async def use(target):
            async with AgenticWorkspace.create(provider="local", target=target):
                return "used"
        def forked():
            child = os.fork()
            if not child:
                signal.alarm(20)
                for target in ("", SERVED):
                    try:
                        print(asyncio.run(use(target)), flush=True)
                        made(target).close()
                    except UnsupportedError as error:
                        print("spawn" in str(error), flush=True)
                os._exit(0)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        warnings.simplefilter("ignore")
        made("").close()
        made(SERVED).close()
        print(forked(), flush=True)
        with made(""):
            print(forked(), flush=True)
        with made(SERVED):
            print(forked(), flush=True)
        print(forked())
    """)
    anywhere, nowhere_else = ["used", "used", "0"], ["used", "True", "0"]
    assert script.end()[:2] == (0, [*anywhere, *anywhere, *nowhere_else, *anywhere])
