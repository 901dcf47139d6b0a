"""Whether a model's directory can be worked in."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.converter import model_config
from gateway.converter.errors import ConverterError
from gateway.converter.model_config import ConfigOptions
from gateway.converter.place import check_model_place, free_version
from gateway.converter.publish import publish_version
from gateway.converter.unpublish import remove_version
from tests.model_family import classifier_case

_NOBODY = 65534


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    source = tmp_path / "source.onnx"
    source.write_bytes(classifier_case("m", (None, 8, 8, 3)).make().SerializeToString())
    repository = tmp_path / "repository"
    repository.mkdir()
    publish_version(source, repository=repository, name="m", version=1, options=ConfigOptions())
    return repository


def _write(content: bytes) -> Callable[[Path], None]:
    def damage(model: Path) -> None:
        (model / "config.pbtxt").write_bytes(content)

    return damage


def _cut(model: Path) -> None:
    config = model / "config.pbtxt"
    config.write_bytes(config.read_bytes()[:-30])


def _config_is_a_directory(model: Path) -> None:
    (model / "config.pbtxt").unlink()
    (model / "config.pbtxt").mkdir()


def _config_links_nowhere(model: Path) -> None:
    (model / "config.pbtxt").unlink()
    (model / "config.pbtxt").symlink_to("gone")


def _model_links_out(model: Path) -> None:
    model.rename(model.parent.parent / "elsewhere")
    model.symlink_to(model.parent.parent / "elsewhere")


def _model_links_to_itself(model: Path) -> None:
    model.rename(model.parent.parent / "elsewhere")
    model.symlink_to(model.name)


def _model_links_nowhere(model: Path) -> None:
    model.rename(model.parent.parent / "elsewhere")
    model.symlink_to(".gone")


def _model_is_a_file(model: Path) -> None:
    model.rename(model.parent.parent / "elsewhere")
    model.write_bytes(b"")


# What to do to a model's directory, and the code of the refusal.
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "typo": (_write(b'nome: "m"'), "config_invalid"),
    "cut": (_cut, "config_invalid"),
    "latin-1": (_write('# für\nname: "m"'.encode("latin-1")), "config_invalid"),
    "zeros": (_write(bytes(100)), "config_invalid"),
    "another model's": (_write(b'name: "other"'), "config_invalid"),
    "config is a directory": (_config_is_a_directory, "config_invalid"),
    "config links nowhere": (_config_links_nowhere, "config_invalid"),
    "model links out": (_model_links_out, "path_escapes"),
    "model links to itself": (_model_links_to_itself, "path_escapes"),
    "model links nowhere": (_model_links_nowhere, "repository_unreadable"),
    "model is a file": (_model_is_a_file, "repository_unreadable"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_directory_is_refused_and_not_touched(repository: Path, damage: str) -> None:
    """By a code of its own; to choose a number and to remove a version likewise."""
    damaging, code = DAMAGES[damage]
    damaging(repository / "m")
    before = _tree(repository)
    for attempt in (
        lambda: check_model_place(repository, "m"),
        lambda: free_version(repository, "m"),
        lambda: remove_version(repository, "m", 1),
    ):
        with pytest.raises(ConverterError, match="m") as raised:
            attempt()
        assert raised.value.code == code
        assert str(repository) not in str(raised.value)
    assert _tree(repository) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("path", ["m", "m/config.pbtxt"])
def test_what_the_modes_forbid_is_refused(repository: Path, path: str) -> None:
    """A directory or a config.pbtxt that this user may not read: a refusal, no crash."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to others
        Path(folder).chmod(0o755)
        shutil.copytree(repository / "m", Path(folder, "m"))
        os.seteuid(_NOBODY)
        try:
            check_model_place(Path(folder), "m")
            os.seteuid(0)
            Path(folder, path).chmod(0)
            os.seteuid(_NOBODY)
            with pytest.raises(ConverterError, match="m") as raised:
                check_model_place(Path(folder), "m")
        finally:
            os.seteuid(0)
    assert raised.value.code == "repository_unreadable"


def test_a_config_may_be_missing(repository: Path) -> None:
    """Removing it is what its refusal advises: the next version brings a new one."""
    (repository / "m/config.pbtxt").unlink()
    assert free_version(repository, "m") == 2
    publish_version(
        repository / "m/1/model.onnx",
        repository=repository,
        name="m",
        version=2,
        options=ConfigOptions(),
    )
    written = model_config.parse((repository / "m/config.pbtxt").read_text())
    assert list(written.version_policy.specific.versions) == [2]


def _tree(repository: Path) -> list[tuple[str, bytes]]:
    return sorted(
        (str(path.relative_to(repository)), path.read_bytes() if path.is_file() else b"")
        for path in repository.rglob("*")
    )
