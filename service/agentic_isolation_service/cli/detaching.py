"""The keys that leave an interactive process running."""

from __future__ import annotations

import click

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"
_CONTROL = "ctrl-"
_SPECIAL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse_keys(text: str) -> bytes:
    r"""Returns the bytes that keys send, from `ctrl-p,ctrl-q` or `~,.`: letters, or ctrl- and one of a-z @ [ \ ] ^ _.

    Raises:
        click.BadParameter: It names no keys.
    """
    return bytes(_parse_key(key) for key in text.split(","))


def _parse_key(key: str) -> int:
    if len(key) == 1 and key.isascii() and key.isprintable():
        return ord(key)
    name = key.removeprefix(_CONTROL)
    if key.startswith(_CONTROL) and len(name) == 1:
        if name in _SPECIAL:
            return _SPECIAL[name]
        if name.isascii() and name.isalpha():
            return ord(name.lower()) - ord("a") + 1
    raise click.BadParameter(f"{key!r} is no key; write them as in {DEFAULT_DETACH_KEYS}", param_hint="--detach-keys")


class DetachKeys:
    """Looks for a sequence of keys in what is typed, and holds back what may be its beginning.

    Args:
        keys: The sequence; empty: nothing is looked for.
    """

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    @property
    def is_holding(self) -> bool:
        """Whether some keys are held back."""
        return bool(self._held)

    def feed(self, typed: bytes) -> tuple[bytes, bool]:
        """Returns what goes on to the process, and whether the sequence was typed after that."""
        if not self._keys:
            return typed, False
        data = self._held + typed
        self._held = b""
        place = data.find(self._keys)
        if place >= 0:
            return data[:place], True
        for length in range(min(len(self._keys) - 1, len(data)), 0, -1):
            if data.endswith(self._keys[:length]):
                self._held = data[-length:]
                return data[:-length], False
        return data, False

    def release(self) -> bytes:
        """Returns what was held back, which was not the sequence's beginning after all."""
        held, self._held = self._held, b""
        return held
