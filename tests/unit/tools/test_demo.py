"""The demo is real: its figures are reproduced, its sample is a seven, its files are those told."""

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from gateway.converter.model_config import ConfigOptions
from gateway.converter.publish import publish_version, read_published
from gateway.demo import DEMO_MODEL, EVALUATION, FIRST_VERSION, SAMPLE, SECOND_VERSION, publish_demo

TRAINING = Path(__file__).parents[3] / "tools/demo/digits"
MODELS = {"1": FIRST_VERSION, "2": SECOND_VERSION}
METRICS: dict[str, Any] = json.loads((TRAINING / "metrics.json").read_text())


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
    with (EVALUATION / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    right = sum(
        f"{np.argmax(_scores(session, (EVALUATION / r['file']).read_bytes())):02d}" == r["category"]
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
    scores = _scores(_session(version), SAMPLE.read_bytes())
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


def test_what_the_demo_publishes_is_version_1_and_version_2_fits_it(tmp_path: Path) -> None:
    """The first version takes uint8, a second call changes nothing, version 2 takes the same."""
    publish_demo(tmp_path)
    first = read_published(tmp_path, DEMO_MODEL, 1)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    publish_demo(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == {
        path: changed_ns for path, changed_ns in files.items() if path.is_file()
    }
    assert first.signature.inputs[0].dtype == "UINT8"
    assert "count: 1\n" in first.config_text
    second = publish_version(
        SECOND_VERSION,
        repository=tmp_path,
        name=DEMO_MODEL,
        version=2,
        options=ConfigOptions(),
    )
    assert first.signature.same_tensors(second.signature)
