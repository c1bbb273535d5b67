"""`python -m benchmarks`: takes the measurements, prints a table, and writes it as JSON to build/bench/."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from benchmarks import machine, render, report
from benchmarks.measures import MEASURES
from benchmarks.roster import EngineHere, roster
from benchmarks.scale import SCALES, Scale
from benchmarks.suite import Suite, matches
from benchmarks.worker_process import CHECKOUT

_DIRECTORY = CHECKOUT / "build" / "bench"
_OF_QUICK = ("subprocess/*", "pipe/*", "echo/*", "served/*", "embedded/runc", "embedded/local", "pool/*", "aiodocker/*")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    run = commands.add_parser("run", help="take the measurements (the default)")
    run.add_argument("--quick", action="store_const", const="quick", dest="scale", help="in two minutes, without peers")
    run.add_argument("--smoke", action="store_const", const="smoke", dest="scale", help="hardly anything of each")
    run.add_argument("--only", action="append", metavar="PATTERN", help=f"these measures: {', '.join(MEASURES)}")
    run.add_argument(
        "--contenders", action="append", metavar="PATTERN", help="these contenders, for example 'served/*'"
    )
    run.add_argument(
        "--profile",
        action="store_true",
        help="write flame graphs in place of figures, of served/* in `execute` unless others are named",
    )
    run.add_argument("--json", type=Path, metavar="FILE", help="where to write the document (build/bench/TIME.json)")
    run.set_defaults(scale="full")
    rendered = commands.add_parser("render", help="print documents, of one run or of parts of one, as Markdown")
    rendered.add_argument("files", type=Path, nargs="+")
    rendered.add_argument("--into", type=Path, metavar="PAGE", help="put it between the markers of a page")
    rendered.add_argument("--summary", action="store_true", help="only what README.md shows")
    shown = commands.add_parser("show", help="print documents as a table")
    shown.add_argument("files", type=Path, nargs="+")
    arguments = parser.parse_args(_with_default(sys.argv[1:]))
    if arguments.command == "render":
        text = render.markdown(report.read(arguments.files), summary=arguments.summary)
        if arguments.into is None:
            print(text)
        else:
            render.put_into(arguments.into, text)
    elif arguments.command == "show":
        report.show(report.read(arguments.files), Console(width=160))
    else:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            asyncio.run(_run(arguments))
        except KeyboardInterrupt:
            sys.exit(130)


def _with_default(arguments: Sequence[str]) -> list[str]:
    if arguments and arguments[0] in ("run", "render", "show", "-h", "--help"):
        return list(arguments)
    return ["run", *arguments]


async def _run(arguments: argparse.Namespace) -> None:
    name = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    engine = await machine.find_engine()
    if engine is None:
        print("There is no Docker Engine: set DOCKER_HOST to measure containers.", file=sys.stderr)
    if arguments.profile:
        contenders = arguments.contenders or ("served/*",)
        async with _suite(engine, name, contenders, SCALES[arguments.scale]) as suite:
            only = arguments.only or ["execute"]
            await suite.profile([measure for measure in MEASURES if matches(measure, only)], _DIRECTORY / name)
        _say("")
        return
    await _measure(arguments, name, engine)


async def _measure(arguments: argparse.Namespace, name: str, engine: EngineHere | None) -> None:
    began = time.monotonic()
    scale = SCALES[arguments.scale]
    about = {
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": _command(arguments),
        "scale": arguments.scale,
        "scale_settings": asdict(scale),
        "machine": machine.machine_description(),
        "engine": await machine.engine_description(engine),
    }
    contenders = arguments.contenders or (("*",) if arguments.scale == "full" else _OF_QUICK)
    async with _suite(engine, name, contenders, scale) as suite:
        await suite.run({name: found for name, found in MEASURES.items() if matches(name, arguments.only or ["*"])})
    _say("")
    took = time.monotonic() - began
    path = arguments.json or _DIRECTORY / f"{name}.json"
    document = report.document(suite.results, about | {"seconds": round(took)})
    report.write(path, document)
    report.show(document, Console(width=160))
    print(f"\n{took:.0f} s; written to {path}, what the contenders said to {_log(name)}")


@contextlib.asynccontextmanager
async def _suite(
    engine: EngineHere | None, name: str, contenders: Sequence[str], scale: Scale
) -> AsyncGenerator[Suite, None]:
    """Starts a run's contenders, and removes at the end whatever is left of them."""
    _DIRECTORY.mkdir(parents=True, exist_ok=True)
    entries = [entry for entry in roster(engine, name) if matches(entry.name, contenders)]
    try:
        async with Suite(entries, scale, _log(name), _say) as suite:
            await suite.start()
            yield suite
    finally:
        if engine is not None:
            await machine.sweep(engine, name)


def _command(arguments: argparse.Namespace) -> str:
    """Returns how to repeat it."""
    options = [] if arguments.scale == "full" else [f"--{arguments.scale}"]
    options += [f"--only {pattern}" for pattern in arguments.only or ()]
    options += [f"--contenders {pattern}" for pattern in arguments.contenders or ()]
    return f'make bench BENCH_ARGS="{" ".join(options)}"' if options else "make bench"


def _log(name: str) -> Path:
    return _DIRECTORY / f"{name}.log"


def _say(words: str) -> None:
    """Tells how far it is: on a terminal in one line, which the next one replaces."""
    end = "\r" if sys.stderr.isatty() else "\n"
    clear = "\x1b[K" if sys.stderr.isatty() else ""
    if words or clear:
        print(f"{clear}{words}", file=sys.stderr, end=end, flush=True)


if __name__ == "__main__":
    main()
