"""`[[token]]`: tokens that callers show, by their hashes."""

from __future__ import annotations

import re
from datetime import datetime
from functools import partial

from agentic_isolation.errors import InvalidArgumentError
from agentic_isolation_service.core.tokens import StaticToken
from agentic_isolation_service.settings.tables import Types, checked, tables, within

_TOKEN: dict[str, Types] = {"name": (str,), "sha256": (str,), "expires": (datetime,)}
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@/-]{0,127}")


def tokens_of(content: object) -> tuple[StaticToken, ...]:
    """Returns the tokens that tables `[[token]]` list.

    Raises:
        InvalidArgumentError: A setting makes no sense; the error names it, as `token[0].sha256`.
    """
    tokens: list[StaticToken] = []
    for place, table in tables(content, "token"):
        token = within(place, partial(_token, table))
        for field, value in (("name", token.name), ("sha256", token.sha256)):
            if any(getattr(other, field) == value for other in tokens):
                raise InvalidArgumentError(
                    "another token has it too; each has a name and a value of its own", field=f"{place}.{field}"
                )
        tokens.append(token)
    return tuple(tokens)


def _token(table: object) -> StaticToken:
    settings = checked(table, _TOKEN)
    for name in ("name", "sha256"):
        if name not in settings:
            raise InvalidArgumentError("it is missing; `agentic-isolation token NAME` prints the table", field=name)
    if not _NAME.fullmatch(settings["name"]):
        raise InvalidArgumentError("a name has 1 to 128 letters, digits, '.', '_', '@', '/' and '-'", field="name")
    digest = settings["sha256"].lower()
    if not _DIGEST.fullmatch(digest):
        # Not repeated: somebody may have written down the token itself.
        raise InvalidArgumentError(
            "it is no SHA-256 in 64 hexadecimal digits; `agentic-isolation token NAME` makes a token and prints it",
            field="sha256",
        )
    expires: datetime | None = settings.get("expires")
    if expires is not None and expires.tzinfo is None:
        raise InvalidArgumentError("it has no time zone; write it as 2030-01-31T00:00:00Z", field="expires")
    return StaticToken(name=settings["name"], sha256=digest, expires=None if expires is None else expires.timestamp())
