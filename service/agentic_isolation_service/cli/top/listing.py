"""A table whose rows come and go while one of them stays selected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.text import Text
from textual.widgets import DataTable


class Listing(DataTable[Text]):
    """A table of things with ids, whose cells are words and no markup."""

    def __init__(self, columns: Sequence[str], *, id: str) -> None:
        super().__init__(id=id, cursor_type="row", zebra_stripes=True)
        self._titles = columns
        self._shown: dict[str, tuple[str, ...]] = {}

    def on_mount(self) -> None:
        """Adds the columns."""
        for title in self._titles:
            self.add_column(title, key=title)

    @property
    def selected(self) -> str | None:
        """The id of the row with the cursor; None where there are no rows."""
        ids = list(self._shown)
        return ids[self.cursor_row] if 0 <= self.cursor_row < len(ids) else None

    def show(self, rows: Mapping[str, tuple[str, ...]]) -> None:
        """Shows these rows in place of those before; the cursor stays with its row."""
        if list(rows) == list(self._shown):
            for key, cells in rows.items():
                self._update(key, cells)
            self._shown = dict(rows)
            return
        selected, top = self.selected, self.scroll_offset
        self.clear()
        for key, cells in rows.items():
            self.add_row(*map(Text, cells), key=key)
        self._shown = dict(rows)
        if selected is not None and selected in rows:
            self.move_cursor(row=list(rows).index(selected), animate=False, scroll=False)
        self.scroll_to(top.x, top.y, animate=False)

    def _update(self, key: str, cells: tuple[str, ...]) -> None:
        for title, cell, before in zip(self._titles, cells, self._shown[key], strict=True):
            if cell != before:
                self.update_cell(key, title, Text(cell), update_width=True)
