"""The one place that states the version: the package, the guest and the wheel take it from here."""

__version__ = "0.1.0"
