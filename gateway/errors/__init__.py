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
    │   ├── NotOptimizable      not_optimizable
    │   └── MetricsQueryInvalid    metrics_query_invalid
    ├── NotFound
    │   ├── ModelNotFound       model_not_found
    │   ├── VersionNotFound     version_not_found
    │   ├── AliasNotFound       alias_not_found
    │   ├── RolloutNotFound     rollout_not_found
    │   ├── AnswerNotFound      answer_not_found
    │   ├── SampleNotFound      sample_not_found
    │   ├── EvaluationNotFound  evaluation_not_found
    │   ├── ReplayNotFound      replay_not_found
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
    │   ├── NothingRecorded     nothing_recorded
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
    │   ├── IssuerUnavailable   issuer_unavailable
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

    base      the root
    request   what the caller can mend
    state     what is not there, and what the state of the server forbids
    service   what this server, Triton or the database cannot do now
    access    keys and callers
"""

from gateway.errors.access import (
    CrossSite,
    Forbidden,
    HostRefused,
    KeyExists,
    KeyInvalid,
    KeyNotFound,
    LastAdminKey,
    MediaTypeUnsupported,
    RateLimited,
    Unauthenticated,
)
from gateway.errors.base import (
    GatewayError,
)
from gateway.errors.request import (
    BatchTooLarge,
    BodyTooLarge,
    EvaluationSetInvalid,
    FeedbackInvalid,
    ImageInvalid,
    ImageMismatch,
    ImageTooLarge,
    ImageTruncated,
    LabelsInvalid,
    MetricsQueryInvalid,
    ModelRejected,
    NameInvalid,
    NotOptimizable,
    OptionUnknown,
    PreprocessingInvalid,
    PreprocessingRequired,
    RequestError,
    RolloutInvalid,
    TensorInvalid,
    UploadInvalid,
    VersionInvalid,
)
from gateway.errors.service import (
    ChannelClosed,
    DeadlineExceeded,
    Draining,
    FormatUnavailable,
    InferenceFailed,
    IssuerUnavailable,
    LoadFailed,
    ModelOutputInvalid,
    ModelQuarantined,
    Overloaded,
    ProtocolUnsupported,
    RepositoryReadOnly,
    StorageFull,
    StoreFull,
    StoreUnavailable,
    TooManyBodies,
    TooManyConnections,
    TooManyUploads,
    TritonUnavailable,
    Unavailable,
    UpstreamFailed,
)
from gateway.errors.state import (
    AliasMoved,
    AliasNotFound,
    AnswerNotFound,
    ArtifactCorrupt,
    Conflict,
    EvaluationFailed,
    EvaluationNotFound,
    EvaluationPending,
    LoadSuperseded,
    ModelNotFound,
    ModelNotLoaded,
    NameConflict,
    NotFound,
    NothingRecorded,
    ReplayNotFound,
    RolloutConflict,
    RolloutInProgress,
    RolloutNotFound,
    SampleNotFound,
    SignatureConflict,
    VersionConflict,
    VersionInUse,
    VersionNotFound,
)

__all__ = [
    "AliasMoved",
    "AliasNotFound",
    "AnswerNotFound",
    "ArtifactCorrupt",
    "BatchTooLarge",
    "BodyTooLarge",
    "ChannelClosed",
    "Conflict",
    "CrossSite",
    "DeadlineExceeded",
    "Draining",
    "EvaluationFailed",
    "EvaluationNotFound",
    "EvaluationPending",
    "EvaluationSetInvalid",
    "FeedbackInvalid",
    "Forbidden",
    "FormatUnavailable",
    "GatewayError",
    "HostRefused",
    "ImageInvalid",
    "ImageMismatch",
    "ImageTooLarge",
    "ImageTruncated",
    "InferenceFailed",
    "IssuerUnavailable",
    "KeyExists",
    "KeyInvalid",
    "KeyNotFound",
    "LabelsInvalid",
    "LastAdminKey",
    "LoadFailed",
    "LoadSuperseded",
    "MediaTypeUnsupported",
    "MetricsQueryInvalid",
    "ModelNotFound",
    "ModelNotLoaded",
    "ModelOutputInvalid",
    "ModelQuarantined",
    "ModelRejected",
    "NameConflict",
    "NameInvalid",
    "NotFound",
    "NotOptimizable",
    "NothingRecorded",
    "OptionUnknown",
    "Overloaded",
    "PreprocessingInvalid",
    "PreprocessingRequired",
    "ProtocolUnsupported",
    "RateLimited",
    "ReplayNotFound",
    "RepositoryReadOnly",
    "RequestError",
    "RolloutConflict",
    "RolloutInProgress",
    "RolloutInvalid",
    "RolloutNotFound",
    "SampleNotFound",
    "SignatureConflict",
    "StorageFull",
    "StoreFull",
    "StoreUnavailable",
    "TensorInvalid",
    "TooManyBodies",
    "TooManyConnections",
    "TooManyUploads",
    "TritonUnavailable",
    "Unauthenticated",
    "Unavailable",
    "UploadInvalid",
    "UpstreamFailed",
    "VersionConflict",
    "VersionInUse",
    "VersionInvalid",
    "VersionNotFound",
]
