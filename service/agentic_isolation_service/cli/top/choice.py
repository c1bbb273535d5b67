"""A question over the view, with the answers to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Label, OptionList


class Choice(ModalScreen[int | None]):
    """Asks, and is dismissed with the place of the answer; None: none was given.

    Args:
        question: What is asked.
        answers: The first one is preselected, and should do no harm.
    """

    CSS = """
    Choice { align: center middle; }
    Choice > Vertical { width: 64; height: auto; border: round $warning; background: $surface; padding: 1 2; }
    Choice OptionList { height: auto; border: none; margin-top: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "Cancel")]

    def __init__(self, question: str, answers: Sequence[str]) -> None:
        super().__init__()
        self._question = question
        self._answers = answers

    def compose(self) -> ComposeResult:
        """Builds the question."""
        with Vertical():
            yield Label(self._question, markup=False)
            yield OptionList(*self._answers, markup=False)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Answers."""
        self.dismiss(event.option_index)

    def action_cancel(self) -> None:
        """Gives no answer."""
        self.dismiss(None)
