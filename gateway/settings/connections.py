"""Settings of connections: how long they may be silent, how many there are, and how they end."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings


class ConnectionSettings(BaseSettings):
    """A part of `gateway.settings.Settings`."""

    grpc_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description=(
            "Port of the Open Inference Protocol over gRPC; 0: none. Default: 8001, or a free one "
            "if that is taken."
        ),
    )
    tls_cert: Path | None = Field(
        None,
        description=(
            "Certificate chain in PEM: with it the gateway speaks HTTPS. Read again when the file "
            "changes."
        ),
    )
    tls_key: Path | None = Field(
        None, description="Its private key in PEM, unless TLS_CERT holds it, too."
    )
    tls_client_ca: Path | None = Field(
        None,
        description=(
            "CA certificates in PEM: with them every client has to show a certificate that one of "
            "them has signed, beside its key."
        ),
    )
    max_connections: int = Field(
        4096,
        gt=0,
        description=(
            "Connections that are open at once; fewer if the process may not open so many files. "
            "Beyond it the longest idle ones are closed, and if there is none, new ones get 429."
        ),
    )
    header_timeout_s: float = Field(
        10.0,
        gt=0,
        description="How long the head of a request may take to come, in seconds (408).",
    )
    idle_timeout_s: float = Field(
        75.0, gt=0, description="How long a connection may wait for its next request, in seconds."
    )
    min_upload_bytes_per_s: float = Field(
        1024.0,
        gt=0,
        description=(
            "Least rate of a request's body, after a start of 20 seconds; a slower one gets 408."
        ),
    )
    body_memory_bytes: int = Field(
        512 * 1024 * 1024,
        gt=0,
        description=(
            "Memory for the bodies of all requests together, until they are answered; beyond it "
            "the next gets 429. Uploads of models go to disk and do not count."
        ),
    )
    drain_delay_s: float = Field(
        3.0,
        ge=0,
        description=(
            "After SIGTERM the gateway is not ready, but answers as before for so many seconds: "
            "those who send requests need time to hear of it. Not after Ctrl-C."
        ),
    )
    shutdown_grace_s: float = Field(
        30.0, gt=0, description="How long admitted requests may go on after SIGTERM, in seconds."
    )
