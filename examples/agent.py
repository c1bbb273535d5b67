"""A complete agent loop, to be run *inside* a workspace: `python3 -u agent.py`.

It gets a task, and then thinks, acts and observes until the task is done: it writes code into its working directory,
runs the tests it wrote, reads their errors, repairs the code and uses it on real data. Each step is one JSON object on
one line of standard output, flushed at once, so that whoever started the workspace can watch it work.

The "model" is a small scripted policy and not a network call, so that the example needs neither a key nor a package.
But it decides on what really happened: its first draft has three defects, only the output of the tests tells it about
them, and it gives up on an error that it does not know.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TASK = "Write a module that adds up durations such as '1h 30m', test it, and report the total of timesheet.txt."
THINKING_SECONDS = float(os.environ.get("AGENT_THINKING_SECONDS", "0.25"))
MAXIMUM_STEPS = 20

DRAFT = '''\
UNITS = {"h": 3600, "m": 60, "s": 1}


def seconds(text):
    """The length of a duration such as '1h 30m'."""
    total = 0
    match = re.match(r"(\\d+)([hms])", text)
    total += int(match[1]) * UNITS[match[2]]
    return total


if __name__ == "__main__":
    import json, sys
    total = sum(seconds(line) for line in open(sys.argv[1]) if line.strip())
    print(json.dumps({"total_seconds": total, "total_hours": round(total / 3600, 2)}))
'''

TESTS = """\
import unittest

from durations import seconds


class DurationsTest(unittest.TestCase):
    def test_one_unit(self):
        self.assertEqual(seconds("45s"), 45)

    def test_several_units(self):
        self.assertEqual(seconds("1h 30m"), 5400)

    def test_nonsense_is_refused(self):
        with self.assertRaises(ValueError):
            seconds("soon")


if __name__ == "__main__":
    unittest.main()
"""

TIMESHEET = "1h 30m\n45m\n2h\n20m 30s\n"


class Emitter:
    """Numbers the events and writes each one as a line, at once."""

    def __init__(self) -> None:
        self.count = 0

    def emit(self, kind: str, **fields: Any) -> None:
        self.count += 1
        print(json.dumps({"type": kind, "seq": self.count, **fields}, ensure_ascii=False), flush=True)


class Tools:
    """What the agent can do. Every tool returns what was observed, and never raises for what the world did."""

    def write_file(self, path: str, content: str) -> dict[str, Any]:
        Path(path).write_text(content, encoding="utf-8")
        return {"ok": True, "bytes": len(content.encode())}

    def read_file(self, path: str) -> dict[str, Any]:
        try:
            return {"ok": True, "content": Path(path).read_text(encoding="utf-8")}
        except OSError as error:
            return {"ok": False, "error": str(error)}

    def run(self, *argv: str) -> dict[str, Any]:
        # A fresh interpreter must see a repaired file even where the clock is coarser than the agent is fast.
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable if word == "python3" else word for word in argv]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=environment)
        return {"ok": done.returncode == 0, "exit_code": done.returncode, "stdout": done.stdout, "stderr": done.stderr}


class Policy:
    """The scripted model: looks at the last observation and names the next action."""

    RUN_TESTS = ("run", ["python3", "-m", "unittest", "test_durations"])

    def __init__(self) -> None:
        self.source = DRAFT
        self.queue: list[tuple[str, str, list[str]]] = [
            ("I start with a first draft.", "write_file", ["durations.py", DRAFT]),
            ("Tests tell me what the draft is worth.", "write_file", ["test_durations.py", TESTS]),
            ("Let me see.", *self.RUN_TESTS),
        ]
        self.repairs = 0

    def next(self, tool: str, argv: list[str], seen: dict[str, Any]) -> tuple[str, str, list[str]] | None:
        """The next (thought, tool, arguments), or None when there is nothing left to do."""
        if self.queue:
            return self.queue.pop(0)
        if (tool, argv) == self.RUN_TESTS:
            if not seen["ok"]:
                return self.repair(seen["stderr"])
            self.queue = [
                ("And I use it on them.", "run", ["python3", "durations.py", "timesheet.txt"]),
            ]
            return "The tests pass. Now the real data.", "write_file", ["timesheet.txt", TIMESHEET]
        if tool == "run" and seen["ok"]:
            return "The answer goes into a file.", "write_file", ["report.json", seen["stdout"]]
        if tool == "write_file" and argv[0] == "report.json":
            return "I read it back before I say that I am done.", "read_file", ["report.json"]
        return None

    def repair(self, error: str) -> tuple[str, str, list[str]] | None:
        """A change of the code that answers this error, or None when it is none that the policy knows."""
        undefined = re.search(r"NameError: name '(\w+)' is not defined", error)
        if undefined and f"import {undefined[1]}\n" not in self.source:
            thought = f"`{undefined[1]}` is used but never imported."
            changed = f"import {undefined[1]}\n\n{self.source}"
        elif "FAIL: test_several_units" in error:
            thought = "Only the first unit is counted: every part of the text has to be."
            changed = self.source.replace(
                '    match = re.match(r"(\\d+)([hms])", text)\n    total += int(match[1]) * UNITS[match[2]]\n',
                '    for number, unit in re.findall(r"(\\d+)([hms])", text):\n'
                "        total += int(number) * UNITS[unit]\n",
            )
        elif "test_nonsense_is_refused" in error:
            thought = "Text that is no duration has to be refused, not taken for zero."
            changed = self.source.replace(
                "    total = 0\n",
                '    if not re.fullmatch(r"(\\s*\\d+[hms])+\\s*", text):\n'
                '        raise ValueError(f"not a duration: {text!r}")\n'
                "    total = 0\n",
            )
        else:
            return None
        if changed == self.source:
            return None
        self.source = changed
        self.repairs += 1
        self.queue = [("Does that help?", *self.RUN_TESTS)]
        return thought, "write_file", ["durations.py", changed]


def brief(argv: list[str]) -> list[str]:
    """Arguments as they are told to a watcher: the content of a file as its size."""
    return [word if len(word) <= 80 and "\n" not in word else f"<{len(word.encode())} bytes>" for word in argv]


def observation(seen: dict[str, Any]) -> dict[str, Any]:
    """A result as it is told to a watcher: of an error output, the lines that say what is wrong."""
    told = dict(seen)
    if "stderr" in told:
        told["stderr"] = [line for line in told["stderr"].splitlines() if re.match(r"OK|FAILED|\w+Error", line)]
    return told


def main() -> int:
    emitter, tools, policy = Emitter(), Tools(), Policy()
    emitter.emit("plan", task=TASK, steps=["draft the module", "test it", "repair until it passes", "use it", "report"])
    tool, argv, seen = "", list[str](), dict[str, Any]()
    for _ in range(MAXIMUM_STEPS):
        time.sleep(THINKING_SECONDS)
        decision = policy.next(tool, argv, seen)
        if decision is None:
            break
        thought, tool, argv = decision
        emitter.emit("tool_call", thought=thought, tool=tool, arguments=brief(argv))
        seen = getattr(tools, tool)(*argv)
        emitter.emit("tool_result", tool=tool, **observation(seen))
    answer = json.loads(seen["content"]) if tool == "read_file" and seen["ok"] else None
    success = answer is not None
    emitter.emit("final", success=success, answer=answer, repairs=policy.repairs, files=sorted(os.listdir()))
    return 0 if success else 1


if __name__ == "__main__":
    sys.exit(main())
