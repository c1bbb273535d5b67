"""The one error of the set-up."""


class EngineError(RuntimeError):
    """The engine cannot be had, started, stopped or talked to; the message says what was tried and what would work."""
