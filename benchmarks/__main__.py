"""`python -m benchmarks`: takes the measurements, prints a table, and writes it as JSON to build/bench/."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from benchmarks import machine, render, report
from benchmarks.measures import MEASURES
from benchmarks.results import figures_from_json
from benchmarks.roster import Entry, roster
from benchmarks.scale import SCALES
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
    run.add_argument("--json", type=Path, metavar="FILE", help="where to write the document (build/bench/TIME.json)")
    run.set_defaults(scale="full")
    rendered = commands.add_parser("render", help="print a document as Markdown")
    rendered.add_argument("file", type=Path)
    rendered.add_argument("--summary", action="store_true", help="only what README.md shows")
    shown = commands.add_parser("show", help="print a document as a table")
    shown.add_argument("file", type=Path)
    arguments = parser.parse_args(_with_default(sys.argv[1:]))
    if arguments.command == "render":
        print(render.markdown(json.loads(arguments.file.read_text()), summary=arguments.summary))
    elif arguments.command == "show":
        document = json.loads(arguments.file.read_text())
        report.show(figures_from_json(document), document["missing"], Console(width=160))
    else:
        try:
            asyncio.run(_run(arguments))
        except KeyboardInterrupt:
            sys.exit(130)


def _with_default(arguments: Sequence[str]) -> list[str]:
    if arguments and arguments[0] in ("run", "render", "show", "-h", "--help"):
        return list(arguments)
    return ["run", *arguments]


async def _run(arguments: argparse.Namespace) -> None:
    began, at = time.monotonic(), datetime.now(UTC)
    scale = SCALES[arguments.scale]
    measures = {name: found for name, found in MEASURES.items() if matches(name, arguments.only or ["*"])}
    engine = await machine.find_engine()
    wanted = arguments.contenders or (_OF_QUICK if arguments.scale != "full" else ("*",))
    entries: list[Entry] = [entry for entry in roster(engine) if matches(entry.name, wanted)]
    about = {
        "taken_at": at.isoformat(timespec="seconds"),
        "command": " ".join(["make bench", *(["BENCH_ARGS='" + " ".join(sys.argv[1:]) + "'"] if sys.argv[1:] else [])]),
        "scale": arguments.scale,
        "scale_settings": asdict(scale),
        "machine": machine.machine_description(),
        "engine": await machine.engine_description(engine),
    }
    if engine is None:
        print("There is no Docker Engine: set DOCKER_HOST to measure containers.", file=sys.stderr)
    _DIRECTORY.mkdir(parents=True, exist_ok=True)
    name = at.strftime("%Y%m%dT%H%M%SZ")
    log = _DIRECTORY / f"{name}.log"
    async with Suite(entries, scale, log, _say) as suite:
        await suite.start()
        await suite.run(measures)
    _say("")
    found = report.document(suite.results, about | {"seconds": round(time.monotonic() - began)})
    path = arguments.json or _DIRECTORY / f"{name}.json"
    report.write(path, found)
    report.show(suite.results.figures(), suite.results.missing, Console(width=160))
    print(f"\n{time.monotonic() - began:.0f} s; written to {path}, what the contenders said to {log}")


def _say(words: str) -> None:
    """Tells how far it is: on a terminal in one line, which the next one replaces."""
    end = "\r" if sys.stderr.isatty() else "\n"
    clear = "\x1b[K" if sys.stderr.isatty() else ""
    if words or clear:
        print(f"{clear}{words}", file=sys.stderr, end=end, flush=True)


if __name__ == "__main__":
    main()
