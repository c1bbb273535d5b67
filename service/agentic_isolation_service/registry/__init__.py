"""The durable registry: one embedded SQLite database in the state directory."""

from agentic_isolation_service.registry.sqlite import SqliteRegistry

__all__ = ["SqliteRegistry"]
