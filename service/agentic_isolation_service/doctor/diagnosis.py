"""The whole examination: checks, then attacks under each profile."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from agentic_isolation import IsolationError
from agentic_isolation_service.config import DockerConfig
from agentic_isolation_service.doctor.arena import Arena, DoctorError
from agentic_isolation_service.doctor.attacks import ATTACKS, attempt
from agentic_isolation_service.doctor.checks import check_engine, check_isolation, check_local_guest
from agentic_isolation_service.doctor.findings import Attempt, Check, Diagnosis, ProfileFindings, Status
from agentic_isolation_service.doctor.profiles import GVisor, Profile

Progress = Callable[[str], None]


async def diagnose(
    provider: str, profiles: Sequence[Profile], *, image: str | None, gvisor: GVisor, progress: Progress
) -> Diagnosis:
    """Examines an installation.

    Args:
        provider: "docker" or "local".
        profiles: What to attack; nothing is, where a check has failed.
        image: Image of the workspaces; None: the configured one.
        gvisor: Whether gVisor is asked for.
        progress: Is told what is being done.

    Raises:
        DoctorError: An attack does not work; that says nothing about the isolation.
    """
    docker = DockerConfig.from_environment()
    progress(f"checking {provider}")
    checks = [await check_local_guest()]
    if provider == "docker":
        checks += await check_engine(docker.host, image or docker.image, gvisor)
    findings: list[ProfileFindings] = []
    if all(check.status is not Status.FAILED for check in checks):
        for profile in profiles:
            check, found = await _examine(profile, image, progress)
            checks.append(check)
            findings.append(found)
    return Diagnosis(checks, findings)


async def _examine(profile: Profile, image: str | None, progress: Progress) -> tuple[Check, ProfileFindings]:
    attempts: list[Attempt] = []
    async with Arena(profile, image) as arena:
        begin = time.monotonic()
        progress(f"{profile.name}: making a workspace")
        try:
            isolation = (await arena.shared()).info.isolation
            check = check_isolation(profile, isolation, time.monotonic() - begin)
            for number, attack in enumerate(ATTACKS, start=1):
                progress(f"{profile.name}: {number}/{len(ATTACKS)} {attack.name}")
                attempts.append(await attempt(arena, attack))
        except IsolationError as error:
            if not attempts:
                failed = Check(f"{profile.name} workspace", Status.FAILED, str(error))
                return failed, ProfileFindings(profile.name, None, attempts)
            raise DoctorError(f"no workspace can be made after {attempts[-1].name}: {error}") from error
    return check, ProfileFindings(profile.name, isolation, attempts)
