"""
Evaluate versions on their model's labelled set, through Triton, before they meet traffic.

A background task of one gateway evaluates every version that has no result on the model's current
set, loading it for as long as that takes if need be. A rollout asks `gate`: not worse than the
champion by more than half a point at 95 %. Shown to be worse: refused. Too few images to tell (that
takes at least 765): only a rollout that begins with a shadow may start, because nobody sees the
challenger there. Without a set there is no gate.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import structlog

from gateway.errors import (
    EvaluationFailed,
    EvaluationNotFound,
    EvaluationPending,
    GatewayError,
    StoreUnavailable,
)
from gateway.registry.lifecycle import Lifecycle
from gateway.registry.registry import Registry
from gateway.rollouts.control.asking import PASSING, loaded_meanwhile, patiently
from gateway.rollouts.control.calibration_split import calibration_indexes
from gateway.rollouts.control.evaluation_set import (
    MOST_CLASSES,
    EvaluationSet,
    images,
    path_of,
    read_set,
    store_file,
)
from gateway.rollouts.state.plan import Plan
from gateway.rollouts.statistics.evaluation import (
    UNJUDGED,
    Comparison,
    Scored,
    compare,
    evaluate,
    scored,
)
from gateway.rollouts.statistics.metrics import Strategy
from gateway.rollouts.statistics.verdict import Outcome
from gateway.store.cached_read import CachedRead
from gateway.store.evaluations import EvaluationStore
from gateway.store.leases import LeaseStore
from gateway.store.outage import StoreOutage
from gateway.store.rollout_tables import EvaluationRow, EvaluationSetRow
from gateway.store.rollouts import RolloutStore

log = structlog.get_logger(__name__)

AskVersion = Callable[[str, int, bytes], Awaitable[npt.NDArray[np.generic]]]
"""Sends an image to a version and returns its scores, or raises a GatewayError."""

ReadReport = Callable[[str, int], Awaitable[dict[str, Any] | None]]
"""Reads the validation report of a version; None if it was not uploaded."""

_ACTOR = "evaluation"
_LEASE, _LEASE_S = "evaluations", 10.0
_POLL_S = 1.0
_MOST_DELAY_S = 600.0
_Attempt = tuple[str, int, str]


class _Retry(NamedTuple):
    """When an evaluation is tried again (monotonic), and how long that was put off, in seconds."""

    at_s: float
    delay_s: float


_NEVER = _Retry(0.0, 1.0)


class Evaluations:
    """The sets and the results."""

    def __init__(
        self,
        store: EvaluationStore,
        rollouts: RolloutStore,
        leases: LeaseStore,
        registry: Registry,
        lifecycle: Lifecycle,
        reports: ReadReport,
        *,
        folder: Path,
        gateway: str,
    ) -> None:
        self._store = store
        self._rollouts = rollouts
        self._leases = leases
        self._registry = registry
        self._lifecycle = lifecycle
        self._reports = reports
        self.folder = folder
        self._gateway = gateway
        self._retry: dict[_Attempt, _Retry] = {}

    async def put_set(self, name: str, content: bytes) -> EvaluationSetRow:
        """
        Make a zip the set of a model. Its versions are evaluated in the background.

        Raises:
            ModelNotFound: No model has that name.
            EvaluationSetInvalid: It is no such zip; the text names file and line.
            StorageFull: There is no space for it.
        """
        model = (await self._registry.refresh()).model(name)
        digest, found = await asyncio.to_thread(
            store_file, self.folder, content, classes=model.classes or MOST_CLASSES
        )
        await self._store.put_set(name, digest, images=len(found.files), classes=found.classes)
        return await self.set_of(name)

    async def set_of(self, name: str) -> EvaluationSetRow:
        """
        Read a model's set.

        Raises:
            ModelNotFound, EvaluationNotFound: There is no such thing.
        """
        (await self._registry.refresh()).model(name)
        row = await self._store.set_of(name)
        if row is None:
            raise EvaluationNotFound(f"Model {name} has no evaluation set.")
        return row

    async def result(self, name: str, version: int) -> tuple[EvaluationRow, Comparison | None]:
        """
        Read a version's result on the model's set, and how it compares with the champion's.

        Raises:
            ModelNotFound, VersionNotFound, EvaluationNotFound: There is no such thing.
        """
        model = (await self._registry.refresh()).model(name)
        model.version(version)
        found = await self.set_of(name)
        results = await self._store.results(name, found.digest)
        if version not in results:
            raise EvaluationNotFound(f"Version {version} of {name} has not been evaluated yet.")
        row, champion = results[version], results.get(model.champion.version)
        if champion is None or champion.version == version:
            return row, None
        return row, await asyncio.to_thread(_compare, champion, row)

    async def gate(
        self, name: str, champion: int, challenger: int, plan: Plan
    ) -> Comparison | None:
        """
        Decide whether a rollout may begin. Return the comparison that lets it; None if the model
        has no set.

        Raises:
            EvaluationPending: A version is still being evaluated.
            EvaluationFailed: The challenger is worse, or could not be evaluated, or the set is too
            small to tell and the rollout does not begin with a shadow.
        """
        found = await self._store.set_of(name)
        if found is None:
            return None
        results = await self._store.results(name, found.digest)
        for version in (champion, challenger):
            if version not in results:
                raise EvaluationPending(
                    f"Version {version} of {name} is being evaluated on {found.images:,} images; "
                    "try again in a moment."
                )
        if results[challenger].error is not None:
            raise EvaluationFailed(
                f"Version {challenger} could not be evaluated: {results[challenger].error}"
            )
        compared = await asyncio.to_thread(_compare, results[champion], results[challenger])
        if compared is None:
            return None
        if compared.outcome is Outcome.FAILED:
            raise EvaluationFailed(compared.sentence)
        begins_hidden = plan.stages[0].strategy is Strategy.SHADOW
        if compared.outcome is Outcome.INCONCLUSIVE and not begins_hidden:
            raise EvaluationFailed(
                f"{compared.sentence} Begin with a shadow, which no caller sees."
            )
        return compared

    async def follow(self, ask: AskVersion) -> None:
        """Evaluate what is not evaluated yet, for ever, while this gateway holds the lease."""
        cached = CachedRead(self._rollouts.data_version, self._store.sets)
        outage = StoreOutage("evaluations_wait_for_the_store", "evaluations_go_on")
        while True:
            await asyncio.sleep(_POLL_S)
            with outage.tolerated():
                if (sets := await cached.get()) and await self._hold():
                    for found in sets:
                        await self._evaluate_missing(found, ask)

    async def _hold(self) -> bool:
        return await self._leases.hold(_LEASE, self._gateway, for_s=_LEASE_S) > 0

    async def _evaluate_missing(self, found: EvaluationSetRow, ask: AskVersion) -> None:
        model = self._registry.catalog.models.get(found.model)
        if model is None:
            return
        known = await self._store.evaluated(found.model, found.digest)
        for version in sorted(model.versions.keys() - known):
            attempt = (found.model, version, found.digest)
            if time.monotonic() < self._retry.get(attempt, _NEVER).at_s:
                continue
            try:
                result = await self._evaluate(found, version, ask)
            except StoreUnavailable:
                raise
            except PASSING as error:
                self._try_later(attempt, error.detail)
                continue
            except GatewayError as error:
                result = {"error": error.detail}
            except OSError:
                result = {"error": "The set's file is gone."}
            except Exception as error:
                # One set must not stop the evaluation of all the others.
                log.exception("evaluation_failed", model=found.model, version=version)
                result = {"error": f"It could not be evaluated ({type(error).__name__})."}
            self._retry.pop(attempt, None)
            await self._store.put_result(found.model, version, found.digest, **result)
            log.info("version_evaluated", model=found.model, version=version)

    def _try_later(self, attempt: _Attempt, reason: str) -> None:
        """Evaluate once more, after a delay that grows: what is in the way passes."""
        delay_s = min(_MOST_DELAY_S, 2 * self._retry.get(attempt, _NEVER).delay_s)
        self._retry[attempt] = _Retry(time.monotonic() + delay_s, delay_s)
        log.info("evaluation_tried_later", model=attempt[0], version=attempt[1], reason=reason)

    async def _evaluate(
        self, found: EvaluationSetRow, version: int, ask: AskVersion
    ) -> dict[str, Any]:
        name, path = found.model, path_of(self.folder, found.digest)
        labelled = await asyncio.to_thread(read_set, path)
        async with loaded_meanwhile(self._registry, self._lifecycle, name, version, actor=_ACTOR):
            answers, scores = await self._answers(name, version, path, labelled, ask)
        unjudged = await self._calibrated_on(found, version, labelled)
        labels = [
            UNJUDGED if index in unjudged else label for index, label in enumerate(labelled.labels)
        ]
        evaluated = await asyncio.to_thread(evaluate, labels, answers, scores)
        return {
            "answers": answers,
            "labels": labels,
            "evaluation": evaluated.to_json(),
        }

    async def _calibrated_on(
        self, found: EvaluationSetRow, version: int, labelled: EvaluationSet
    ) -> frozenset[int]:
        """Tell which images of a set a version was calibrated on: it is not judged on them."""
        report = await self._reports(found.model, version)
        stages = [] if report is None else report.get("stages", [])
        for stage in stages:
            calibration = stage["facts"].get("provenance", {}).get("calibration", {})
            if calibration.get("digest") == found.digest:
                return frozenset(calibration_indexes(labelled.files, calibration["images"]))
        return frozenset()

    async def _answers(
        self, name: str, version: int, path: Path, labelled: EvaluationSet, ask: AskVersion
    ) -> tuple[list[int], list[Scored | None]]:
        answers: list[int] = []
        rows: list[Scored | None] = []
        reading = images(path, labelled)
        while (encoded := await asyncio.to_thread(next, reading, None)) is not None:
            given = await patiently(partial(ask, name, version, encoded))
            rows.append(None if given is None else scored(labelled.labels[len(answers)], given))
            answers.append(-1 if given is None else int(np.argmax(given)))
            if len(answers) % 50 == 0:
                await self._hold()
        return answers, rows


def _compare(champion: EvaluationRow, challenger: EvaluationRow) -> Comparison | None:
    if champion.answers is None or challenger.answers is None or challenger.labels is None:
        return None
    return compare(challenger.labels, champion.answers, challenger.answers)
