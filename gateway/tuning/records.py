"""
The gateway's own record of a model, where there is one: a version is loaded with the configuration
that the database holds, and config.pbtxt is for people and for a tritonserver of its own
(docs/decisions/0001). So both are read, and both are written.

A repository that no gateway has served yet has no record; its config.pbtxt is what counts, and is
taken into the record when a gateway adopts it.
"""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from gateway.converter import model_config
from gateway.converter.config_text import change_fields
from gateway.converter.existing_config import complete, fits
from gateway.converter.layout import CONFIG_FILE
from gateway.converter.published import read_config
from gateway.converter.repository_writer import refuse_escape, replace_config
from gateway.registry.registry import Registry
from gateway.settings import Settings
from gateway.store.database import is_there, open_database
from gateway.store.versions import VersionStore
from gateway.tuning.candidates import FIELDS, Candidate, apply
from gateway.tuning.subject import Record, Subject

_ACTOR = "tune"


@dataclass(frozen=True, slots=True)
class Written:
    """
    What was changed.

    Attributes:
        file: Whether config.pbtxt was; it is left alone where it is for other inputs or outputs.
        versions: The versions whose recorded configuration was.
    """

    file: bool
    versions: tuple[int, ...]


async def read_record(settings: Settings, repository: Path, name: str) -> Record | None:
    """
    Read what the gateway of these settings has recorded of a model.

    Returns:
        None if it has recorded nothing of it, or if the repository is not the gateway's own.

    Raises:
        StoreUnavailable: The database cannot be reached.
    """
    async with _registry(settings, repository) as registry:
        model = None if registry is None else registry.catalog.models.get(name)
        return None if model is None else Record(model.champion.version, model.versions)


async def write_candidate(
    settings: Settings, repository: Path, subject: Subject, candidate: Candidate
) -> Written:
    """
    Have a model loaded as a candidate from now on: in its config.pbtxt, and in the record of every
    version with the same inputs and outputs, since Triton has one configuration for all versions of
    a model. Only what the candidate says is changed; the rest stays to the letter. A gateway that
    runs sees the new record and loads the model anew, with no gap.

    Raises:
        ConfigInvalid: A config.pbtxt is written in a way that cannot be changed in a few lines.
        StorageFull: No space is left; nothing was changed.
        StoreUnavailable: The database cannot be reached; config.pbtxt alone was changed.
    """
    file = _write_file(repository, subject, candidate)
    async with _registry(settings, repository) as registry:
        model = None if registry is None else registry.catalog.models.get(subject.name)
        if registry is None or model is None:
            return Written(file, ())
        configs = {
            number: _changed(version.config, candidate)
            for number, version in sorted(model.versions.items())
            if version.signature.same_tensors(subject.signature)
        }
        await registry.store.replace_configs(subject.name, configs, actor=_ACTOR)
    return Written(file, tuple(configs))


@contextlib.asynccontextmanager
async def _registry(settings: Settings, repository: Path) -> AsyncIterator[Registry | None]:
    if not _keeps_record(settings, repository):
        yield None
        return
    database = await open_database(settings.resolved_database_url)
    try:
        registry = Registry(VersionStore(database))
        await registry.refresh()
        yield registry
    finally:
        await database.close()


def _keeps_record(settings: Settings, repository: Path) -> bool:
    """Whether the repository is the one that a gateway of these settings has served."""
    own = repository.resolve() == settings.model_repository.resolve()
    return own and is_there(settings.resolved_database_url)


def _write_file(repository: Path, subject: Subject, candidate: Candidate) -> bool:
    model = repository / subject.triton_model
    refuse_escape(model, repository)
    written = read_config(model)
    if written is not None and not _is_of(written, subject):
        return False
    replace_config(_changed(written or subject.config_text, candidate), model / CONFIG_FILE)
    return True


def _is_of(text: str, subject: Subject) -> bool:
    """Whether a config.pbtxt is for the inputs and outputs of what was tuned."""
    return fits(complete(model_config.parse(text), subject.config), subject.signature)


def _changed(text: str, candidate: Candidate) -> str:
    return change_fields(text, apply(model_config.parse(text), candidate), FIELDS)
