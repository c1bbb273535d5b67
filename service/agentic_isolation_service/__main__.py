"""`python -m agentic_isolation_service`: the command line."""

from agentic_isolation_service.cli import main

if __name__ == "__main__":
    main()
