"""Patterns of gitignore(5): as git understands them, and whatever they and the names are, in no time."""

from __future__ import annotations

import pytest

from agentic_isolation import InvalidArgumentError
from agentic_isolation._ignore import IgnoreRules

TREE = [
    *("a/", "a/b/", "a/b/c.py", "a/b/d.txt", "a/x/", "a/x/y/", "a/x/y/b/", "b", "build/", "build/keep", "c.py"),
    *("#tag", "!bang", "star*", "end ", ".git/", ".git/x", "x]y", "sub/", "sub/build/", "sub/c.py", "ü"),
]
CASES = [
    (["*.py"], {"a/b/c.py", "c.py", "sub/c.py"}),
    (["/*.py"], {"c.py"}),
    (["build/"], {"build/", "sub/build/"}),
    (["/build"], {"build/"}),
    (["b"], {"a/b/", "a/x/y/b/", "b"}),
    (["b/"], {"a/b/", "a/x/y/b/"}),
    (["a/**/b"], {"a/b/", "a/x/y/b/"}),
    (["a/**"], {"a/b/", "a/x/"}),
    (["**/y"], {"a/x/y/"}),
    (["a/*/y/**"], {"a/x/y/b/"}),
    (["a/*"], {"a/b/", "a/x/"}),
    (
        ["*", "!*/", "!*.py"],
        set(TREE) - {"a/", "a/b/", "a/b/c.py", "c.py", "sub/c.py"} - {t for t in TREE if t[-1] == "/"},
    ),
    (["build/", "!build/keep"], {"build/", "sub/build/"}),
    (["# no", "", "   ", "\\#tag", "\\!bang"], {"#tag", "!bang"}),
    (["star\\*", "end\\ ", "c.py   "], {"star*", "end ", "a/b/c.py", "c.py", "sub/c.py"}),
    (["[a-b]", "[!.#!a-z]*", "[]x]?y"], {"a/", "b", "x]y", "ü"}),
    (["a//b", "b//"], set()),
    ([".git"], {".git/"}),
]


def left_out(patterns: list[str]) -> set[str]:
    """Returns the topmost entries of TREE that are left out."""
    rules = IgnoreRules(patterns, "ignore")
    found: set[str] = set()
    for entry in TREE:
        parents = {entry[: position + 1] for position, letter in enumerate(entry[:-1]) if letter == "/"}
        if not parents & found and rules.ignores(entry.rstrip("/"), is_directory=entry.endswith("/")):
            found.add(entry)
    return found


@pytest.mark.parametrize(
    ("patterns", "expected"), CASES, ids=lambda case: " ".join(case) if isinstance(case, list) else ""
)
def test_what_patterns_leave_out(patterns: list[str], expected: set[str]) -> None:
    assert left_out(patterns) == expected


@pytest.mark.parametrize("pattern", ["!", "a\\", "x" * 5000, "[[:alpha:]].p?", "[b-a]"])
def test_malformed_pattern_is_named(pattern: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        IgnoreRules(["fine", pattern], "ignore")
    assert caught.value.field == "ignore[1]"
    assert capfd.readouterr() == ("", "")


def test_names_that_are_no_text_are_matched() -> None:
    assert IgnoreRules(["*.log"], "ignore").ignores("\udcff.log", is_directory=False)


def test_matching_takes_linear_time() -> None:
    """Each of these would take a matcher that tries every way longer than the universe has been there."""
    for pattern, name in [
        ("*a" * 40 + "b", "a" * 255),
        ("**/a/" * 40 + "b", "a/" * 2000 + "c"),
        ("a*a*/" * 40 + "b", ("a" * 60 + "/") * 60 + "c"),
        ("*?*" * 40 + "b", "a" * 255),
        ("[a-b]*" * 40 + "c", "ab" * 127),
    ]:
        assert not IgnoreRules([pattern], "ignore").ignores(name, is_directory=False)
