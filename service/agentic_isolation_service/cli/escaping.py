"""Words of others on one line of a terminal."""

from __future__ import annotations


def escaped(text: str) -> str:
    """Returns a text with whatever a terminal would act on, newlines too, written out as Python writes it."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
