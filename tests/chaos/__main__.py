"""`python -m tests.chaos`: one chaos run. Exits with 1 when anything was violated, with 3 when there is no engine."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import shutil
import sys
from pathlib import Path

from tests.chaos.engine import own_engine
from tests.chaos.run import run
from tests.chaos.settings import RUNTIMES, Settings
from tests.engine import EngineError
from tests.support.program import CHECKOUT

NO_ENGINE = 3


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Breaks everything, and checks.")
    parser.add_argument("--minutes", type=float, default=3, help="of load and faults (%(default)s)")
    parser.add_argument("--seed", type=int, help="of an earlier run; by default a new one")
    parser.add_argument("--runtime", choices=RUNTIMES, default="both", help="of the workspaces (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    parser.add_argument("--keep", action="store_true", help="keep journals and logs of a good run as well")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else secrets.randbelow(1 << 32)
    evidence = CHECKOUT / "build" / "chaos" / str(seed)
    shutil.rmtree(evidence, ignore_errors=True)
    evidence.mkdir(parents=True)
    settings = Settings(seed=seed, minutes=arguments.minutes, runtime=arguments.runtime, evidence=evidence)
    print(f"seed {seed}", flush=True)
    try:
        with own_engine() as engine:
            report = asyncio.run(run(settings, engine))
    except EngineError as error:
        print(error, file=sys.stderr)
        return NO_ENGINE
    print(report)
    if arguments.json is not None:
        report.write_json(arguments.json)
    if not report.good:
        report.write_contexts()
    elif not arguments.keep:
        shutil.rmtree(evidence)
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
