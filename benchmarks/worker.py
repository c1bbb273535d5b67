"""A worker: one contender in a process of its own, which takes turns when it is asked to.

`python -m benchmarks.worker MODULE CLASS ARGUMENTS`; ARGUMENTS is a JSON object. Each line of standard input asks for a
measure's turn, each line of the answer is a JSON object: `samples`, or why there are none. When standard input ends, it
removes all that it has made, and ends. What libraries print goes to standard error.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from typing import IO, Any

from benchmarks.contender import Contender, Stage, Unsupported
from benchmarks.measures import MEASURES
from benchmarks.scale import Scale

_LONGEST_REASON = 300


async def main(module: str, name: str, arguments: str) -> None:
    """Serves requests until standard input ends or SIGTERM comes."""
    answers = _answers()
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    requests: asyncio.Queue[bytes] = asyncio.Queue()
    reader = asyncio.create_task(_read(requests, task))
    try:
        contender: Contender = getattr(importlib.import_module(module), name)(**json.loads(arguments))
        async with contender, Stage(contender) as stage:
            _say(answers, {"service_pid": _service_pid(contender)})
            while True:
                _say(answers, await _turn(stage, json.loads(await requests.get())))
    except asyncio.CancelledError:
        pass  # standard input has ended
    except Exception as error:  # noqa: BLE001 - as in a turn
        _say(answers, _refusal(error))
    finally:
        reader.cancel()


def _service_pid(contender: Contender) -> int | None:
    try:
        return contender.service_pid()
    except Unsupported:
        return None


async def _turn(stage: Stage, request: Mapping[str, Any]) -> dict[str, object]:
    try:
        samples = await MEASURES[request["measure"]].turn(stage, Scale(**request["scale"]))
    except Exception as error:  # noqa: BLE001 - products fail in ways of their own, and others go on
        return _refusal(error)
    return {"samples": samples}


def _refusal(error: BaseException) -> dict[str, object]:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, Unsupported):
        return {"unsupported": str(error)}
    return {"failed": f"{type(error).__name__}: {error}"[:_LONGEST_REASON]}


async def _read(requests: asyncio.Queue[bytes], task: asyncio.Task[None]) -> None:
    """Takes requests while turns go on, so that the end of standard input is seen at once."""
    async for line in _lines_of_stdin():
        requests.put_nowait(line)
    task.cancel()


async def _lines_of_stdin() -> AsyncIterator[bytes]:
    stream = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), sys.stdin)
    with contextlib.closing(transport):
        while line := await stream.readline():
            yield line


def _answers() -> IO[str]:
    """Returns standard output, and puts standard error in its place for everything else that runs here."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _say(answers: IO[str], answer: Mapping[str, object]) -> None:
    print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
