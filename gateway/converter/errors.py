"""
What can be wrong with a model, a name or a repository. Every error has a stable `code`.

    ConverterError
    ├── ModelInvalid            model_invalid
    ├── ExternalDataForbidden   external_data_forbidden
    ├── OperatorUnsupported     operator_unsupported
    ├── OpsetUnsupported        opset_unsupported
    ├── SignatureUnsupported    signature_unsupported
    ├── ConfigInvalid           config_invalid
    ├── NameInvalid             name_invalid
    ├── NameConflict            name_conflict
    ├── VersionInvalid          version_invalid
    ├── VersionExists           version_exists
    ├── VersionMissing          version_missing
    ├── PathEscapes             path_escapes
    ├── RepositoryUnreadable    repository_unreadable
    ├── RepositoryReadOnly      repository_read_only
    └── StorageFull             storage_full

The texts name models, versions and tensors, never paths: they may be shown to whoever uploaded.
"""

from typing import ClassVar


class ConverterError(Exception):
    """The base of all errors of this package."""

    code: ClassVar[str]


class ModelInvalid(ConverterError):
    """Not an ONNX model: empty, truncated, some other file."""

    code = "model_invalid"


class ExternalDataForbidden(ConverterError):
    """The model refers to another file for its weights; that file was not opened."""

    code = "external_data_forbidden"


class OperatorUnsupported(ConverterError):
    """The runtime does not know an operator of the model."""

    code = "operator_unsupported"


class OpsetUnsupported(ConverterError):
    """The model's opset or IR version is newer than the runtime's."""

    code = "opset_unsupported"


class SignatureUnsupported(ConverterError):
    """Inputs or outputs that cannot be served; the text shows them."""

    code = "signature_unsupported"


class ConfigInvalid(ConverterError):
    """A config.pbtxt that Triton could not read."""

    code = "config_invalid"


class NameInvalid(ConverterError):
    """Not a model name."""

    code = "name_invalid"


class NameConflict(ConverterError):
    """The name differs from that of an existing model in nothing but case."""

    code = "name_conflict"


class VersionInvalid(ConverterError):
    """Not a version number."""

    code = "version_invalid"


class VersionExists(ConverterError):
    """The version is already there, and versions are immutable."""

    code = "version_exists"


class VersionMissing(ConverterError):
    """The repository has no such version."""

    code = "version_missing"


class PathEscapes(ConverterError):
    """A symbolic link leads out of the repository."""

    code = "path_escapes"


class RepositoryUnreadable(ConverterError):
    """What lies in a model's place cannot be read: no directory, no permission, a bad disk."""

    code = "repository_unreadable"


class RepositoryReadOnly(ConverterError):
    """The repository cannot be written to: a read-only mount, or another user's."""

    code = "repository_read_only"


class StorageFull(ConverterError):
    """No space left for the model; nothing of it was kept."""

    code = "storage_full"
