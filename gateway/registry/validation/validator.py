"""
Validate an upload: run the validating process, and say what its end means.

A process that ends by itself has written its report. One that did not is judged by how it ended:
at its deadline, out of memory, or crashed; the first stage that its report lacks is to blame.
"""

import json
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gateway.converter.signature import TensorSignature
from gateway.registry.validation.child import REPORT_FILE
from gateway.registry.validation.report import STAGES, Report, ValidationStage
from gateway.system.child_process import Ended, run_child
from gateway.system.full_disk import storage_full
from gateway.system.processes import describe_exit

_MODULE = "gateway.registry.validation.child"
_FOLDER = "validation"
# For the report, with the class names that it proposes; the process writes nothing else.
_FILE_BYTES = 16 << 20
# The file as bytes, parsed, in the runtime's session, and in its optimised form.
_MEMORY_BY_FILE = 5


@dataclass(frozen=True, slots=True)
class Validated:
    """
    The outcome.

    Attributes:
        report: Stage by stage.
        preprocessing: The record that the version gets; None: raw pixels, or none.
        labels: The class names that it gets; None: none.
        proposal: `preprocessing`, `labels` and `sources` of what the file, or what lies beside it,
            says; None: nothing.
    """

    report: Report
    preprocessing: dict[str, Any] | None
    labels: list[str] | None = None
    proposal: dict[str, Any] | None = None

    @property
    def change_graph(self) -> bool:
        """Whether the version is published with a Cast from UINT8 in front of its graph."""
        return bool(self.report.facts("trial")["changes"])

    @property
    def kept_graph(self) -> bool:
        """Whether it would be, but was asked to stay as it is."""
        return bool(self.report.facts("config")["kept_graph"])


@dataclass(frozen=True, slots=True)
class Validator:
    """
    How uploads are validated.

    Attributes:
        memory_bytes: What a validating process may use, and five times the file on top.
        timeout_s: Its deadline; processor time is bounded alike.
        runtime: `local`, or a release of onnxruntime.
        max_batch_size: The largest batch that is tried and, if all is well, served.
    """

    memory_bytes: int
    timeout_s: float
    runtime: str
    max_batch_size: int = 8

    async def validate(
        self,
        model: Path,
        size_bytes: int,
        *,
        folder: Path,
        name: str,
        preprocessing: str | None,
        labels: Sequence[str] | None,
        keep_graph: bool | None = None,
        beside: TensorSignature | None = None,
        sidecars: Sequence[str] = (),
    ) -> Validated:
        """
        Examine a file in a process of its own.

        Args:
            model, size_bytes: The file, absolute, and its size; it is only read.
            folder: An existing folder; the process gets one in it.
            name: The model's name.
            preprocessing, labels: What was asked for at registration.
            sidecars: The texts of the JSON files beside it.
            keep_graph, beside: Whether the graph is published as it is: `InputPolicy`.

        Raises:
            StorageFull: There was no space for the report.
        """
        # Of its own: the process may write into it, and must not change the model.
        own = folder / _FOLDER
        with storage_full():
            own.mkdir(exist_ok=True)
        request = {
            "model": str(model),
            "folder": str(own),
            "name": name,
            "preprocessing": preprocessing,
            "labels": None if labels is None else list(labels),
            "max_batch_size": self.max_batch_size,
            "keep_graph": keep_graph,
            "beside": None if beside is None else asdict(beside),
            "sidecars": list(sidecars),
            "runtime": self.runtime,
            "limits": {
                "memory_bytes": self.memory_bytes + _MEMORY_BY_FILE * size_bytes,
                "cpu_s": max(1, round(self.timeout_s)),
                "file_bytes": _FILE_BYTES,
            },
        }
        ended = await run_child(_MODULE, request, folder=own, timeout_s=self.timeout_s)
        return _read_report(own / REPORT_FILE, ended, self.runtime)


def _read_report(path: Path, ended: Ended, runtime: str) -> Validated:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        validated = Validated(
            Report.from_json(stored), stored["preprocessing"], stored["labels"], stored["proposal"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        validated = Validated(Report(runtime), None)
    report = validated.report
    finished = report.refusal is not None or len(report.stages) == len(STAGES)
    if ended.code == 0 and finished and not ended.timed_out:
        return validated
    code, detail = _meaning(ended)
    blamed = STAGES[min(len(report.stages), len(STAGES) - 1)]
    stage = ValidationStage(
        blamed, ok=False, took_s=0.0, code=code, detail=f"{detail} (stage: {blamed})"
    )
    passed = tuple(stage for stage in report.stages if stage.ok and stage.name != blamed)
    return replace(validated, report=Report(report.runtime, (*passed, stage), report.warnings))


def _meaning(ended: Ended) -> tuple[str, str]:
    if ended.timed_out or ended.code == -signal.SIGXCPU:
        return "validation_timeout", "Validating the model took longer than it may."
    # Killed, but not by us: the kernel had no memory left.
    starved = ended.code == -signal.SIGKILL or any(
        word in ended.log for word in ("MemoryError", "bad_alloc", "Cannot allocate memory")
    )
    if starved:
        return "validation_out_of_memory", "The model needs more memory than it may have."
    how = describe_exit(ended.code)
    return "validation_crashed", f"The model crashed the process that validates it: {how}."
