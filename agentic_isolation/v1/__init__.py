"""Generated from proto/agentic_isolation/v1/workspace.proto by `make proto`; only this file is written by hand."""
