"""A candidate is written where a load takes its configuration from, and nowhere else."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.converter.model_config import ConfigOptions, parse
from gateway.converter.publish import publish_version
from gateway.converter.published import read_published
from gateway.demo import FIRST_VERSION, SECOND_VERSION
from gateway.registry.adoption import adopt_repository
from gateway.registry.registry import Registry
from gateway.settings import Settings
from gateway.store.database import open_database
from gateway.store.versions import VersionStore
from gateway.tuning.candidates import Candidate, apply, read_candidate
from gateway.tuning.records import Written, read_record, write_candidate
from gateway.tuning.subject import Subject, read_subject

ROOT = Path(__file__).parents[3]
DIGITS = [FIRST_VERSION, SECOND_VERSION]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(data_dir=tmp_path / "var", model_repository=tmp_path / "repository")
    for version, source in enumerate(DIGITS, 1):
        publish_version(
            source,
            repository=settings.model_repository,
            name="digits",
            version=version,
            options=ConfigOptions(),
        )
    return settings


async def _adopt(settings: Settings) -> None:
    database = await open_database(settings.resolved_database_url)
    await adopt_repository(Registry(VersionStore(database)), settings.model_repository)
    await database.close()


async def _subject(settings: Settings, repository: Path | None = None) -> Subject:
    folder = repository or settings.model_repository
    return read_subject(
        folder,
        "digits",
        await read_record(settings, folder, "digits"),
        version=None,
        image=None,
        shape=(1, 8, 8, 3),
        max_image_pixels=1_000_000,
    )


def _another(subject: Subject) -> Candidate:
    return replace(read_candidate(subject.config), instances=3, spinning=False, queue_delay_us=200)


def _file(settings: Settings) -> Path:
    return settings.model_repository / "digits/config.pbtxt"


async def test_the_record_and_the_file_are_changed(settings: Settings) -> None:
    """Every version with the same tensors is loaded as the candidate from now on; files say so."""
    await _adopt(settings)
    subject = await _subject(settings)
    candidate = _another(subject)
    before = await read_record(settings, settings.model_repository, "digits")
    assert before is not None
    assert await write_candidate(
        settings, settings.model_repository, subject, candidate
    ) == Written(file=True, versions=(1, 2))
    after = await read_record(settings, settings.model_repository, "digits")
    assert after is not None
    for number, version in before.versions.items():
        changed = parse(after.versions[number].config)
        assert changed == apply(parse(version.config), candidate)
        assert read_candidate(changed) == candidate
    assert read_candidate(parse(_file(settings).read_text())) == candidate


async def test_without_a_record_the_file_is_what_counts(settings: Settings) -> None:
    """A repository that no gateway has served: the file changes, and no database appears."""
    subject = await _subject(settings)
    written = await write_candidate(settings, settings.model_repository, subject, _another(subject))
    assert written == Written(file=True, versions=())
    assert not settings.data_dir.exists()
    published = read_published(settings.model_repository, "digits", subject.version)
    assert read_candidate(parse(published.config_text)) == _another(subject)


async def test_another_repository_has_no_record_here(settings: Settings, tmp_path: Path) -> None:
    """A model of the same name elsewhere is another model: the gateway's record stays."""
    await _adopt(settings)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(settings.model_repository, elsewhere)
    subject = await _subject(settings, elsewhere)
    written = await write_candidate(settings, elsewhere, subject, _another(subject))
    assert written == Written(file=True, versions=())
    record = await read_record(settings, settings.model_repository, "digits")
    assert record is not None
    present = read_candidate(parse(record.versions[1].config))
    assert present == replace(
        _another(subject), instances=present.instances, spinning=None, queue_delay_us=None
    )


async def test_the_record_is_what_is_tuned(settings: Settings) -> None:
    """A load takes the recorded configuration: that is the present one, whatever the file says."""
    await _adopt(settings)
    text = _file(settings).read_text()
    _file(settings).write_text(f"# by hand\n{text.replace('count: ', 'count: 1')}")
    subject = await _subject(settings)
    assert subject.config_text == text
    assert subject.version == 2
    await write_candidate(settings, settings.model_repository, subject, _another(subject))
    assert _file(settings).read_text().startswith("# by hand\n")


async def test_a_file_for_other_tensors_is_left_alone(settings: Settings) -> None:
    """A config.pbtxt that does not fit what was tuned belongs to another version."""
    await _adopt(settings)
    other = _file(settings).read_text().replace("dims: 10", "dims: 12")
    _file(settings).write_text(other)
    subject = await _subject(settings)
    written = await write_candidate(settings, settings.model_repository, subject, _another(subject))
    assert written == Written(file=False, versions=(1, 2))
    assert _file(settings).read_text() == other
