"""
Why the converter refuses a model, as one tree. `code` is stable; the text says what to change.

    ToolError
    ├── ModelInvalid             model_invalid
    ├── ExternalDataForbidden    external_data_forbidden
    ├── OperatorUnsupported      operator_unsupported
    ├── OpsetUnsupported         opset_unsupported
    ├── SignatureUnsupported     signature_unsupported
    ├── NameInvalid              name_invalid
    ├── VersionInvalid           version_invalid
    ├── VersionExists            version_exists
    └── StorageFull              storage_full
"""

from typing import ClassVar


class ToolError(Exception):
    """The root."""

    code: ClassVar[str] = "tool_error"


class ModelInvalid(ToolError):
    """The bytes are not an ONNX model that can be read."""

    code = "model_invalid"


class ExternalDataForbidden(ToolError):
    """The model keeps data in other files; only models in one file are taken."""

    code = "external_data_forbidden"


class OperatorUnsupported(ToolError):
    """The model uses an operator or a domain that the runtime does not know."""

    code = "operator_unsupported"


class OpsetUnsupported(ToolError):
    """The model's opset or IR version is newer than the runtime."""

    code = "opset_unsupported"


class SignatureUnsupported(ToolError):
    """The model's inputs or outputs are not those of an image classifier."""

    code = "signature_unsupported"


class NameInvalid(ToolError):
    """The name breaks the rules for names."""

    code = "name_invalid"


class VersionInvalid(ToolError):
    """The version is no positive 63-bit number."""

    code = "version_invalid"


class VersionExists(ToolError):
    """The version is published already; a version is never written twice."""

    code = "version_exists"


class StorageFull(ToolError):
    """The disk is full; nothing was changed."""

    code = "storage_full"
