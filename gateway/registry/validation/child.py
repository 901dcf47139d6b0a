"""
The validating process: `python -I -m gateway.registry.validation.child`, one model, one report.

It is told what to do on standard input, bounds itself, and only then looks at the file. The report
is written anew after every stage, so that whoever waits knows how far a process came that was
killed: the stage that is not there yet is the one that did it.
"""

import contextlib
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateway.registry.validation.sandbox import Confined, SandboxLimits, confine
from gateway.system.full_disk import exit_if_full

REPORT_FILE = "report.json"


def main() -> None:
    """Validate the model that standard input describes."""
    request = json.load(sys.stdin)
    model, folder = Path(request["model"]), Path(request["folder"])
    confined = confine(SandboxLimits(**request["limits"]), reading=[model], writing=folder)
    # Only now: what is imported here is what handles the file.
    from gateway.registry.validation.stages import (  # noqa: PLC0415 - see above
        Examination,
        read_tensor,
    )

    examination = Examination(
        model,
        name=request["name"],
        preprocessing=request["preprocessing"],
        labels=request["labels"],
        max_batch_size=request["max_batch_size"],
        keep_graph=request["keep_graph"],
        beside=read_tensor(request["beside"]),
        runtime=request["runtime"],
        sidecars=request["sidecars"],
    )
    _examine(examination, folder / REPORT_FILE, confined)


def _examine(examination: Any, report: Path, confined: Confined) -> None:
    stages: list[dict[str, Any]] = []

    def write() -> None:
        written = report.with_suffix(".tmp")
        text = json.dumps(
            {
                "runtime": examination.runtime.description,
                "stages": stages,
                "warnings": examination.warnings,
                "confined": asdict(confined),
                "preprocessing": examination.preprocessing_json(),
                "labels": examination.labels,
                "proposal": examination.proposal_json(),
            }
        )
        with exit_if_full():
            written.write_text(text, encoding="utf-8")
            written.replace(report)

    write()
    for name, run in examination.stages():
        began_s = time.perf_counter()
        code, detail, facts = _outcome(run)
        stages.append(
            {
                "name": name,
                "ok": code is None,
                "took_s": round(time.perf_counter() - began_s, 4),
                "code": code,
                "detail": detail,
                "facts": facts,
            }
        )
        write()
        if code is not None:
            return
        gc.collect()


def _outcome(
    run: Callable[[], Mapping[str, Any]],
) -> tuple[str | None, str | None, Mapping[str, Any]]:
    try:
        return None, None, run()
    except MemoryError:
        return "validation_out_of_memory", "The model needs more memory than it may have.", {}
    except Exception as error:  # noqa: BLE001 - whatever a hostile file provokes is its refusal
        code = getattr(error, "code", None)
        if code is None:
            return "model_invalid", f"The model cannot be read ({type(error).__name__}).", {}
        return str(code), str(error), {}


if __name__ == "__main__":
    main()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    # Without taking the runtime down in order: the report is written, and some graphs crash that.
    os._exit(0)
