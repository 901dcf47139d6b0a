"""Publishing: what lies in the repository afterwards, and what is left alone."""

import hashlib
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.converter import model_config, plan
from gateway.converter.errors import (
    ConfigInvalid,
    ConverterError,
    ExternalDataForbidden,
    ModelInvalid,
    NameConflict,
    NameInvalid,
    PathEscapes,
    SignatureUnsupported,
    VersionExists,
    VersionInvalid,
    VersionMissing,
)
from gateway.converter.existing_config import fits
from gateway.converter.model_config import ConfigOptions
from gateway.converter.names import MAX_VERSION
from gateway.converter.placement import Placement
from gateway.converter.publish import (
    PublishedVersion,
    next_version,
    publish_version,
    published_versions,
    read_labels,
    read_published,
)
from gateway.converter.repository_writer import STAGING
from gateway.converter.signature import check_classifier
from gateway.converter.uint8_input import InputPolicy
from gateway.converter.unpublish import remove_version
from tests.model_family import FAMILY, classifier_case, original_model

OPTIONS = ConfigOptions(placement=Placement(1, 1))
# What a retrained model may change in its inputs and outputs.
CHANGES = {
    "classes": classifier_case("c", (1, 8, 8, 3), classes=6),
    "size": classifier_case("c", (1, 9, 9, 3)),
    "free size": classifier_case("c", (1, None, None, 3)),
    "layout": classifier_case("c", (1, 3, 8, 8)),
    "batch": classifier_case("c", (None, 8, 8, 3)),
    "input name": classifier_case("c", (1, 8, 8, 3), input_name="pixels"),
    "output name": classifier_case("c", (1, 8, 8, 3), output_name="logits"),
}
LABELS = ["ant", "line\u2028end", "cow", "'\"", "é"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    original_model(tmp_path / "source.onnx", 5)
    return tmp_path / "source.onnx"


def _publish(
    source: Path,
    repository: Path,
    version: int = 1,
    *,
    name: str = "m",
    labels: list[str] | None = None,
    keep_graph: bool | None = None,
) -> PublishedVersion:
    return publish_version(
        source,
        repository=repository,
        name=name,
        version=version,
        options=OPTIONS,
        policy=InputPolicy(keep_graph=keep_graph),
        labels=labels,
    )


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_first_version_is_complete(source: Path, repository: Path) -> None:
    """The model, its labels and its configuration are there, and nothing else is."""
    published = _publish(source, repository, labels=LABELS, keep_graph=True)
    assert _files(repository) == {
        "m/config.pbtxt": published.config_text.encode(),
        "m/1/model.onnx": source.read_bytes(),
        "m/1/labels.txt": "".join(f"{label}\n" for label in LABELS).encode(),
    }
    digest = "sha256:" + hashlib.sha256(source.read_bytes()).hexdigest()
    assert published.digest == published.source_digest == digest
    assert published.size_bytes == source.stat().st_size
    assert published.changes == ()
    config = model_config.parse(published.config_text)
    assert config.output[0].label_filename == "1/labels.txt"
    assert read_labels(repository, "m", 1) == tuple(LABELS)
    assert replace(published, kept_graph=False) == read_published(repository, "m", 1)


def test_next_version_keeps_tuning_and_the_files_of_the_first(
    source: Path, repository: Path
) -> None:
    """With the same tensors only the version policy of config.pbtxt moves on."""
    _publish(source, repository)
    first = (repository / "m/1/model.onnx").stat()
    config = repository / "m/config.pbtxt"
    tuned = model_config.parse(config.read_text())
    tuned.instance_group[0].count = 7
    tuned.metric_tags["owner"] = "vision"
    config.write_text(model_config.render(tuned))
    published = _publish(source, repository, next_version(repository, "m"))
    assert published.version == 2
    assert config.read_text() == published.config_text
    assert model_config.parse(published.config_text) == model_config.with_versions(tuned, [2])
    assert (repository / "m/1/model.onnx").stat() == first
    assert sorted(path.name for path in (repository / "m").iterdir()) == ["1", "2", "config.pbtxt"]


@pytest.mark.parametrize("change", CHANGES)
def test_other_tensors_get_a_triton_model_of_their_own(
    change: str, tmp_path: Path, repository: Path
) -> None:
    """Versions that share a signature share a Triton model, named N for the first of them."""
    first = classifier_case("a", (1, 8, 8, 3)).build(tmp_path / "first.onnx")
    other = CHANGES[change].build(tmp_path / "other.onnx")
    for version, source in enumerate((first, other, first, other), start=1):
        published = _publish(source, repository, version)
        name = "m" if source == first else "m.signature-2"
        config = model_config.parse(published.config_text)
        assert config.name == name
        assert fits(config, published.signature)
        assert (repository / name / "config.pbtxt").read_text() == published.config_text
        assert (repository / name / str(version) / "model.onnx").is_file()
        assert replace(read_published(repository, "m", version), source_digest="") == replace(
            published, source_digest="", changes=()
        )
    assert published_versions(repository, "m") == [1, 2, 3, 4]
    assert next_version(repository, "m") == 5
    third = classifier_case("d", (1, 5, 5, 3)).build(tmp_path / "third.onnx")
    assert model_config.parse(_publish(third, repository, 5).config_text).name == "m.signature-3"
    remove_version(repository, "m", 2)
    assert published_versions(repository, "m") == [1, 3, 4, 5]
    remove_version(repository, "m", 4)
    assert not (repository / "m.signature-2").exists()
    assert published_versions(repository, "m") == [1, 3, 5]


def test_one_number_is_given_once_whatever_is_published(tmp_path: Path, repository: Path) -> None:
    """In the directory of another signature, too, a taken number is refused."""
    first = classifier_case("a", (1, 8, 8, 3)).build(tmp_path / "first.onnx")
    other = classifier_case("b", (1, 9, 9, 3)).build(tmp_path / "other.onnx")
    _publish(first, repository, 1)
    with pytest.raises(VersionExists):
        _publish(other, repository, 1)
    _publish(other, repository, 2)
    with pytest.raises(VersionExists):
        _publish(first, repository, 2)


def test_large_models_have_no_second_session(
    source: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads for a request that is alone cost the weights once more: not above the limit."""
    latency = replace(OPTIONS, placement=Placement(2, 1, latency_threads=2))
    for limit, expected in ((source.stat().st_size, True), (source.stat().st_size - 1, False)):
        monkeypatch.setattr(plan, "_LATENCY_SESSION_BYTES", limit)
        name = f"m{limit}"
        publish_version(source, repository=repository, name=name, version=1, options=latency)
        assert ("latency." in (repository / name / "config.pbtxt").read_text()) is expected


def test_older_number_leaves_the_config_of_the_newest(source: Path, repository: Path) -> None:
    """config.pbtxt serves the newest version, in whatever order they are published."""
    _publish(source, repository, 3)
    before = (repository / "m/config.pbtxt").read_bytes()
    published = _publish(source, repository, 2)
    assert (repository / "m/config.pbtxt").read_bytes() == before
    assert "versions: 2" in published.config_text


def test_labels_belong_to_their_version(source: Path, repository: Path) -> None:
    """A version has its own labels or none: those of another may be removed with it."""
    _publish(source, repository, 1, labels=LABELS)
    without = _publish(source, repository, 2)
    assert "label_filename" not in without.config_text
    assert read_labels(repository, "m", 2) is None
    changed = _publish(source, repository, 3, labels=LABELS[::-1])
    assert 'label_filename: "3/labels.txt"' in changed.config_text
    assert read_labels(repository, "m", 1) == tuple(LABELS)
    for version, labels in ((1, "1/labels.txt"), (2, ""), (3, "3/labels.txt")):
        text = read_published(repository, "m", version).config_text
        assert model_config.parse(text).output[0].label_filename == labels


def test_labels_that_somebody_placed_elsewhere_stay(source: Path, repository: Path) -> None:
    """A file of their own beside config.pbtxt is part of what they tuned."""
    text = _publish(source, repository).config_text
    tuned = model_config.parse(text)
    tuned.output[0].label_filename = "classes.txt"
    (repository / "m/config.pbtxt").write_text(model_config.render(tuned))
    assert 'label_filename: "classes.txt"' in _publish(source, repository, 2).config_text
    labelled = _publish(source, repository, 3, labels=LABELS)
    assert 'label_filename: "3/labels.txt"' in labelled.config_text


def test_version_is_immutable(tmp_path: Path, source: Path, repository: Path) -> None:
    """A number that is taken is refused, also by an empty directory or a dangling link."""
    _publish(source, repository)
    (repository / "m/2").mkdir()
    (repository / "m/3").symlink_to("nowhere")
    before = _files(repository)
    original_model(tmp_path / "other.onnx", 9)
    for version in (1, 2, 3):
        with pytest.raises(VersionExists):
            _publish(tmp_path / "other.onnx", repository, version)
    assert _files(repository) == before


@pytest.mark.parametrize("first", [True, False], ids=["new-model", "new-version"])
def test_concurrent_publishers_get_one_version_each(
    first: bool, tmp_path: Path, repository: Path
) -> None:
    """
    Of several that publish one number at once, each with other tensors, one succeeds, and its
    model is the only one there, in the Triton model of its tensors.
    """
    if not first:
        original_model(tmp_path / "base.onnx", 5)
        _publish(tmp_path / "base.onnx", repository, 1)
    sources = [tmp_path / f"{classes}.onnx" for classes in range(3, 9)]
    for path in sources:
        original_model(path, int(path.stem))
    start = threading.Barrier(len(sources))
    outcomes: list[PublishedVersion | ConverterError] = []

    def publish(path: Path) -> None:
        start.wait()
        try:
            outcomes.append(_publish(path, repository, 2))
        except ConverterError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=publish, args=[path]) for path in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [outcome for outcome in outcomes if isinstance(outcome, PublishedVersion)]
    losers = [outcome for outcome in outcomes if isinstance(outcome, ConverterError)]
    assert {type(error) for error in losers} == {VersionExists}
    assert read_published(repository, "m", 2).digest == winner.digest
    (version,) = repository.glob("m*/2")
    config = version.parent / "config.pbtxt"
    assert config.read_text() == winner.config_text
    assert model_config.parse(winner.config_text).name == version.parent.name
    assert published_versions(repository, "m") == ([2] if first else [1, 2])
    assert not list((repository / STAGING).iterdir())


def test_two_first_versions_at_once_are_both_published(tmp_path: Path, repository: Path) -> None:
    """Two numbers of a new model, published at once, do not hinder each other."""
    start = threading.Barrier(2)
    failures: list[BaseException] = []

    def publish(version: int) -> None:
        path = tmp_path / f"{version}.onnx"
        original_model(path, 5, seed=version)
        start.wait()
        try:
            _publish(path, repository, version)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=publish, args=[version]) for version in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert published_versions(repository, "m") == [1, 2]


def _external(path: Path) -> None:
    model = FAMILY[0].make()
    model.graph.initializer[0].external_data.add(key="location", value="x")
    path.write_bytes(model.SerializeToString())


def test_refused_models_leave_nothing(tmp_path: Path, source: Path, repository: Path) -> None:
    """Whatever is wrong with the model, the repository is as it was, without a new folder."""
    _publish(source, repository)
    before = _files(repository)
    external = tmp_path / "external.onnx"
    _external(external)
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"garbage")
    pipe = tmp_path / "pipe.onnx"
    os.mkfifo(pipe)
    for path, error in (
        (external, ExternalDataForbidden),
        (garbage, ModelInvalid),
        (tmp_path, ModelInvalid),
        (pipe, ModelInvalid),
        (tmp_path / "absent.onnx", FileNotFoundError),
    ):
        for name in ("m", "new"):
            with pytest.raises(error):
                _publish(path, repository, 2, name=name)
    assert _files(repository) == before
    assert sorted(path.name for path in repository.iterdir()) == [STAGING, "m"]
    assert not list((repository / STAGING).iterdir())


def test_check_is_asked_before_anything_is_published(source: Path, repository: Path) -> None:
    """The caller's own rule can refuse a model by its signature."""

    def refuse(_: object) -> None:
        raise SignatureUnsupported("no")

    for check, outcome in ((refuse, []), (check_classifier, [1])):
        try:
            publish_version(
                source, repository=repository, name="m", version=1, options=OPTIONS, check=check
            )
        except SignatureUnsupported:
            assert check is refuse
        assert published_versions(repository, "m") == outcome


def test_names_and_versions_are_checked_first(source: Path, repository: Path) -> None:
    """Nothing is created for a name that climbs or a number that is none."""
    with pytest.raises(NameInvalid):
        _publish(source, repository, name="../m")
    with pytest.raises(VersionInvalid):
        _publish(source, repository, 0)
    assert not repository.exists()


def test_names_that_differ_in_case_only_are_refused(source: Path, repository: Path) -> None:
    """A repository must be the same on every file system."""
    _publish(source, repository, name="Model")
    with pytest.raises(NameConflict, match="Model"):
        _publish(source, repository, name="model")
    _publish(source, repository, 2, name="Model")


@pytest.mark.parametrize("labels", [["one"], [*LABELS[:4], ""], [*LABELS[:4], "a\nb"]])
def test_labels_must_fit_the_classes(labels: list[str], source: Path, repository: Path) -> None:
    """One label for each class, each on one line."""
    with pytest.raises(SignatureUnsupported):
        _publish(source, repository, labels=labels)
    assert not (repository / "m").exists()


def test_links_out_of_the_repository_are_refused(
    tmp_path: Path, source: Path, repository: Path
) -> None:
    """Neither written through nor read through."""
    outside = tmp_path / "outside"
    (outside / "1").mkdir(parents=True)
    (outside / "1/model.onnx").write_bytes(source.read_bytes())
    repository.mkdir()
    (repository / "linked").symlink_to(outside)
    with pytest.raises(PathEscapes):
        _publish(source, repository, 2, name="linked")
    with pytest.raises(PathEscapes):
        read_published(repository, "linked", 1)
    _publish(source, repository)
    (repository / "m/2").mkdir()
    (repository / "m/2/model.onnx").symlink_to(source)
    with pytest.raises(PathEscapes):
        read_published(repository, "m", 2)
    (repository / "m/config.pbtxt").unlink()
    (repository / "m/config.pbtxt").symlink_to(source)
    with pytest.raises(PathEscapes):
        read_published(repository, "m", 1)
    assert _files(outside) == {"1/model.onnx": source.read_bytes()}


def test_link_inside_the_repository_is_followed(source: Path, repository: Path) -> None:
    """A repository may itself be reached by a link, and share files within."""
    _publish(source, repository)
    (repository / "m/2").mkdir()
    (repository / "m/2/model.onnx").symlink_to("../1/model.onnx")
    alias = repository.with_name("alias")
    alias.symlink_to(repository)
    assert read_published(alias, "m", 2).digest == read_published(repository, "m", 1).digest


def test_hand_written_config_is_kept_to_the_letter(source: Path, repository: Path) -> None:
    """Comments and layout of a configuration that fits are adopted as they are."""
    (repository / "m/1").mkdir(parents=True)
    (repository / "m/1/model.onnx").write_bytes(source.read_bytes())
    text = (
        '# by hand\nbackend: "onnxruntime" max_batch_size: 4\n'
        'input { name: "image" data_type: TYPE_FP32 dims: [ 32, 32, 3 ] }\n'
        'output { name: "scores" data_type: TYPE_FP32 dims: [ 5 ] }\n'
    )
    (repository / "m/config.pbtxt").write_text(text)
    before = _files(repository)
    assert read_published(repository, "m", 1).config_text == text
    assert _files(repository) == before


def test_version_without_config_is_described_by_a_generated_one(
    source: Path, repository: Path
) -> None:
    """A bare model file can be adopted; reading writes nothing."""
    (repository / "m/1").mkdir(parents=True)
    (repository / "m/1/model.onnx").write_bytes(source.read_bytes())
    text = read_published(repository, "m", 1).config_text
    assert model_config.parse(text).input[0].name == "image"
    assert list(_files(repository)) == ["m/1/model.onnx"]


@pytest.mark.parametrize("content", [b"{", b'name: "other"', b"\xff\xfe"])
def test_broken_config_is_refused_and_kept(content: bytes, source: Path, repository: Path) -> None:
    """Somebody's broken file is reported, not overwritten."""
    _publish(source, repository)
    (repository / "m/config.pbtxt").write_bytes(content)
    with pytest.raises(ConfigInvalid):
        read_published(repository, "m", 1)
    with pytest.raises(ConfigInvalid):
        _publish(source, repository, 2)
    assert (repository / "m/config.pbtxt").read_bytes() == content
    assert published_versions(repository, "m") == [1]


def test_missing_version_is_said_to_be_missing(source: Path, repository: Path) -> None:
    """Reading what is not there is an error of its own."""
    _publish(source, repository)
    for name, version in (("m", 2), ("other", 1)):
        with pytest.raises(VersionMissing):
            read_published(repository, name, version)


def test_next_version_counts_what_triton_counts(repository: Path) -> None:
    """01, abc and files are no versions, but a file takes its number; after the last is none."""
    assert next_version(repository, "m") == 1
    for entry in ("2", "10", "01", "099", "abc", ".20"):
        (repository / "m" / entry).mkdir(parents=True)
    (repository / "m/30").write_bytes(b"")
    assert published_versions(repository, "m") == [2, 10]
    assert next_version(repository, "m") == 31
    (repository / "m" / str(MAX_VERSION)).mkdir()
    with pytest.raises(VersionInvalid):
        next_version(repository, "m")


def test_guessed_warm_up_is_left_out_where_it_would_fail(tmp_path: Path, repository: Path) -> None:
    """A warm-up of the wrong size fails a load, so none is written where the graph objects."""
    case = next(case for case in FAMILY if case.id == "one-size-declared-free")
    published = _publish(case.build(tmp_path / "model.onnx"), repository)
    assert not model_config.parse(published.config_text).model_warmup
