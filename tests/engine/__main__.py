"""`python -m tests.engine up` and `python -m tests.engine down [--purge]`."""

import argparse
import sys

from tests.engine.engine import down, keep
from tests.engine.errors import EngineError
from tests.engine.packages import say


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.engine", description="A private Docker Engine for tests.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="make it usable: packages, daemon, test images; instant when all is there")
    remove = commands.add_parser("down", help="stop it and its containers; images and archives stay")
    remove.add_argument("--purge", action="store_true", help="remove images, archives and all other state as well")
    arguments = parser.parse_args()
    try:
        if arguments.command == "down":
            down(purge=arguments.purge)
        else:
            engine = keep()
            say(f"Engine {engine.version}, runtimes {' '.join(sorted(engine.runtimes))}; to use it:")
            print(f"export DOCKER_HOST={engine.docker_host}")
    except EngineError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
