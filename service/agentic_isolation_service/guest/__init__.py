"""The guest protocol's Python side; docs/guest-protocol.md is its specification."""
