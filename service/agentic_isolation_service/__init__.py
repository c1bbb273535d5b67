"""The gRPC service of agentic-isolation. Programs use `agentic_isolation`; this package is what answers them."""
