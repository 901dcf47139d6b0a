"""
Under which name Triton knows a version.

Callers name a model N and a version of it. Versions of N with other inputs or outputs than the
first lie in further Triton models, because Triton wants one configuration for a model. This record
leads from the one spelling to the other; everything above this package says N.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from gateway.triton.replica import Served
from gateway.triton.statistics import IndexEntry

_T = TypeVar("_T")


class ModelNames:
    """The record of one gateway process; a version that is not in it is known by its own name."""

    def __init__(self) -> None:
        self._triton_models: dict[Served, str] = {}
        self._served: dict[Served, Served] = {}

    def add(self, triton_models: Mapping[Served, str]) -> None:
        """
        Take note of where versions lie. Nothing is ever forgotten: a version's number and its place
        are never used for another one.
        """
        for served, triton_model in triton_models.items():
            if triton_model != served[0]:
                self._triton_models[served] = triton_model
                self._served[triton_model, served[1]] = served

    def triton_model(self, served: Served) -> str:
        """Return the name of the Triton model in which a version lies."""
        return self._triton_models.get(served, served[0])

    def served(self, triton_model: str, version: int) -> Served:
        """Return the model and version that callers name for a version of a Triton model."""
        return self._served.get((triton_model, version), (triton_model, version))

    def translate(self, entries: Iterable[IndexEntry]) -> list[IndexEntry]:
        """
        Write the entries of a replica's index under the names that callers know. What lies under
        the name of a version and is none of it is left out.
        """
        found = []
        for entry in entries:
            served = self.served(entry.name, entry.version)
            if self.triton_model(served) == entry.name:
                found.append(replace(entry, name=served[0]))
        return found

    def by_served(self, found: Mapping[Served, _T]) -> dict[Served, _T]:
        """
        Give what Triton says of its models and versions under the names that callers know. What
        lies under the name of a version and is none of it is left out.
        """
        named = {}
        for (triton_model, version), each in found.items():
            served = self.served(triton_model, version)
            if self.triton_model(served) == triton_model:
                named[served] = each
        return named
