"""Attacks on the service's own host by symlinks in the workspace: it must neither read nor write through them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from agentic_isolation import AgenticWorkspace, IsolationError
from agentic_isolation_service.doctor.arena import PATIENCE, Arena, DoctorError
from agentic_isolation_service.doctor.findings import Verdict, blocked, not_blocked

_RACE_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class HostFile:
    """A file of the service's host that no workspace may touch."""

    directory: Path
    content: bytes

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.directory / "secret"

    async def damage(self) -> str:
        """Returns what has happened to it, or nothing."""
        names, content = await asyncio.to_thread(
            lambda: (sorted(path.name for path in self.directory.iterdir()), self.path.read_bytes())
        )
        if content != self.content:
            return f"{self.path} on the service's host was overwritten"
        return "" if names == ["secret"] else f"{names} are in {self.directory} on the service's host"


@contextlib.asynccontextmanager
async def host_file() -> AsyncIterator[HostFile]:
    """Makes a file on this host, where the embedded service runs too, and removes it."""
    directory = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="agentic-isolation-doctor-"))
    try:
        made = HostFile(directory, secrets.token_hex(16).encode())
        await asyncio.to_thread(made.path.write_bytes, made.content)
        yield made
    finally:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


async def read_through(arena: Arena) -> Verdict:
    """Reads through symlinks to a file and a directory of the host."""
    async with host_file() as secret, arena.fresh() as workspace:
        await _plant(arena, workspace, secret)
        answers = []
        for path in ("file-link", "dir-link/secret"):
            answer = await _read(workspace, path)
            if answer == secret.content:
                return not_blocked(f"reading {path} gives the content of {secret.path} on the service's host")
            answers.append(f"read {path}: {_words(answer)}")
        return blocked("; ".join(answers))


async def write_through(arena: Arena) -> Verdict:
    """Writes, makes directories and removes through symlinks."""
    async with host_file() as secret, arena.fresh() as workspace:
        await _plant(arena, workspace, secret)
        answers = []
        for what, act in (
            ("write dir-link/new", workspace.write_file("dir-link/new", b"new")),
            ("make dir-link/directory", workspace.files.make_directory("dir-link/directory")),
            ("remove dir-link/secret", workspace.files.remove("dir-link/secret")),
            ("write file-link", workspace.write_file("file-link", b"overwritten")),
            ("remove dir-link/", workspace.files.remove("dir-link/", recursive=True)),
        ):
            try:
                await act
                answers.append(f"{what}: done in the workspace")
            except IsolationError as error:
                answers.append(f"{what}: {error.reason}")
        if not await asyncio.to_thread(secret.path.exists):
            return not_blocked(f"{secret.path} on the service's host is gone")
        damage = await secret.damage()
        return not_blocked(damage) if damage else blocked("; ".join(answers))


async def race(arena: Arena) -> Verdict:
    """Reads and writes a path that the workload makes a file and a symlink to the host in turn."""
    async with host_file() as secret, arena.fresh() as workspace:
        path = f"{workspace.info.working_dir}/swapped"
        swap = [await arena.guest_in(workspace), "probe", "swap", "swapped", str(secret.path), str(_RACE_SECONDS)]
        async with asyncio.timeout(_RACE_SECONDS + 2 * PATIENCE), asyncio.TaskGroup() as group:
            swapping = group.create_task(workspace.execute(swap, timeout=_RACE_SECONDS + PATIENCE))
            reads = 0
            while not swapping.done():
                if await _read(workspace, path) == secret.content:
                    return not_blocked(f"reading gave the content of {secret.path} on the service's host")
                with contextlib.suppress(IsolationError):
                    await workspace.write_file(path, b"overwritten")
                reads += 1
        if not swapping.result().success and "no such file" not in swapping.result().stderr:
            raise DoctorError(f"{' '.join(swap)}: {swapping.result().stderr}")
        damage = await secret.damage()
        return not_blocked(damage) if damage else blocked(f"{reads} reads and writes during swaps reached nothing")


async def _plant(arena: Arena, workspace: AgenticWorkspace, secret: HostFile) -> None:
    for name, target in (("file-link", secret.path), ("dir-link", secret.directory)):
        command = [await arena.guest_in(workspace), "probe", "link", name, str(target)]
        result = await workspace.execute(command, timeout=PATIENCE)
        if not result.success:
            raise DoctorError(f"{' '.join(command)}: {result.stderr}")


async def _read(workspace: AgenticWorkspace, path: str) -> bytes | IsolationError:
    try:
        return await workspace.read_file(path)
    except IsolationError as error:
        return error


def _words(answer: bytes | IsolationError) -> str:
    return answer.reason if isinstance(answer, IsolationError) else f"{len(answer)} bytes of the workspace's own"
