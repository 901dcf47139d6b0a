"""The demo is real: its figures are reproduced, its sample is a seven, its files are those told."""

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from gateway.converter.model_config import ConfigOptions, Placement
from gateway.converter.publish import publish_version, read_published

CHECKOUT = Path(__file__).parents[3]
DEMO = CHECKOUT / "tools/demo/digits"
PUBLISHED = CHECKOUT / "model_repository/digits"
MODELS = {
    "1": DEMO / "digits-v1.onnx",
    "2": DEMO / "digits-v2.onnx",
}
METRICS: dict[str, Any] = json.loads((DEMO / "metrics.json").read_text())


def _session(version: str) -> Any:
    return onnxruntime.InferenceSession(MODELS[version], providers=["CPUExecutionProvider"])


def _scores(session: Any, encoded: bytes) -> Any:
    with Image.open(io.BytesIO(encoded)) as picture:
        pixels = np.array(picture)[:, :, :3].astype(np.float32)[np.newaxis]
    return session.run(None, {"input": pixels})[0]


@pytest.mark.parametrize("version", MODELS)
def test_the_figures_are_reproduced(version: str) -> None:
    """The accuracy in metrics.json is what the file answers on the held-out pictures."""
    measured = METRICS["versions"][version]
    encoded = MODELS[version].read_bytes()
    assert f"sha256:{hashlib.sha256(encoded).hexdigest()}" == measured["digest"]
    session = _session(version)
    with (DEMO / "evaluation/labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    right = sum(
        f"{np.argmax(_scores(session, (DEMO / 'evaluation' / r['file']).read_bytes())):02d}"
        == r["category"]
        for r in rows
    )
    assert len(rows) == measured["pictures"]
    # Another processor may round a score the other way.
    assert abs(right - measured["right"]) <= 1


def test_the_second_version_is_better() -> None:
    """Version 2 is right at least four points more often."""
    first, second = (METRICS["versions"][version]["accuracy"] for version in ("1", "2"))
    assert second >= first + 0.04


@pytest.mark.parametrize("version", MODELS)
def test_the_sample_is_a_seven(version: str) -> None:
    """The picture of the curl line is answered 07 with confidence by both."""
    scores = _scores(_session(version), (DEMO / "sample-7.png").read_bytes())
    assert int(scores.argmax()) == 7
    assert scores.max() > 0.8


@pytest.mark.parametrize("version", MODELS)
def test_a_row_does_not_depend_on_its_batch(version: str) -> None:
    """Row i of a batch is the single run, bit for bit."""
    images = np.random.default_rng(0).integers(0, 256, (5, 40, 31, 3)).astype(np.float32)
    session = _session(version)
    batch = session.run(None, {"input": images})[0]
    single = np.concatenate([session.run(None, {"input": one[np.newaxis]})[0] for one in images])
    np.testing.assert_array_equal(batch, single)


def test_what_is_published_is_version_1(tmp_path: Path) -> None:
    """model_repository/digits is what the converter makes of digits-v1.onnx; version 2 fits it."""
    options = ConfigOptions(placement=Placement(instances=1, intra_op_threads=1))
    first, second = (
        publish_version(
            MODELS[str(version)],
            repository=tmp_path,
            name="digits",
            version=version,
            options=options,
        )
        for version in (1, 2)
    )
    published = read_published(PUBLISHED.parent, "digits", 1)
    assert published.config_text == first.config_text
    assert published.signature == first.signature
    assert published.signature.inputs[0].dtype == "UINT8"
    assert onnx.load(PUBLISHED / "1/model.onnx") == onnx.load(tmp_path / "digits/1/model.onnx")
    assert first.signature.same_tensors(second.signature)
