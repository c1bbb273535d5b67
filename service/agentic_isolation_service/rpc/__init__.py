"""The gRPC face: protobuf ↔ core, nothing else."""
