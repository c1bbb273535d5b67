"""Patterns of names: what they stand for, and whether two can stand for the same."""

from __future__ import annotations

import itertools
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_isolation import InvalidArgumentError
from agentic_isolation_service.core.patterns import Pattern

NAMES = ["".join(letters) for length in range(6) for letters in itertools.product("a/b", repeat=length)]
"""All short ones."""
patterns = st.builds(
    lambda text, rest: Pattern(re.sub(r"\*+", "*", text).removesuffix("*" if rest else "") + rest),
    st.text("a/b*", min_size=1, max_size=5),
    st.sampled_from(["", "**"]),
)


def stands_for(pattern: str, name: str) -> bool:
    """What is meant, written as plainly as can be."""
    if not pattern:
        return not name
    if pattern == "**":
        return True
    if pattern[0] == "*":
        return stands_for(pattern[1:], name) or (name[:1] not in ("", "/") and stands_for(pattern, name[1:]))
    return name[:1] == pattern[0] and stands_for(pattern[1:], name[1:])


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("token:ci", "token:ci", True),
        ("token:ci", "token:cia", False),
        ("token:ci", "xtoken:ci", False),
        ("token:*", "token:", True),
        ("token:*", "token:team/ci", False),
        ("token:**", "token:team/ci", True),
        ("spiffe://example.org/agents/*", "spiffe://example.org/agents/a", True),
        ("spiffe://example.org/agents/*", "spiffe://example.org/agents/a/b", False),
        ("spiffe://example.org/agents/*", "spiffe://example.org/admins/a", False),
        ("spiffe://example.org/*/reader", "spiffe://example.org/a/reader", True),
        ("spiffe://example.org/*/reader", "spiffe://example.org/a/b/reader", False),
        ("spiffe://example.org/**", "spiffe://example.org/a/b", True),
        ("spiffe://example.*/agents", "spiffe://example.evil/x/agents", False),
        ("jwt:https://issuer#repo:acme/**", "jwt:https://issuer#repo:acme/app:ref:refs/heads/main", True),
        ("a.c", "abc", False),
        ("a*", "a\nb", True),
        ("*", "Ü", True),
    ],
)
def test_what_is_meant(pattern: str, name: str, matches: bool) -> None:
    assert Pattern(pattern).matches(name) is matches
    assert Pattern(pattern).overlaps(Pattern(name)) is matches, "a name is a pattern of itself"


@given(patterns)
def test_every_short_name(pattern: Pattern) -> None:
    assert {name for name in NAMES if pattern.matches(name)} == {
        name for name in NAMES if stands_for(pattern.text, name)
    }


@given(patterns, patterns)
def test_overlaps_are_names_that_both_stand_for(one: Pattern, two: Pattern) -> None:
    assert one.overlaps(two) == two.overlaps(one)
    if any(one.matches(name) and two.matches(name) for name in NAMES):
        assert one.overlaps(two)
    elif not one.overlaps(two):
        # Names that both stand for need not be longer than both together.
        longer = ["".join(letters) for letters in itertools.product("a/b", repeat=6)]
        assert not any(one.matches(name) and two.matches(name) for name in longer)


@pytest.mark.parametrize(
    ("one", "two", "overlap"),
    [("a*", "*b", True), ("a/*", "*/b", True), ("a/*", "b/*", False), ("a/*", "a/b/*", False), ("a/**", "a/b/*", True)],
)
def test_overlaps(one: str, two: str, overlap: bool) -> None:
    assert Pattern(one).overlaps(Pattern(two)) is overlap


@pytest.mark.parametrize("text", ["", "**/a", "a***", "a**b"])
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        Pattern(text)


def test_long_names_take_no_long_time() -> None:
    """Callers choose names: none may keep the service busy."""
    pattern = Pattern("*-*-*-*-*-*:x", separators="/@")
    began = time.process_time()
    assert not pattern.matches("-" * 100_000)
    assert time.process_time() - began < 1
