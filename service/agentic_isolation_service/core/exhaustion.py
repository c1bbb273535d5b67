"""Commands that the want of memory has ended where their guest cannot tell.

Under gVisor the host's kernel kills a process of the sandbox. If that is the one in which a command runs, gVisor's own
kernel takes the command for one that has exited, with code 1 and without a word; only the engine is told why.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from agentic_isolation.models import WorkspaceConfig
from agentic_isolation.runs import Termination, TerminationCause
from agentic_isolation_service.core.ports import Place, Provider

Judge = Callable[[Termination], Awaitable[Termination]]
_OF_ITSELF = (TerminationCause.EXITED, TerminationCause.SIGNALED)
_LARGE = 0.5
"""Of the workspace's memory, which a process has had that is suspected of having used it up. Those that are have had
nine tenths and more; others are not kept waiting for what the engine may have to say."""


def judge_of(provider: Provider, place: Place, config: WorkspaceConfig) -> Judge | None:
    """Returns what finds out whether it was the want of memory that has ended a process, and says so by its cause.

    None where nothing is limited.
    """
    limits = provider.with_defaults(config).limits
    limit = None if limits is None else limits.memory_bytes
    if limit is None:
        return None

    async def judge(termination: Termination) -> Termination:
        if termination.cause not in _OF_ITSELF or termination.peak_memory_bytes < _LARGE * limit:
            return termination
        if not await provider.exhausted(place, wait=termination.exit_code != 0):
            return termination
        return replace(termination, cause=TerminationCause.OUT_OF_MEMORY)

    return judge
