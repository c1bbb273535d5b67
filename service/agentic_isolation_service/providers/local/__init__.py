"""The local provider: a directory and a guest per workspace, on this host, without isolation. For development."""

from agentic_isolation_service.providers.local.provider import LocalProvider

__all__ = ["LocalProvider"]
