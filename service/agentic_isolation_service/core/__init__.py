"""Policy: workspaces, leases, commands, files. Knows neither gRPC nor any provider by name."""
