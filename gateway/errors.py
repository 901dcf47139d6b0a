"""
What can go wrong, as one tree. It knows no HTTP: `api/errors.py` holds the one table that
maps a class to a status.

    GatewayError
    ├── RequestError            the caller can mend it
    │   ├── ImageInvalid        image_invalid
    │   │   └── ImageTruncated  image_truncated
    │   ├── ImageTooLarge       image_too_large
    │   ├── ImageMismatch       image_mismatch
    │   ├── BodyTooLarge        body_too_large
    │   ├── BatchTooLarge       batch_too_large
    │   ├── TensorInvalid       tensor_invalid
    │   ├── NameInvalid         name_invalid
    │   ├── VersionInvalid      version_invalid
    │   ├── ModelRejected       (the code that the converter gave)
    │   ├── PreprocessingRequired  preprocessing_required
    │   ├── PreprocessingInvalid   preprocessing_invalid
    │   ├── LabelsInvalid       labels_invalid
    │   ├── UploadInvalid       upload_invalid
    │   ├── OptionUnknown       option_unknown
    │   ├── RolloutInvalid      rollout_invalid
    │   ├── FeedbackInvalid     feedback_invalid
    │   ├── KeyInvalid          key_invalid
    │   ├── EvaluationSetInvalid   evaluation_set_invalid
    │   └── MetricsQueryInvalid    metrics_query_invalid
    ├── NotFound
    │   ├── ModelNotFound       model_not_found
    │   ├── VersionNotFound     version_not_found
    │   ├── AliasNotFound       alias_not_found
    │   ├── RolloutNotFound     rollout_not_found
    │   ├── AnswerNotFound      answer_not_found
    │   ├── SampleNotFound      sample_not_found
    │   ├── EvaluationNotFound  evaluation_not_found
    │   └── KeyNotFound         key_not_found
    ├── Conflict                the state of the server forbids it
    │   ├── ModelNotLoaded      model_not_loaded
    │   ├── LoadSuperseded      load_superseded
    │   ├── NameConflict        name_conflict
    │   ├── SignatureConflict   signature_conflict
    │   ├── VersionConflict     version_exists
    │   ├── VersionInUse        version_in_use
    │   ├── AliasMoved          alias_moved
    │   ├── RolloutConflict     rollout_conflict
    │   ├── RolloutInProgress   rollout_in_progress
    │   ├── EvaluationPending   evaluation_pending
    │   ├── EvaluationFailed    evaluation_failed
    │   ├── ArtifactCorrupt     artifact_corrupt
    │   ├── KeyExists           key_exists
    │   └── LastAdminKey        last_admin_key
    ├── Unauthenticated         unauthenticated       no key, or one that is not in force
    ├── Forbidden               forbidden             the key does not allow it
    │   └── CrossSite           cross_site
    ├── HostRefused             host_not_allowed
    ├── MediaTypeUnsupported    media_type_unsupported
    ├── Overloaded              overloaded            (retry later)
    │   ├── RateLimited         rate_limited
    │   ├── TooManyBodies       overloaded
    │   ├── TooManyConnections  overloaded
    │   └── TooManyUploads      overloaded
    ├── Unavailable             (retry later)
    │   ├── TritonUnavailable   triton_unavailable
    │   ├── StoreUnavailable    store_unavailable
    │   │   └── StoreFull       storage_full
    │   ├── RepositoryReadOnly  repository_read_only
    │   ├── ModelQuarantined    model_quarantined
    │   ├── ChannelClosed       restarting
    │   └── Draining            draining
    ├── UpstreamFailed          Triton or the model answered badly
    │   ├── LoadFailed          load_failed
    │   ├── InferenceFailed     inference_failed
    │   └── ModelOutputInvalid  model_output_invalid
    ├── DeadlineExceeded        deadline_exceeded
    ├── StorageFull             storage_full
    ├── FormatUnavailable       format_unavailable
    └── ProtocolUnsupported     protocol_unsupported

`code` is stable and part of the contract; the text is for people. No path of the machine and
nothing of Triton's inside goes into the text.

The classes about keys and callers stand in `access_errors.py`.
"""

from typing import ClassVar


class GatewayError(Exception):
    """
    The root. `detail` is the text a caller reads, `code` the stable word a script compares,
    `retry_after_s` how long a caller may wait before it is worth trying again (None: never).
    """

    code: ClassVar[str] = "internal_error"
    retry_after_s: ClassVar[float | None] = None
    refusal: ClassVar[str] = ""
    """Why a request was refused that nobody looked at, in a word; "": that is not what happened."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class RequestError(GatewayError):
    """The request itself is at fault."""

    code = "request_invalid"


class ImageInvalid(RequestError):
    """The bytes are not an image of an accepted format."""

    code = "image_invalid"


class ImageTruncated(ImageInvalid):
    """The image's file ends early. It is never padded."""

    code = "image_truncated"


class ImageTooLarge(RequestError):
    """The image's header declares more pixels than the limit; nothing was decoded."""

    code = "image_too_large"


class ImageMismatch(RequestError):
    """The image does not fit the model's input."""

    code = "image_mismatch"


