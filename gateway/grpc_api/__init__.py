"""The Open Inference Protocol over gRPC: the calls of `api/v2`, in another spelling."""
