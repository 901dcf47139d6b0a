"""What this server, Triton or the database cannot do now."""

from gateway.errors.base import GatewayError


class Overloaded(GatewayError):
    """More work is waiting than the server takes on."""

    code = "overloaded"
    retry_after_s = 1.0
    refusal = "queue_full"


class TooManyBodies(Overloaded):
    """The bodies of other requests take all the memory that is set aside for them."""

    refusal = "body_memory"


class TooManyConnections(Overloaded):
    """More connections are open than the server keeps."""

    refusal = "connections"


class TooManyUploads(Overloaded):
    """More models are being uploaded than the server takes at once."""

    refusal = "uploads"


class Unavailable(GatewayError):
    """Something that the answer needs is away for now."""

    code = "unavailable"
    retry_after_s = 1.0


class TritonUnavailable(Unavailable):
    """No replica can answer for the version right now."""

    code = "triton_unavailable"


class StoreUnavailable(Unavailable):
    """The database cannot be read or written."""

    code = "store_unavailable"
    retry_after_s = 5.0


class StoreFull(StoreUnavailable):
    """The disk of the database is full; nothing was written."""

    code = "storage_full"
    retry_after_s = None  # type: ignore[assignment] # nobody knows when there is space again


class IssuerUnavailable(Unavailable):
    """The issuer of tokens does not answer."""

    code = "issuer_unavailable"
    refusal = "issuer_away"


class RepositoryReadOnly(Unavailable):
    """The model repository cannot be written to; what lies in it is served."""

    code = "repository_read_only"
    retry_after_s = 60.0


class ModelQuarantined(Unavailable):
    """The version killed its process again and again and is kept out until it is loaded anew."""

    code = "model_quarantined"
    retry_after_s = 60.0


class ChannelClosed(Unavailable):
    """The other process of this gateway is gone, or going."""

    code = "restarting"

    def __init__(self) -> None:
        super().__init__("The server is restarting a part of itself; try again.")


class Draining(Unavailable):
    """The server is stopping and takes nothing new."""

    code = "draining"
    refusal = "draining"


class UpstreamFailed(GatewayError):
    """Triton, or the model in it, failed."""

    code = "upstream_failed"


class LoadFailed(UpstreamFailed):
    """Triton could not load a version; what served before still serves."""

    code = "load_failed"


class InferenceFailed(UpstreamFailed):
    """The model failed on this input."""

    code = "inference_failed"


class ModelOutputInvalid(UpstreamFailed):
    """The model answered NaN or infinity, or nothing."""

    code = "model_output_invalid"


class DeadlineExceeded(GatewayError):
    """The answer did not come within the request's deadline."""

    code = "deadline_exceeded"


class StorageFull(GatewayError):
    """The disk is full; nothing was changed."""

    code = "storage_full"


class FormatUnavailable(GatewayError):
    """A format that this installation cannot write: a library that it needs is not installed."""

    code = "format_unavailable"


class ProtocolUnsupported(GatewayError):
    """A call of the Open Inference Protocol that the gateway does not offer."""

    code = "protocol_unsupported"
