"""Patterns of gitignore(5), matched in linear time: neither they nor the names need come from somebody trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import re2
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from agentic_isolation.errors import InvalidArgumentError

MAX_PATTERN = 4096
"""Characters of one pattern."""
_QUIET = re2.Options()
_QUIET.log_errors = False


class IgnoreRules:
    """Tells what patterns leave out. As for git, the last one that matches decides.

    What lies in a directory that is left out is not to be asked for: it is left out with it.

    The library knows what a pattern means, and RE2 matches it: Python's own expressions may take minutes for a few
    stars and a long name. Classes by name, as in [[:alpha:]], are refused: the library takes them for others.

    Args:
        patterns: In the syntax of gitignore(5).
        field: What they are called in errors.

    Raises:
        InvalidArgumentError: One is malformed or too long.
    """

    def __init__(self, patterns: Sequence[str], field: str) -> None:
        self._rules: list[tuple[Any, bool, bool]] = []
        for position, pattern in enumerate(patterns):
            try:
                if len(pattern) > MAX_PATTERN:
                    raise ValueError(f"it is longer than {MAX_PATTERN} characters")
                if "[:" in pattern:
                    raise ValueError("classes by name are not supported; list their characters")
                expression, leaves_out = GitIgnoreSpecPattern.pattern_to_regex(pattern)
                if expression is not None and leaves_out is not None:
                    of_directories = pattern.rstrip().endswith("/")
                    self._rules.insert(0, (re2.compile(expression, _QUIET), of_directories, leaves_out))
            except (ValueError, re2.error) as error:
                message = f"{pattern[:100]!r} is no pattern of gitignore(5): {error}"
                raise InvalidArgumentError(message, field=f"{field}[{position}]") from error

    def ignores(self, path: str, *, is_directory: bool) -> bool:
        """Returns whether a path, relative to where the patterns count, is left out."""
        # What is no UTF-8 counts as U+FFFD, as it does for guests.
        path = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        for expression, of_directories, leaves_out in self._rules:
            if of_directories and not is_directory:
                continue
            if expression.search(path + "/" if of_directories else path):
                return leaves_out
        return False
