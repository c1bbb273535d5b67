"""The Docker provider: a hardened container per workspace, under gVisor where the engine has it."""

from agentic_isolation_service.providers.docker.provider import DockerProvider

__all__ = ["DockerProvider"]
