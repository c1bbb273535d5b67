"""`python -m benchmarks`: runs the measurements and prints tables, or JSON with the machine's description."""

import argparse
import asyncio
import json
import os
import platform
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from benchmarks import containers, execute

_COLUMNS = {
    "create": "CREATE ms",
    "execute": "EXEC true ms",
    "p95": "P95 ms",
    "per_second": "PER SECOND, 16 at once",
    "first_byte": "FIRST BYTE ms",
    "bulk": "STDOUT MiB/s",
    "destroy": "DESTROY ms",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each contender is measured, in turn")
    parser.add_argument("--count", type=int, default=200, help="operations per latency measurement")
    parser.add_argument("--seconds", type=float, default=2, help="length of each rate measurement")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    rows = asyncio.run(execute.measure(rounds=arguments.rounds, count=arguments.count, seconds=arguments.seconds))
    figures = execute.report(rows)
    docker = asyncio.run(
        containers.measure(
            rounds=max(1, arguments.rounds // 2), count=max(10, arguments.count // 4), seconds=arguments.seconds
        )
    )
    if arguments.json:
        machine = {"machine": platform.machine(), "kernel": platform.release(), "cpus": os.cpu_count()}
        print(json.dumps({"machine": machine, "execute": figures, "containers": docker}, indent=2))
        return
    _print_execute(figures, [row.name for row in rows])
    _print_containers(docker)


def _print_execute(figures: Mapping[str, Mapping[str, float]], names: list[str]) -> None:
    table = Table(
        "CONTENDER", "MEDIAN ms", "P95 ms", *(f"PER SECOND, {n} at once" for n in execute.IN_FLIGHT), box=None
    )
    for name, row in figures.items():
        rates = (f"{row[f'per_second_{n}']:.0f}" for n in execute.IN_FLIGHT)
        table.add_row(name, f"{row['median_ms']:.2f}", f"{row['p95_ms']:.2f}", *rates)
    Console().print(table)
    floor, unary, ours = (figures[name]["median_ms"] for name in names)
    print(f"Execute takes {ours / floor:.2f} times the subprocess,")
    print(f"and {ours / (floor + unary):.2f} times the subprocess and a unary call together.\n")


def _print_containers(figures: Mapping[str, Mapping[str, float]]) -> None:
    if not figures:
        print("No Docker Engine: set DOCKER_HOST to measure containers.")
        return
    table = Table("CONTENDER", *_COLUMNS.values(), box=None)
    for name, row in figures.items():
        table.add_row(name, *(f"{row[measure]:.1f}" for measure in _COLUMNS))
    Console(width=140).print(table)
    for runtime in ("runc", "runsc"):
        ours, theirs = figures.get(f"agentic-isolation, {runtime}"), figures.get(f"aiodocker exec, {runtime}")
        if ours and theirs:
            print(
                f"{runtime}: a command is {theirs['execute'] / ours['execute']:.1f} times as fast as by exec, "
                f"{ours['per_second'] / theirs['per_second']:.1f} times as many end per second, "
                f"a container takes {ours['create'] / theirs['create']:.2f} times as long to its first command."
            )


if __name__ == "__main__":
    main()
