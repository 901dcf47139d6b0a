"""What is kept as a document: dataclasses that turn into plain JSON types and back."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import TypeAdapter


class Stored:
    """Base of a dataclass whose fields say all that is to be stored."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        document: dict[str, Any] = _adapter(type(self)).dump_python(self, mode="json")
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """
        The inverse of `to_json`.

        Raises:
            pydantic.ValidationError: The document is not one that `to_json` wrote.
        """
        read: Self = _adapter(cls).validate_python(document)
        return read


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    found = _ADAPTERS.get(kind)
    if found is None:
        found = _ADAPTERS[kind] = TypeAdapter(kind)
    return found
