"""
Publish a version of a model: the one entry for the gateway and the command line.

    copy into staging → read the signature of the copy → generate the configuration
    → write what is changed in the graph, if anything → rename

The labels lie in the version's directory because a new file beside config.pbtxt makes Triton reload
every version of the model; a version has its own labels or none. A rewritten config.pbtxt reloads
nothing as long as the versions are loaded with a configuration of their own, as the gateway does
(both seen on Triton 2.51).

Source: Triton, Model Repository; Triton, Model Management.
"""

import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from gateway.converter import model_config
from gateway.converter.beside import RECORD_FILE, write_record
from gateway.converter.digests import digest_file
from gateway.converter.errors import ModelInvalid
from gateway.converter.existing_config import complete, fits, with_labels
from gateway.converter.layout import (
    CONFIG_FILE,
    MODEL_FILE,
    choose_triton_model,
    next_version,
    published_versions,
    versions_in,
)
from gateway.converter.model_config import ConfigOptions
from gateway.converter.model_writer import write_model
from gateway.converter.names import check_model_name, check_version
from gateway.converter.place import check_version_place
from gateway.converter.plan import LABELS_FILE, PublishingPlan, plan_version
from gateway.converter.published import (
    PublishedVersion,
    newest_input,
    read_config,
    read_labels,
    read_published,
)
from gateway.converter.repository_writer import (
    copy_synced,
    one_at_a_time,
    publish_into_model,
    publish_model,
    staging_folder,
    synced_file,
    write_synced,
)
from gateway.converter.signature import ModelSignature
from gateway.converter.uint8_input import InputPolicy

__all__ = [
    "PublishedVersion",
    "next_version",
    "publish_version",
    "published_versions",
    "read_labels",
    "read_published",
]


def publish_version(
    source: Path,
    *,
    repository: Path,
    name: str,
    version: int,
    options: ConfigOptions,
    policy: InputPolicy | None = None,
    labels: Sequence[str] | None = None,
    check: Callable[[ModelSignature], None] | None = None,
    record: Mapping[str, Any] | None = None,
) -> PublishedVersion:
    """
    Publish a model file as a version. A crash leaves the version absent or complete.

    The model's config.pbtxt, if it fits the inputs and outputs, keeps what somebody tuned in it
    and only goes on to the new version; else it is replaced.

    Args:
        source: The model file.
        repository: The model repository; it is made if it is not there.
        name, version: Under which to publish.
        options: How to serve it.
        policy: When its graph gets a uint8 input; None: the default one. Where it does not say what
            the version must be able to stand beside, that is the newest one in the repository.
        labels: One class name for each score, in order.
        record: What is kept beside the file, so that a database can be made anew from it; what was
            changed in the graph is added.
        check: Called with the signature before anything is published; what it raises is raised.

    Raises:
        NameInvalid, NameConflict, VersionInvalid: The name or the number is not allowed.
        ModelInvalid, ExternalDataForbidden, SignatureUnsupported: The model is refused.
        ConfigInvalid: The model has a config.pbtxt that cannot be read.
        PathEscapes: The model's directory is a link out of the repository.
        RepositoryUnreadable: The model's directory cannot be read.
        VersionExists: The version is published already.
        StorageFull: No space is left; nothing was changed.
    """
    check_model_name(name)
    check_version(version)
    if not stat.S_ISREG(source.stat().st_mode):
        raise ModelInvalid("The model is not a file.")
    with staging_folder(repository) as staging:
        check_version_place(repository, name, version)
        # <staging>/NAME is laid out as the Triton model's directory will be.
        staged = staging / name / str(version)
        staged.mkdir(parents=True)
        copy = staging / MODEL_FILE
        copy_synced(source, copy)
        # Of the copy: what is described is what will be served, whatever becomes of the source.
        plan = plan_version(
            copy,
            name=name,
            version=version,
            options=options,
            policy=_beside_newest(policy or InputPolicy(), repository, name),
            labels=labels,
        )
        if check is not None:
            check(plan.signature)
        source_digest = digest_file(copy)
        placed = _place_model(plan, copy, staged / MODEL_FILE)
        digest = digest_file(placed) if plan.changes else source_digest
        size_bytes = placed.stat().st_size
        if labels is not None:
            write_synced(staged / LABELS_FILE, "".join(f"{label}\n" for label in labels))
        if record is not None:
            record = {**record, "changes": list(plan.changes), "source_digest": source_digest}
            write_synced(staged / RECORD_FILE, write_record(record))
        with one_at_a_time(repository):
            # Once more: versions of one model may lie in several directories.
            check_version_place(repository, name, version)
            text = _publish(staging / name, repository, name, version, plan)
    return PublishedVersion(
        name=name,
        version=version,
        digest=digest,
        source_digest=source_digest,
        size_bytes=size_bytes,
        signature=plan.signature,
        config_text=text,
        changes=plan.changes,
        kept_graph=plan.kept_graph,
        scores=plan.scores,
        trial_shape=plan.trial_shape,
        labels=None if labels is None else tuple(labels),
        record=record,
    )


def _beside_newest(policy: InputPolicy, repository: Path, name: str) -> InputPolicy:
    if policy.keep_graph is not None or policy.beside is not None:
        return policy
    return replace(policy, beside=newest_input(repository, name))


def _place_model(plan: PublishingPlan, copy: Path, target: Path) -> Path:
    """Bring the model where it is staged: the copy itself, or what is changed in it."""
    if not plan.changes:
        return copy.rename(target)
    with synced_file(target) as writing:
        write_model(plan.graph, copy, writing)
    copy.unlink()
    return target


def _publish(staged: Path, repository: Path, name: str, version: int, plan: PublishingPlan) -> str:
    """Move the staged model or version into its place; return the text of the configuration."""
    config = pb.ModelConfig()
    config.CopyFrom(plan.config)
    config.name = choose_triton_model(repository, name, plan.signature)
    model = repository / config.name
    if not model.exists():
        text = model_config.render(config)
        write_synced(staged / CONFIG_FILE, text)
        publish_model(staged, model)
        return text
    written = read_config(model)
    text = model_config.render(_keep_tuning(written, config, plan.signature))
    # The file serves the newest version, so that an older number leaves it as it is.
    newest = version > max(versions_in(model), default=0)
    replaced = text != written and (newest or written is None)
    if replaced:
        write_synced(staged / CONFIG_FILE, text)
    publish_into_model(
        staged / str(version),
        model / str(version),
        staged_config=staged / CONFIG_FILE if replaced else None,
        config=model / CONFIG_FILE,
    )
    return text


def _keep_tuning(
    written: str | None, config: pb.ModelConfig, signature: ModelSignature
) -> pb.ModelConfig:
    if written is None:
        return config
    tuned = complete(model_config.parse(written), config)
    if not fits(tuned, signature):
        return config
    if not config.model_warmup:
        del tuned.model_warmup[:]  # this graph may not take its shapes
    tuned = with_labels(tuned, config.output[0].label_filename, output=config.output[0].name)
    return model_config.with_versions(tuned, config.version_policy.specific.versions)
