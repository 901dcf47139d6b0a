"""What the caller can mend."""

from gateway.errors.base import GatewayError


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


class NotOptimizable(RequestError):
    """No faster challenger can be made of the version: too few images, or not of such a graph."""

    code = "not_optimizable"


class MetricsQueryInvalid(RequestError):
    """A question about stored metrics that cannot be read, or whose answer would be too long."""

    code = "metrics_query_invalid"


class ModelRejected(RequestError):
    """The converter refused a model; `code` is the converter's own."""

    def __init__(self, detail: str, *, code: str = "model_invalid") -> None:
        super().__init__(detail)
        self.code = code  # type: ignore[misc]  # one class for the converter's own tree of codes
