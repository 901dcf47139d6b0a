"""
Registration: from an uploaded file to a version that can be loaded.

    claim nothing yet → validate in a process of its own → claim a number (a row)
    → publish (copy, fsync, rename) → record (one transaction that also ends the claim)

A crash before the claim leaves a staged file, which is swept. A crash after it leaves a claim; its
files, if there are any, are removed at the next start: the version is absent or complete. Two
gateways on one database meet at the claim: the same bytes with the same record become one version.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from gateway.converter.errors import ConverterError
from gateway.converter.names import check_model_name, is_portable
from gateway.converter.place import check_model_place, free_version
from gateway.errors import DeadlineExceeded, NameConflict, NameInvalid
from gateway.registry.artifacts import Artifacts
from gateway.registry.differences import answers_first, champion_differences
from gateway.registry.identity import champion_input, find_version, record_of
from gateway.registry.mending import mend
from gateway.registry.publishing import publish
from gateway.registry.refusals import as_refusals, refusal_of
from gateway.registry.registry import Registry
from gateway.registry.staging import Staging
from gateway.registry.unfinished import UnfinishedVersions
from gateway.registry.upload import UPLOAD, Upload, UploadPlaces, digest_of_record, new_version
from gateway.registry.validation.report import Report
from gateway.registry.validation.validator import Validated, Validator
from gateway.registry.versions import CHAMPION, ModelVersion
from gateway.store.registrations import Claim, RegistrationStore

log = structlog.get_logger(__name__)

_PENDING_POLL_S = 0.1
_PENDING_TIMEOUT_S = 120.0
_TOOK_OVER = "The champion could not answer any image: this version is champion now."


@dataclass(frozen=True, slots=True)
class Registered:
    """The version that an upload is now. `created` is False if it was that before."""

    version: ModelVersion
    created: bool
    warnings: tuple[str, ...]
    proposal: dict[str, Any] | None = None


class Registration:
    """Registers uploads. Lives as long as the app."""

    def __init__(
        self,
        registry: Registry,
        store: RegistrationStore,
        staging: Staging,
        repository: Path,
        validator: Validator,
        *,
        max_uploads: int,
        validating: AbstractAsyncContextManager[None],
    ) -> None:
        self.staging = staging
        self._registry = registry
        self.store = store
        self._repository = repository
        self._artifacts = Artifacts(repository, registry)
        self._unfinished = UnfinishedVersions(registry, store, staging, repository)
        self._validator = validator
        self.places = UploadPlaces(max_uploads)
        self._validating = validating
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def check_name(self, name: str) -> str:
        """
        Check a name before its model is uploaded.

        Raises:
            NameInvalid: It cannot name a model.
            NameConflict: A model exists whose name differs only in case.
        """
        try:
            check_model_name(name)
        except ConverterError as error:
            raise NameInvalid(str(error)) from error
        if name not in self._registry.catalog.models and not is_portable(name):
            raise NameInvalid(f"{name} is no name for a directory on every file system.")
        folded = name.casefold()
        for other in self._registry.catalog.models:
            if other != name and other.casefold() == folded:
                raise NameConflict(f"{name} differs from the model {other} in nothing but case.")
        return name

    async def register(
        self,
        upload: Upload,
        *,
        name: str,
        preprocessing: str | None,
        labels: Sequence[str] | None,
        keep_graph: bool | None,
        actor: str,
    ) -> Registered:
        """
        Make an upload a version of a model, or find the version that it is already.

        Args:
            upload: The file.
            name: The model's name, new or not.
            preprocessing: A preset, a JSON record, `proposed`, or None.
            labels: One class name for each score, or None.
            keep_graph: Publish the graph as it is (True), or with a uint8 input where that is exact
                (False). None: the latter, unless the champion takes what the graph takes.
            actor: Who registers it.

        Raises:
            NameInvalid, NameConflict: The name cannot be used.
            ModelRejected: Validation refused the file; `code` says why.
            ArtifactCorrupt: The version's file is damaged and cannot be made again of the upload.
            PreprocessingInvalid, LabelsInvalid: They do not fit the model.
            StorageFull, StoreUnavailable: Nothing was changed.
        """
        self.check_name(name)
        # Uploads of one name take turns; those of the same bytes are validated once.
        async with self._locks[name]:
            model = (await self._registry.refresh()).models.get(name)
            known = find_version(
                model,
                upload.digest,
                preprocessing=preprocessing,
                labels=labels,
                keep_graph=keep_graph,
            )
            if known is not None:
                return await self._known(known, upload)
            # Before the minutes of validation; and once more before a number is claimed.
            await self._check_place(name)
            async with self._validating:
                validated = await self._validator.validate(
                    upload.path,
                    upload.size_bytes,
                    folder=upload.folder,
                    name=name,
                    preprocessing=preprocessing,
                    labels=labels,
                    keep_graph=keep_graph,
                    beside=champion_input(model),
                    sidecars=upload.sidecars,
                )
            _raise_refusal(validated.report, name)
            labels = validated.labels
            claim = await self._claim(name, upload, digest_of_record(validated, labels))
            version, created = claim.version, claim.state != "registered"
            warnings = list(validated.report.warnings)
            if created:
                warnings += await self._publish(upload, name, version, validated, labels, actor)
            if not created and model is None:
                # The folder that brought it has taken it away; now somebody wants it.
                await self._registry.store.set_source(name, UPLOAD)
            catalog = await self._registry.refresh()
            registered = catalog.model(name).version(version)
        if created:
            log.info("model_registered", model=name, version=version, digest=registered.digest)
        differing = champion_differences(catalog.model(name), version)
        proposal = validated.proposal
        return Registered(registered, created, (*warnings, *differing), proposal)

    async def _known(self, version: ModelVersion, upload: Upload) -> Registered:
        """Answer bytes that are registered; where the published file is damaged, mend it."""
        if await self._artifacts.is_intact(version):
            return Registered(version, created=False, warnings=())
        await self._check_place(version.model)
        await mend(
            version,
            upload.path,
            folder=upload.folder,
            repository=self._repository,
            lock=self.staging.lock,
        )
        warning = f"The file of version {version.version} was damaged; it was put back."
        return Registered(version, created=False, warnings=(warning,))

    async def report(self, name: str, version: int) -> dict[str, Any] | None:
        """Read a version's validation report; None if it was not uploaded."""
        return await self.store.report(name, version)

    async def remove(self, name: str, versions: Sequence[int], *, whole: bool, actor: str) -> None:
        """
        Delete versions: their records first, then their files. Their numbers are not used again.

        Raises:
            VersionInUse: An alias, a load or a rollout holds one of them; nothing was deleted.
            ModelRejected: The model's directory, or its config.pbtxt, is in a state in which no
            version can be taken out of it; nothing was deleted.
            RepositoryReadOnly: Its files cannot be removed; nothing was deleted.
        """
        self.staging.require()
        async with self._locks[name]:
            await self._check_place(name)
            await self.store.delete_versions(
                name, versions, whole=whole, owner=self.staging.owner, actor=actor
            )
            await self._registry.refresh()
            for version in versions:
                await self._unfinished.remove_or_leave(name, version)
        log.info("versions_deleted", model=name, versions=list(versions))

    async def recover(self) -> None:
        """
        Settle what gateways that are gone have left.

        Raises:
            StoreUnavailable: The database cannot be read.
        """
        await self._unfinished.recover()

    async def _check_place(self, name: str) -> None:
        """Refuse what a model's directory does not allow, before anything is changed."""
        with as_refusals():
            await asyncio.to_thread(check_model_place, self._repository, name)

    async def _claim(self, name: str, upload: Upload, record_digest: str) -> Claim:
        """Claim a number; wait while another gateway publishes the same bytes."""
        with as_refusals():
            at_least = await asyncio.to_thread(free_version, self._repository, name)
        try:
            async with asyncio.timeout(_PENDING_TIMEOUT_S):
                while True:
                    claim = await self.store.claim(
                        name,
                        source_digest=upload.digest,
                        record_digest=record_digest,
                        owner=self.staging.owner,
                        at_least=at_least,
                    )
                    if claim.state != "pending":
                        return claim
                    if claim.owner != self.staging.owner and self.staging.alive(claim.owner):
                        await asyncio.sleep(_PENDING_POLL_S)
                    else:
                        await self._unfinished.recover_model(name)
        except TimeoutError:
            raise DeadlineExceeded(f"Another gateway is still publishing {name}.") from None

    async def _publish(
        self,
        upload: Upload,
        name: str,
        version: int,
        validated: Validated,
        labels: Sequence[str] | None,
        actor: str,
    ) -> list[str]:
        trial = validated.report.facts("trial")
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._unfinished.abandon, name, version)
            published = await publish(
                upload.path,
                folder=upload.folder,
                repository=self._repository,
                name=name,
                version=version,
                max_batch_size=trial["max_batch_size"],
                change_graph=validated.change_graph,
                labels=labels,
                record=record_of(
                    validated.preprocessing,
                    kept_graph=validated.kept_graph,
                    scores=trial["scores"],
                    trial_shape=trial["input_shapes"][0],
                ),
                lock=self.staging.lock,
            )
            new = new_version(name, upload, published, validated, labels)
            model = (await self._registry.refresh()).models.get(name)
            takes_over = answers_first(model, published.signature, validated.preprocessing)
            aliases = [CHAMPION] if takes_over else []
            await self._registry.store.add_version(new, actor=actor, aliases=aliases)
            undo.pop_all()
        return [_TOOK_OVER] if takes_over else []


def _raise_refusal(report: Report, name: str) -> None:
    refusal = report.refusal
    if refusal is None:
        return
    code = refusal.code or "model_invalid"
    log.info("model_refused", model=name, stage=refusal.name, code=code, detail=refusal.detail)
    raise refusal_of(code, refusal.detail or "The model was refused.")
