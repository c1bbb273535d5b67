"""What `import agentic_isolation` gives."""

from __future__ import annotations

import ast
import importlib
import inspect
import types
from typing import get_args

import pytest

import agentic_isolation
from agentic_isolation import errors, models, runs


def test_all_is_sorted_and_what_type_checkers_see() -> None:
    """The names are imported for type checkers, and loaded when they are asked for: the same ones."""
    tree = ast.parse(inspect.getsource(agentic_isolation))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    seen = {name.name: node.module for node in imports for name in node.names}
    assert agentic_isolation.__all__ == sorted(agentic_isolation.__all__)
    for name in agentic_isolation.__all__:
        home = seen[name]
        assert home is not None
        assert getattr(agentic_isolation, name) is getattr(importlib.import_module(home), name)
    assert set(agentic_isolation.__all__) <= set(dir(agentic_isolation))


@pytest.mark.parametrize("module", [errors, models], ids=lambda module: module.__name__)
def test_modules_export_what_they_define(module: types.ModuleType) -> None:
    defined = {name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
    public = {name for name in defined if not name.startswith("_")}
    assert public - set(module.__all__) == set()
    assert module.__all__ == sorted(module.__all__)


def test_events_of_a_process_are_those_that_there_are_names_for() -> None:
    """So `match` with a case for each is all of them, to type checkers too."""
    assert {kind.__name__ for kind in get_args(runs.ProcessEvent)} <= set(agentic_isolation.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="NoSuchThing"):
        agentic_isolation.NoSuchThing  # type: ignore[attr-defined]  # noqa: B018


def test_modules_are_attributes() -> None:
    assert agentic_isolation.runs is runs
