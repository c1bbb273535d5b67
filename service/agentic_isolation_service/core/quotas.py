"""How much tenants, and all of them together, may have at a time."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Self

from agentic_isolation.errors import QuotaError
from agentic_isolation.models import ResourceLimits, WorkspaceConfig

SERVICE = "service"
"""The subject of what is bounded for all together."""
_MINUTE = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What somebody may have; None: as much as there is."""

    workspaces: int | None = None
    """Workspaces at a time."""
    memory_bytes: int | None = None
    """The sum of its workspaces' limits."""
    cpu_millis: int | None = None
    """The sum of its workspaces' limits, in thousandths of a CPU."""
    creates_per_minute: int | None = None
    """Workspaces that are made within any minute."""
    commands: int | None = None
    """Calls at a time that have started a command: of Execute, Stream and Attach."""
    streams: int | None = None
    """Calls at a time of Stream, Attach, WatchDirectory and PullImage, those that resume included."""
    output_bytes_per_second: int | None = None
    """What is sent to its clients; more is held back."""
    message_bytes: int | None = None
    """Size of one request message."""

    def over(self, other: Quota) -> Quota:
        """Returns this quota, with those of `other` where it has none."""
        values = {name.name: getattr(self, name.name) for name in fields(self)}
        return Quota(
            **{name: getattr(other, name) if value is None else value for name, value in values.items()}
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Quotas:
    """All quotas of a service."""

    service: Quota = Quota()
    """For everybody together."""
    default: Quota = Quota()
    """For each tenant."""
    of_tenants: Mapping[str, Quota] = field(default_factory=dict)
    """For tenants that have their own; what these leave out is as in `default`."""

    @property
    def bound_anything(self) -> bool:
        """Whether there is any quota."""
        return any(quota != Quota() for quota in (self.service, self.default, *self.of_tenants.values()))

    def for_tenant(self, tenant: str) -> tuple[tuple[str, Quota], ...]:
        """Returns the quotas that hold for a tenant, each with its subject; of the empty tenant only the service's."""
        if not tenant:
            return ((SERVICE, self.service),)
        own = self.of_tenants.get(tenant)
        quota = self.default if own is None else own.over(self.default)
        return (f"tenant:{tenant}", quota), (SERVICE, self.service)


UNBOUND = Quotas()
"""Of a service without quotas."""


@dataclass(frozen=True, slots=True)
class Commitment:
    """What is promised to workspaces, whether they use it or not."""

    workspaces: int = 0
    memory_bytes: int = 0
    cpu_millis: int = 0

    def __add__(self, other: Commitment) -> Self:
        return type(self)(
            self.workspaces + other.workspaces,
            self.memory_bytes + other.memory_bytes,
            self.cpu_millis + other.cpu_millis,
        )

    def __sub__(self, other: Commitment) -> Self:
        return type(self)(
            self.workspaces - other.workspaces,
            self.memory_bytes - other.memory_bytes,
            self.cpu_millis - other.cpu_millis,
        )

    def excess(self, quota: Quota) -> str | None:
        """Returns what of a quota this is more than, in words; None: it is not."""
        if quota.workspaces is not None and self.workspaces > quota.workspaces:
            return f"{quota.workspaces} workspaces"
        if quota.memory_bytes is not None and self.memory_bytes > quota.memory_bytes:
            return f"{quota.memory_bytes} bytes of memory for its workspaces"
        if quota.cpu_millis is not None and self.cpu_millis > quota.cpu_millis:
            return f"{quota.cpu_millis} cpu_millis for its workspaces"
        return None


def exceeded(subject: str, bound: str, way_out: str, retry_after: float) -> QuotaError:
    """Returns the error for what would be more than a bound. What all have together is for nobody of them to know."""
    kind = bound.partition(" ")[2]
    what = f"the service has as many as it may: {kind}" if subject == SERVICE else f"{subject} may have {bound}"
    return QuotaError(f"{what}; {way_out}", subject=subject, retry_after=retry_after)


def commitment_of(config: WorkspaceConfig) -> Commitment:
    """Returns what is promised to a workspace of a configuration that leaves nothing out (Provider.with_defaults).

    Raises:
        InvalidArgumentError: A limit is no number or size.
    """
    limits = config.limits or ResourceLimits()
    return Commitment(1, limits.memory_bytes or 0, limits.cpu_millis or 0)


class InUse:
    """How many of something each subject has at a time.

    Args:
        what: They are called in errors.
        retry_after: Seconds after which one of them is likely to have ended.
    """

    def __init__(self, what: str, *, retry_after: float) -> None:
        self._what = what
        self._retry_after = retry_after
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._counts)

    def take(self, bounds: Mapping[str, int]) -> None:
        """Counts one more for each subject, or for none of them.

        Args:
            bounds: How many each of them may have.

        Raises:
            QuotaError: One of them has as many as it may.
        """
        for subject, bound in bounds.items():
            if self._counts[subject] >= bound:
                raise exceeded(subject, f"{bound} {self._what} at a time", "wait for one to end", self._retry_after)
        self._counts.update(bounds.keys())

    def give_back(self, bounds: Mapping[str, int]) -> None:
        """Counts one less for each subject that one was taken for."""
        for subject in bounds:
            self._counts[subject] -= 1
            if not self._counts[subject]:
                del self._counts[subject]


class Rate:
    """How many of something each subject has begun within the last minute. Times are seconds of any clock.

    Args:
        what: They are called in errors.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._begun: dict[str, deque[float]] = {}

    def take(self, bounds: Mapping[str, int], now: float) -> None:
        """Counts one more for each subject, or for none of them.

        Args:
            bounds: How many each of them may begin in a minute.
            now: The time.

        Raises:
            QuotaError: One of them has begun as many as it may.
        """
        for subject, bound in bounds.items():
            begun = self._begun.setdefault(subject, deque())
            while begun and begun[0] <= now - _MINUTE:
                begun.popleft()
            if len(begun) >= bound:
                room_at = begun[-bound] + _MINUTE if bound else now + _MINUTE
                raise exceeded(subject, f"{bound} {self._what} within a minute", "wait", max(room_at - now, 0.001))
        for subject in bounds:
            self._begun[subject].append(now)


class Pace:
    """Lets bytes pass at a rate. Times are seconds of any clock.

    What has not passed for a while may pass at once, up to so much as passes in BURST seconds.

    Args:
        bytes_per_second: The rate.
    """

    BURST = 0.25

    def __init__(self, bytes_per_second: int) -> None:
        self._rate = bytes_per_second
        self._free_at = float("-inf")

    def take(self, size: int, now: float) -> float:
        """Counts bytes that are to pass and returns the seconds to wait before. Who asks first waits less."""
        self._free_at = max(self._free_at, now - self.BURST) + size / self._rate
        return max(self._free_at - now, 0.0)

    def give_back(self, size: int) -> None:
        """Counts bytes no more that were to pass and will not. Who waits already waits no less."""
        self._free_at -= size / self._rate
