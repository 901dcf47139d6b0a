"""
The optimizing process: `python -I -m gateway.optimize.child`, one model, one report.

It is told what to do on standard input, bounds itself, and only then looks at the model and the
images. It writes `report.json`, and `optimized.onnx` if a candidate is worth it.
"""

import contextlib
import json
import os
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.registry.validation.sandbox import SandboxLimits, confine
from gateway.system.full_disk import exit_if_full

REPORT_FILE = "report.json"
MODEL_FILE = "optimized.onnx"
_AGREEING_MODELS = 12
_ROUNDS = 5


def main() -> None:
    """Optimize the model that standard input describes."""
    request = json.load(sys.stdin)
    folder = Path(request["folder"])
    reading = [Path(request["model"]), Path(request["images"])]
    confine(SandboxLimits(**request["limits"]), reading=reading, writing=folder, folders=True)
    os.nice(10)
    with exit_if_full():
        report = _optimize(request, folder)
        (folder / REPORT_FILE).write_text(json.dumps(report), encoding="utf-8")


def _optimize(request: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    # Only now: what is imported here is what handles the files.
    import numpy as np  # noqa: PLC0415 - see above
    import onnxruntime  # noqa: PLC0415 - see above

    from gateway.optimize.decision import Row, decide  # noqa: PLC0415 - see above
    from gateway.optimize.measuring import Session, latencies_s  # noqa: PLC0415 - see above
    from gateway.optimize.quantization import Workshop  # noqa: PLC0415 - see above
    from gateway.optimize.recipes import (  # noqa: PLC0415 - see above
        Recipe,
        first_recipes,
        has_vnni,
    )
    from gateway.optimize.search import search  # noqa: PLC0415 - see above

    model = Path(request["model"])
    calibrating, _ = _tensors(request, request["calibrate"])
    judging, judged = _tensors(request, request["judge"])
    if not calibrating or not judging:
        return {"error": "None of the images can be decoded for this model."}
    labels = request["labels"]
    truth = None if labels is None else np.array([labels[index] for index in judged])
    itself = Session(model)
    answers = itself.answers(judging)
    workshop = Workshop(model, folder)
    workshop.calibrate(request["input"]["name"], calibrating)

    def accuracy(given: Any) -> float | None:
        return None if truth is None else float(np.mean(given == truth))

    failed: list[str] = []

    def made(recipe: Recipe) -> Session | None:
        try:
            workshop.make(recipe, folder / "candidate.onnx")
            return Session(folder / "candidate.onnx")
        except Exception as error:  # noqa: BLE001 - the runtime has no base class for its own
            failed.append(f"{recipe}: {str(error)[:300]}")
            return None

    def agreement(recipe: Recipe) -> float:
        candidate = made(recipe)
        return 0.0 if candidate is None else float(np.mean(candidate.answers(judging) == answers))

    def measure(recipe: Recipe) -> Row | None:
        if (candidate := made(recipe)) is None:
            return None
        given = candidate.answers(judging)
        took_s = latencies_s({"": itself, "it": candidate}, judging, rounds=_ROUNDS)
        speedups = [one / other for one, other in zip(took_s[""], took_s["it"], strict=True)]
        return Row(
            name=str(recipe),
            agreement=float(np.mean(given == answers)),
            accuracy=accuracy(given),
            latency_ms=1000 * float(np.median(took_s["it"])),
            speedup=float(np.median(speedups)),
            size_bytes=(folder / "candidate.onnx").stat().st_size,
        )

    vnni = has_vnni()
    gpu = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    found = search(
        first_recipes(vnni=vnni, gpu=gpu) if workshop.nodes else [],
        workshop.nodes,
        measure=measure,
        agreement=agreement,
        least_agreement=request["least_agreement"],
        least_speedup=request["least_speedup"],
        most_models=_AGREEING_MODELS,
    )
    decision = decide(
        [each.row for each in found],
        least_agreement=request["least_agreement"],
        least_speedup=request["least_speedup"],
    )
    own_s = latencies_s({"": itself}, judging, rounds=_ROUNDS)[""]
    if decision.chosen is not None:
        chosen = found[decision.chosen]
        workshop.make(chosen.recipe, folder / MODEL_FILE)
        _note(folder / MODEL_FILE, request["provenance"], chosen.row.name)
    return {
        "itself": Row(
            name="as it is",
            agreement=1.0,
            accuracy=accuracy(answers),
            latency_ms=1000 * float(np.median(own_s)),
            speedup=1.0,
            size_bytes=model.stat().st_size,
        ).to_json(),
        "rows": [each.row.to_json() for each in found],
        "chosen": decision.chosen,
        "reason": decision.reason if found or not failed else f"No candidate runs: {failed[0]}",
        "vnni": vnni,
        "calibrated_on": len(calibrating),
        "judged_on": len(judging),
        "error": None,
    }


def _tensors(request: Mapping[str, Any], indexes: Sequence[int]) -> tuple[list[Any], list[int]]:
    """Read images of the zip as a request would; those that no request could bring are left out."""
    from gateway.errors import GatewayError  # noqa: PLC0415 - see `_optimize`
    from gateway.inference.images.decoding import ImageLimits, decode_image  # noqa: PLC0415
    from gateway.inference.images.tensors import to_tensor  # noqa: PLC0415 - likewise
    from gateway.preprocessing.record import Preprocessing  # noqa: PLC0415 - likewise
    from gateway.registry.validation.stages import read_tensor  # noqa: PLC0415 - likewise

    wanted = read_tensor(request["input"])
    assert wanted is not None
    record = request["preprocessing"]
    preprocessing = None if record is None else Preprocessing.model_validate(record)
    limits = ImageLimits(request["max_image_pixels"])
    tensors, taken = [], []
    with zipfile.ZipFile(request["images"]) as archive:
        for index in indexes:
            try:
                pixels = decode_image(archive.read(request["files"][index]), limits)
                tensors.append(to_tensor(pixels, wanted, preprocessing))
            except (GatewayError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError):
                continue
            taken.append(index)
    return tensors, taken


def _note(path: Path, provenance: Mapping[str, Any], recipe: str) -> None:
    """Write into the model what it was made of: it travels with the file."""
    import onnx  # noqa: PLC0415 - see `_optimize`

    from gateway.converter.provenance import (  # noqa: PLC0415 - likewise
        Provenance,
        write_provenance,
    )

    model = onnx.load(path)
    write_provenance(model, Provenance.model_validate({**provenance, "recipe": recipe}))
    onnx.save(model, path)


if __name__ == "__main__":
    main()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(0)
