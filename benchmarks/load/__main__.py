"""`python -m benchmarks.load`: loads services with calls, prints a table, and writes it as JSON to build/load/."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from benchmarks import machine, report
from benchmarks.containers import LABEL
from benchmarks.load import envoy, ghz
from benchmarks.load import report as load_report
from benchmarks.load.asks import ASKS
from benchmarks.load.run import Plan, take
from benchmarks.render import put_into
from benchmarks.worker_process import CHECKOUT

_DIRECTORY = CHECKOUT / "build" / "load"
_IN_FLIGHT = (1, 8, 32)
_SECONDS = 3.0
_QUICK_SECONDS = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a second of each, in place of three")
    parser.add_argument("--only", choices=sorted(ASKS), action="append", help="ask only this; may be repeated")
    parser.add_argument("--in-flight", type=int, action="append", metavar="N", help="calls at a time; may be repeated")
    parser.add_argument("--no-envoy", action="store_false", dest="envoy", help="straight only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the document (build/load/TIME.json)")
    parser.add_argument("--render", type=Path, metavar="FILE", help="take nothing: print a document as Markdown")
    parser.add_argument("--into", type=Path, metavar="PAGE", help="with --render: put it between a page's markers")
    arguments = parser.parse_args()
    if arguments.render is not None:
        _render(arguments.render, arguments.into)
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        asyncio.run(_run(arguments))
    except KeyboardInterrupt:
        sys.exit(130)


def _render(path: Path, page: Path | None) -> None:
    text = load_report.markdown(json.loads(path.read_text()))
    if page is None:
        print(text)
    else:
        put_into(page, text, begin=load_report.BEGIN, end=load_report.END)


async def _run(arguments: argparse.Namespace) -> None:
    name = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    _DIRECTORY.mkdir(parents=True, exist_ok=True)
    log = _DIRECTORY / f"{name}.log"
    engine = await machine.find_engine()
    asks = [ask for ask in arguments.only or ASKS if engine is not None or ASKS[ask].provider != "docker"]
    if engine is None:
        print("There is no Docker Engine: set DOCKER_HOST to load containers.", file=sys.stderr)
    else:
        os.environ["AGENTIC_ISOLATION_DOCKER_LABELS"] = f"{LABEL}={name}"
    plan = Plan(
        asks=asks,
        in_flight=arguments.in_flight or _IN_FLIGHT,
        seconds=_QUICK_SECONDS if arguments.quick else _SECONDS,
        envoy=arguments.envoy,
    )
    about = {
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"make load{' LOAD_ARGS=--quick' if arguments.quick else ''}",
        "machine": machine.machine_description(),
        "engine": await machine.engine_description(engine),
        "ghz": ghz.version(),
        "envoy": envoy.version(),
        "seconds": plan.seconds,
    }
    try:
        runs = await take(plan, log, lambda words: print(words, file=sys.stderr))
    finally:
        if engine is not None:
            await machine.sweep(engine, name)
    path = arguments.json or _DIRECTORY / f"{name}.json"
    report.write(path, about | {"runs": runs})
    console = Console(width=140)
    console.print(load_report.shown(runs))
    for why in load_report.missing(runs):
        console.print(f"missing: {why}", markup=False)
    print(f"\nwritten to {path}, what the services said to {log}")


if __name__ == "__main__":
    main()
