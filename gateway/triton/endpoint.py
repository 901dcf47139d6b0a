"""
Where a Triton answers, and the secret that its administrative calls want.

The embedded server and a remote replica are described by the same value, so that nothing above it
knows which of the two it talks to.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

# The header of the restricted HTTP calls; gRPC metadata wants it with Triton's prefix, lower-case.
ADMIN_HEADER = "admin-key"
GRPC_ADMIN_METADATA = f"triton-grpc-protocol-{ADMIN_HEADER}"


@dataclass(frozen=True, slots=True)
class TritonEndpoint:
    """
    One Triton server.

    Attributes:
        http_url: "host:port" of the HTTP service.
        grpc_url: "host:port" of the gRPC service.
        metrics_url: "host:port" of the Prometheus metrics, or None where they are not known.
        admin_key: Secret of the restricted calls, or None where they are open. Of the embedded
            server all are restricted but health.
        decodes: Whether its backend takes a JPEG in place of pixels: ours does, in the embedded
            server.
        instances: Folder of the presence files of its instances, where the CPU time of their
            processes is their computing; None for a server elsewhere, or one that has a GPU.
    """

    http_url: str
    grpc_url: str
    metrics_url: str | None = None
    admin_key: str | None = field(default=None, repr=False)
    decodes: bool = False
    instances: str | None = None

    @property
    def on_this_host(self) -> bool:
        """Whether its address is one of the loopback: then memory can be shared with it."""
        host = self.http_url.rpartition(":")[0].strip("[]")
        return host in {"localhost", "::1"} or host.startswith("127.")

    @property
    def admin_headers(self) -> Mapping[str, str]:
        """Headers that open the restricted HTTP calls."""
        return {} if self.admin_key is None else {ADMIN_HEADER: self.admin_key}

    @property
    def admin_metadata(self) -> Mapping[str, str]:
        """Metadata that opens the restricted gRPC calls (the clients' `headers` argument)."""
        return {} if self.admin_key is None else {GRPC_ADMIN_METADATA: self.admin_key}
