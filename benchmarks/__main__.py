"""`python -m benchmarks`: runs the measurements and prints a table, or JSON with the machine's description."""

import argparse
import asyncio
import json
import os
import platform

from rich.console import Console
from rich.table import Table

from benchmarks import execute


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each contender is measured, in turn")
    parser.add_argument("--count", type=int, default=200, help="operations per latency measurement")
    parser.add_argument("--seconds", type=float, default=2, help="length of each rate measurement")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    rows = asyncio.run(execute.measure(rounds=arguments.rounds, count=arguments.count, seconds=arguments.seconds))
    figures = execute.report(rows)
    if arguments.json:
        machine = {"machine": platform.machine(), "kernel": platform.release(), "cpus": os.cpu_count()}
        print(json.dumps({"machine": machine, "execute": figures}, indent=2))
        return
    table = Table(
        "CONTENDER", "MEDIAN ms", "P95 ms", *(f"PER SECOND, {n} at once" for n in execute.IN_FLIGHT), box=None
    )
    for name, row in figures.items():
        rates = (f"{row[f'per_second_{n}']:.0f}" for n in execute.IN_FLIGHT)
        table.add_row(name, f"{row['median_ms']:.2f}", f"{row['p95_ms']:.2f}", *rates)
    Console().print(table)
    floor, unary, ours = (figures[row.name]["median_ms"] for row in rows)
    print(f"Execute takes {ours / floor:.2f} times the subprocess,")
    print(f"and {ours / (floor + unary):.2f} times the subprocess and a unary call together.")


if __name__ == "__main__":
    main()
