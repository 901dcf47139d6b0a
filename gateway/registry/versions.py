"""
What is registered, as one immutable snapshot that the path of a request reads without waiting.

`Catalog` is rebuilt from the store whenever the store's generation has moved and swapped in one
assignment; a request that began with the old one finishes with it. Nothing here does I/O.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from gateway.converter import model_config
from gateway.converter.signature import ModelSignature, takes_raw_pixels
from gateway.errors import AliasNotFound, ModelNotFound, ModelNotLoaded, VersionNotFound
from gateway.preprocessing.record import Preprocessing
from gateway.store.versions import GONE, RegistryRows

CHAMPION = "champion"
FOLDER = "models_dir"
"""The source of what comes from the folder MODELS_DIR."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One published version: what it takes and answers, and the config it is loaded with."""

    model: str
    version: int
    digest: str
    source_digest: str
    size_bytes: int
    signature: ModelSignature
    config: str
    changes: tuple[str, ...]
    source: str
    created_at_s: float
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] | None = None
    record_digest: str = ""
    scores: str | None = None
    trial_shape: tuple[int, ...] | None = None

    @property
    def triton_model(self) -> str:
        """The Triton model in which it lies: the one that its configuration names."""
        return model_config.model_name(self.config) or self.model

    @property
    def can_answer(self) -> bool:
        """Whether an image can become its input: by its record, or as raw pixels."""
        return self.preprocessing is not None or takes_raw_pixels(self.signature.inputs[0])

    @property
    def classes(self) -> int | None:
        """How many classes it tells apart, as far as that is known before a run."""
        return self.signature.classes if self.labels is None else len(self.labels)


@dataclass(frozen=True, slots=True)
class Model:
    """A model: its versions, its aliases, what of it should be loaded and what may not be."""

    name: str
    source: str
    versions: Mapping[int, ModelVersion]
    aliases: Mapping[str, int]
    desired: frozenset[int]
    quarantined: Mapping[int, str]
    alias_generations: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def version(self, number: int) -> ModelVersion:
        """
        Return one version.

        Raises:
            VersionNotFound: The model has no such version.
        """
        try:
            return self.versions[number]
        except KeyError:
            raise VersionNotFound(self.name, number) from None

    def aliased(self, alias: str) -> ModelVersion:
        """
        Return the version that an alias names.

        Raises:
            AliasNotFound: The model has no such alias.
        """
        try:
            return self.versions[self.aliases[alias]]
        except KeyError:
            raise AliasNotFound(self.name, alias) from None

    def largest_batch(self, version: ModelVersion) -> int:
        """
        Return the largest batch that a version is loaded with, at least 1. Versions that share a
        Triton model share its configuration: where one of them must not batch, none does.
        """
        beside = (self.versions[number] for number in self.desired | {version.version})
        shared = (each for each in beside if each.triton_model == version.triton_model)
        return max(1, min(model_config.largest_batch(each.config) for each in shared))

    @property
    def classes(self) -> int | None:
        """How many classes its versions tell apart at most; None if one does not say."""
        known = [version.classes for version in self.versions.values()]
        return None if None in known else max(filter(None, known), default=None)

    @property
    def champion(self) -> ModelVersion:
        """The version that answers calls which pin nothing."""
        return self.aliased(CHAMPION)


@dataclass(frozen=True, slots=True)
class Catalog:
    """Every model, as of one generation of the store."""

    generation: int = -1
    models: Mapping[str, Model] = field(default_factory=lambda: MappingProxyType({}))
    # By model, the state of its live rollout as it is stored, read in one transaction with the
    # aliases: `rollouts/traffic.py` makes routes of it.
    rollouts: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}))

    def names(self) -> list[str]:
        """List every model's name, sorted."""
        return sorted(self.models)

    def model(self, name: str) -> Model:
        """
        Return one model.

        Raises:
            ModelNotFound: No model has that name.
        """
        try:
            return self.models[name]
        except KeyError:
            raise ModelNotFound(name) from None

    def resolve(
        self, name: str, *, version: int | None = None, alias: str | None = None
    ) -> ModelVersion:
        """
        Choose the version that a `run` asks for: the pinned one, else the alias's, else the
        champion. An unknown name is "not loaded", as it always was.

        Raises:
            ModelNotLoaded: The name is unknown, or the version is not among those to be loaded.
            VersionNotFound: The pinned version does not exist.
            AliasNotFound: The alias does not exist.
        """
        model = self.models.get(name)
        if model is None or not model.desired:
            if model is not None and version is not None:
                model.version(version)
            raise ModelNotLoaded(name)
        chosen = model.version(version) if version is not None else model.aliased(alias or CHAMPION)
        if chosen.version not in model.desired:
            raise ModelNotLoaded(name)
        return chosen


def build_catalog(rows: RegistryRows, *, hidden_sources: Iterable[str] = ()) -> Catalog:
    """Turn the store's rows into a snapshot; models of a hidden source are left out."""
    hidden = {GONE, *hidden_sources}
    models: dict[str, Model] = {}
    for row in rows.models:
        if row.source in hidden:
            continue
        versions = {
            version.version: ModelVersion(
                model=version.model,
                version=version.version,
                digest=version.digest,
                source_digest=version.source_digest,
                size_bytes=version.size_bytes,
                signature=ModelSignature.from_json(version.signature),
                config=version.config,
                changes=tuple(version.changes),
                source=version.source,
                created_at_s=version.created_at_s,
                preprocessing=(
                    Preprocessing.model_validate(version.preprocessing)
                    if version.preprocessing is not None
                    else None
                ),
                labels=None if version.labels is None else tuple(version.labels),
                record_digest=version.record_digest,
                scores=version.scores,
                trial_shape=None if version.trial_shape is None else tuple(version.trial_shape),
            )
            for version in rows.versions
            if version.model == row.name
        }
        models[row.name] = Model(
            name=row.name,
            source=row.source,
            versions=MappingProxyType(versions),
            aliases=MappingProxyType(
                {a.alias: a.version for a in rows.aliases if a.model == row.name}
            ),
            desired=frozenset(d.version for d in rows.desired if d.model == row.name),
            quarantined=MappingProxyType(
                {q.version: q.reason for q in rows.quarantine if q.model == row.name}
            ),
            alias_generations=MappingProxyType(
                {a.alias: a.generation for a in rows.aliases if a.model == row.name}
            ),
        )
    rollouts = {row.model: row.state for row in rows.rollouts if row.model in models}
    return Catalog(
        generation=rows.generation,
        models=MappingProxyType(models),
        rollouts=MappingProxyType(rollouts),
    )