class BodyTooLarge(RequestError):
    """More bytes arrived than the limit allows."""

    code = "body_too_large"


class BatchTooLarge(RequestError):
    """One call brings more images than the limit allows."""

    code = "batch_too_large"


class TensorInvalid(RequestError):
    """An inference request that cannot be read, or tensors that the model does not take."""

    code = "tensor_invalid"


class NameInvalid(RequestError):
    """A model's or alias's name breaks the rules for names."""

    code = "name_invalid"


class VersionInvalid(RequestError):
    """A version that is no positive 63-bit number."""

    code = "version_invalid"


class PreprocessingRequired(RequestError):
    """The model does not take raw pixels and carries no preprocessing record."""

    code = "preprocessing_required"


class PreprocessingInvalid(RequestError):
    """A preprocessing record that is none, or that contradicts the model's input."""

    code = "preprocessing_invalid"


class LabelsInvalid(RequestError):
    """Class names that do not fit the model: another number, an empty one."""

    code = "labels_invalid"


class UploadInvalid(RequestError):
    """The body of a registration is not what it says: no file in it, or it ends early."""

    code = "upload_invalid"


class OptionUnknown(RequestError):
    """An option that nobody would hear."""

    code = "option_unknown"


class RolloutInvalid(RequestError, ValueError):
    """A plan of a rollout that makes no sense."""

    code = "rollout_invalid"


class FeedbackInvalid(RequestError):
    """Feedback whose category is none."""

    code = "feedback_invalid"


class EvaluationSetInvalid(RequestError):
    """An evaluation set that is no zip of images with a labels.csv that names them."""

    code = "evaluation_set_invalid"


class MetricsQueryInvalid(RequestError):
    """A question about stored metrics that cannot be read, or whose answer would be too long."""

    code = "metrics_query_invalid"


class ModelRejected(RequestError):
    """The converter refused a model; `code` is the converter's own."""

    def __init__(self, detail: str, *, code: str = "model_invalid") -> None:
        super().__init__(detail)
        self.code = code  # type: ignore[misc]  # one class for the converter's own tree of codes


class NotFound(GatewayError):
    """What the request names does not exist."""

    code = "not_found"


class ModelNotFound(NotFound):
    """No model of that name is registered."""

    code = "model_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"Model with name {name} not found.")


class VersionNotFound(NotFound):
    """The model has no such version."""

    code = "version_not_found"

    def __init__(self, name: str, version: int) -> None:
        super().__init__(f"Model {name} has no version {version}.")


class AliasNotFound(NotFound):
    """The model has no such alias."""

    code = "alias_not_found"

    def __init__(self, name: str, alias: str) -> None:
        super().__init__(f"Model {name} has no alias {alias}.")


class RolloutNotFound(NotFound):
    """No rollout has that id."""

    code = "rollout_not_found"

    def __init__(self, rollout_id: str) -> None:
        super().__init__(f"There is no rollout {rollout_id}.")


class AnswerNotFound(NotFound):
    """No request of that id was answered, or it was too long ago."""

    code = "answer_not_found"


class SampleNotFound(NotFound):
    """A rollout has no such sample, or the sample's image was not kept."""

    code = "sample_not_found"


class EvaluationNotFound(NotFound):
    """The model has no evaluation set, or the version has not been evaluated on it."""

    code = "evaluation_not_found"


class Conflict(GatewayError):
    """The state of the server forbids it now."""

    code = "conflict"


class ModelNotLoaded(Conflict):
    """The model, or the version that was asked for, is not loaded. An unknown name too."""

    code = "model_not_loaded"

    def __init__(self, name: str) -> None:
        super().__init__(f"No model with name {name} has been loaded.")


class LoadSuperseded(Conflict):
    """The version was unloaded while its load was waited for: the later wish counts."""

    code = "load_superseded"


class NameConflict(Conflict):
    """A model whose name differs only in case exists already."""

    code = "name_conflict"


class SignatureConflict(Conflict):
    """Two versions whose inputs or outputs differ cannot be loaded side by side."""

    code = "signature_conflict"


class VersionConflict(Conflict):
    """The version's place in the repository is taken by files that are not registered."""

    code = "version_exists"


class VersionInUse(Conflict):
    """An alias, a load or a rollout holds the version, or the model."""

    code = "version_in_use"


class AliasMoved(Conflict):
    """The alias is not where the caller thought that it was."""

    code = "alias_moved"


class RolloutConflict(Conflict):
    """The rollout's phase forbids what was asked. Of two promotions one gets this."""

    code = "rollout_conflict"


class RolloutInProgress(Conflict):
    """The model has a rollout that has not ended."""

    code = "rollout_in_progress"


class EvaluationPending(Conflict):
    """The version is still being evaluated on the model's evaluation set."""

    code = "evaluation_pending"


class EvaluationFailed(Conflict):
    """What the evaluation set says of the version does not let the rollout begin."""

    code = "evaluation_failed"


class ArtifactCorrupt(Conflict):
    """A stored file no longer matches the digest that was recorded when it was published."""

    code = "artifact_corrupt"


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
