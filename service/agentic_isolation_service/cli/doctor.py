"""`doctor`: whether workspaces hold what their profile promises."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click
from rich.text import Text

from agentic_isolation_service.cli import render
from agentic_isolation_service.cli.options import json_output, run_to_end
from agentic_isolation_service.doctor import (
    Attempt,
    Check,
    Diagnosis,
    DoctorError,
    GVisor,
    Outcome,
    ProfileFindings,
    Status,
    diagnose,
    profiles_of,
)
from agentic_isolation_service.doctor.profiles import DEVELOPMENT, LOCAL, PRODUCTION

_STATUS_STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILED: "bold red"}


@click.command()
@click.option("--provider", type=click.Choice(["docker", "local"]), default="docker", show_default=True)
@click.option("--image", help="Image of the workspaces to attack.")
@click.option(
    "--profile",
    type=click.Choice([PRODUCTION, DEVELOPMENT, "all"]),
    default="all",
    show_default=True,
    help="Which security profile to attack; the docker provider's.",
)
@click.option(
    "--gvisor",
    type=click.Choice([choice.value for choice in GVisor]),
    default=GVisor.AUTO.value,
    show_default=True,
    help="auto: as each profile says, production uses it where the engine has it.",
)
@json_output
def doctor(provider: str, image: str | None, profile: str, gvisor: str, as_json: bool) -> None:
    """Check the installation, then attack workspaces from inside and show what holds.

    The exit code is 0 when nothing failed and every attacked profile blocks all that it promises to, else 1.
    """
    names = (PRODUCTION, DEVELOPMENT) if profile == "all" else (profile,)
    choice = GVisor(gvisor)
    profiles = profiles_of(provider, names, choice)
    try:
        diagnosis = run_to_end(diagnose(provider, profiles, image=image, gvisor=choice, progress=_progress))
    except DoctorError as error:
        raise click.ClickException(f"the doctor itself does not work: {error}") from error
    finally:
        _progress("")
    if as_json:
        render.print_json({"ok": diagnosis.ok} | _as_plain(diagnosis))
    else:
        _print(diagnosis)
    sys.exit(0 if diagnosis.ok else 1)


def _as_plain(diagnosis: Diagnosis) -> dict[str, object]:
    """Returns a diagnosis as plain JSON values."""
    plain = render.as_dict(diagnosis)
    assert isinstance(plain, dict)
    return plain


def _progress(what: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{what}", err=True, nl=False)


def _print(diagnosis: Diagnosis) -> None:
    checks = render.new_table("CHECK", "", "DETAIL")
    for check in diagnosis.checks:
        checks.add_row(check.name, _status(check), check.detail)
    render.print_table(checks)
    attacked = [findings for findings in diagnosis.profiles if findings.attempts]
    if attacked:
        click.echo()
        _print_attacks(attacked)
    if diagnosis.profiles:
        click.echo()
    for findings in attacked:
        for attempt in findings.attempts:
            if attempt.outcome is Outcome.NOT_BLOCKED and (attempt.promised or findings.profile != LOCAL):
                note = f" (not promised: {attempt.reason})" if attempt.reason else ""
                click.echo(f"{findings.profile}: {attempt.name}{note}: {attempt.detail}")
    for findings in diagnosis.profiles:
        if not findings.attempts:
            click.echo(f"{findings.profile}: not attacked, as there is no workspace")
            continue
        blocked = sum(attempt.outcome is Outcome.BLOCKED for attempt in findings.attempts)
        broken = sum(attempt.breaks_promise for attempt in findings.attempts)
        verdict = f"{broken} BROKEN PROMISES" if broken else "every promise kept"
        click.echo(f"{findings.profile}: {blocked} of {len(findings.attempts)} attacks blocked, {verdict}")


def _print_attacks(profiles: Sequence[ProfileFindings]) -> None:
    columns = {findings.profile: {attempt.name: attempt for attempt in findings.attempts} for findings in profiles}
    headings = [
        f"{findings.profile.upper()} ({findings.isolation.runtime if findings.isolation else 'none'})"
        for findings in profiles
    ]
    table = render.new_table("ATTACK", "FROM INSIDE, TRY TO", *headings)
    known = {attempt.name: attempt for column in columns.values() for attempt in column.values()}
    for name, some in known.items():
        table.add_row(name, some.title, *(_outcome(column.get(name)) for column in columns.values()))
    render.print_table(table)


def _status(check: Check) -> Text:
    return Text(check.status.value, _STATUS_STYLES[check.status])


def _outcome(attempt: Attempt | None) -> Text:
    if attempt is None:
        return Text("–")
    if attempt.outcome is Outcome.BLOCKED:
        return Text("blocked", "green")
    if attempt.outcome is Outcome.NOT_APPLICABLE:
        return Text("not applicable")
    return Text("NOT BLOCKED", "bold red") if attempt.promised else Text("not blocked, not promised", "yellow")
