"""A pseudo-terminal with somebody in front of it: programs run in it, keys are typed, the screen is looked at."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

import pyte

from tests.support.program import python_environment

_MOST_DRAWN = 64 << 10
PATIENCE = 30.0
"""Seconds for what has to appear."""
_PROGRAM = (sys.executable, "-m", "agentic_isolation_service")


class _Screen(pyte.Screen):
    """A screen that answers what programs ask a terminal."""

    def __init__(self, columns: int, rows: int, answer: Callable[[bytes], object]) -> None:
        super().__init__(columns, rows)
        self._answer = answer

    def select_graphic_rendition(self, *attributes: int, private: bool = False) -> None:
        """Leaves out what pyte does not know: the keyboard modes that vim asks for look like colours."""
        if not private:
            super().select_graphic_rendition(*attributes)

    def write_process_input(self, data: str) -> None:
        self._answer(data.encode())


class Terminal:
    """A terminal that the program runs in. Left, it is hung up and the program is killed.

    Args:
        arguments: Of the program.
        columns: Width.
        rows: Height.
        environment: Variables beside those of every test program.
    """

    def __init__(
        self, *arguments: str, columns: int = 80, rows: int = 24, environment: dict[str, str] | None = None
    ) -> None:
        self._master, slave = pty.openpty()
        self.output = bytearray()
        """Everything that was printed."""
        self._drawn = 0
        self._screen = _Screen(columns, rows, lambda data: os.write(self._master, data))
        self._stream = pyte.ByteStream(self._screen)
        self._set_size(columns, rows)
        self.settings = termios.tcgetattr(slave)
        """What it was before anything ran in it."""
        self._slave = slave
        self.process = subprocess.Popen(
            # Not by preexec_fn, which may never come to its end in a program with threads.
            ["setsid", "--ctty", *_PROGRAM, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=python_environment(TERM="xterm-256color", **environment or {}),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"The screen:\n{self.text()}")
        try:
            if self.process.poll() is None:
                self.process.terminate()
                self.wait()
        finally:
            self.process.kill()
            self.process.wait()
            os.close(self._slave)
            os.close(self._master)

    def text(self) -> str:
        """The screen, without what is blank at the ends."""
        self._draw()
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    def lines(self) -> list[str]:
        """The screen, line by line."""
        self._draw()
        return [line.rstrip() for line in self._screen.display]

    def type(self, keys: str) -> None:
        """Presses keys."""
        os.write(self._master, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Gives the window another size, of which the program is told by the kernel."""
        self._draw()
        self._screen.resize(rows, columns)
        self._set_size(columns, rows)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the program alone."""
        self.process.send_signal(number)

    def modes(self) -> list[object]:
        """The settings of the terminal now."""
        return termios.tcgetattr(self._slave)

    def expect(self, text: str) -> None:
        """Waits until a text is on the screen."""
        self.until(lambda: text in self.text(), f"{text!r} is on the screen")

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits, reading what is printed, until a condition holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            left = deadline - time.monotonic()
            assert left > 0, f"it was waited in vain until {what}"
            self._read(min(left, 0.2))

    def wait(self) -> int:
        """Waits for the program's end, reading what it prints, and returns its exit code."""
        self.until(lambda: self.process.poll() is not None, "the program has ended")
        while self._read(0):
            pass
        return self.process.wait()

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], seconds)
        if not ready:
            return False
        data = os.read(self._master, 65536)
        self.output += data
        return bool(data)

    def _draw(self) -> None:
        """Brings the screen up to date; of very much it is only the end that can be seen."""
        news = self.output[max(self._drawn, len(self.output) - _MOST_DRAWN) :]
        self._drawn = len(self.output)
        self._stream.feed(bytes(news))


@contextlib.contextmanager
def at_prompt(*arguments: str, columns: int = 80, rows: int = 24) -> Iterator[Terminal]:
    """Yields a terminal in which `shell` runs a bash that has shown its prompt, which is `ready> `."""
    with Terminal("shell", *arguments, columns=columns, rows=rows) as terminal:
        terminal.until(lambda: terminal.text().endswith(("$", "#")), "there is a prompt")
        terminal.type("PS1='ready''> '; clear\r")
        terminal.expect("ready>")
        yield terminal
