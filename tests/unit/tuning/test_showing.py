"""What is shown of a tuning: the picture, the table, the JSON; and when it is written."""

import io
import json
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from rich.console import Console

from gateway.cli import tuning as command
from gateway.cli.tuning import TuneOptions, run_tune, show
from gateway.converter.signature import ModelSignature, TensorSignature
from gateway.tuning.candidates import Candidate
from gateway.tuning.judgement import Figures, Measured, Objective, decide
from gateway.tuning.plot import draw
from gateway.tuning.report import to_json
from gateway.tuning.search import SearchResult
from gateway.tuning.subject import Subject
from gateway.tuning.tune import Tuning, Wanted

PRESENT, WINNER, OTHER = (
    Candidate(1, 1, None, None, 8),
    Candidate(2, 1, None, None, 8),
    Candidate(1, 2, False, 200, 8),
)
SVG = "{http://www.w3.org/2000/svg}"
CONFIG = """\
name: "m"  # ours
backend: "onnxruntime"
max_batch_size: 8
input { name: "x" data_type: TYPE_UINT8 dims: [-1, -1, 3] }
output { name: "y" data_type: TYPE_FP32 dims: 10 }
instance_group { count: 1 }
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
"""


def _figures(rate_per_s: float) -> Figures:
    return Figures(
        [
            {
                callers: Measured(rate_per_s * callers**0.5, callers / rate_per_s)
                for callers in (1, 4, 16)
            }
        ]
        * 3
    )


@pytest.fixture
def tuning() -> Tuning:
    figures = {PRESENT: _figures(100), WINNER: _figures(190), OTHER: _figures(50)}
    final = {PRESENT: figures[PRESENT], WINNER: figures[WINNER]}
    signature = ModelSignature(
        (TensorSignature("x", "UINT8", (None, None, None, 3)),),
        (TensorSignature("y", "FP32", (None, 10)),),
        ir_version=8,
    )
    return Tuning(
        Wanted("m <b>", budget_s=60),
        Subject(
            "m",
            3,
            signature,
            CONFIG,
            np.zeros((1, 224, 224, 3), np.uint8),
        ),
        SearchResult(
            present=PRESENT,
            winner=WINNER,
            decision=decide(figures[PRESENT], figures[WINNER], Objective.BALANCED),
            figures=figures,
            final=final,
            failed={Candidate(8, 1, None, None, 8): "no memory"},
            left_out=3,
        ),
        cores=2,
        load_1m=5.0,
        measure_s=0.25,
        took_s=58.0,
    )


def test_the_picture_is_svg(tuning: Tuning) -> None:
    """Whatever a model is called, the picture is XML, with a line for each candidate."""
    result = tuning.result
    svg = ET.fromstring(draw("a <b> & c", result.figures, present=PRESENT, winner=WINNER))
    assert svg.tag == f"{SVG}svg"
    lines = svg.findall(f".//{SVG}polyline")
    assert len(lines) == 3
    assert all(len(line.attrib["points"].split()) == 3 for line in lines)
    titles = {title.text for title in svg.findall(f".//{SVG}title")}
    assert titles == {str(candidate) for candidate in result.figures}


def test_the_picture_holds_every_point(tuning: Tuning) -> None:
    """Faster points lie further right, later ones further up, and all inside the picture."""
    svg = ET.fromstring(draw("t", tuning.result.figures, present=PRESENT, winner=WINNER))
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    for line in svg.findall(f".//{SVG}polyline"):
        points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
        assert points == sorted(points)
        assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)
        assert all(0 <= x <= width and 0 <= y <= height for x, y in points)


@pytest.mark.parametrize("rate_per_s", [0.02, 1.0, 1e5])
def test_any_speed_can_be_drawn(rate_per_s: float) -> None:
    """One candidate, very slow or very fast, makes a picture as well."""
    ET.fromstring(draw("t", {PRESENT: _figures(rate_per_s)}, present=PRESENT, winner=PRESENT))


def test_the_table_names_everything(tuning: Tuning) -> None:
    """Candidates, ratios, failures, what was left out, a busy machine, and the new text."""
    out = io.StringIO()
    show(tuning, None, Console(file=out, width=200, highlight=False), write=False)
    text = out.getvalue()
    assert "2 instances, 1 thread (best found)" in text
    assert "1.90×" in text
    assert "not spinning, batches of 8 within 200 µs" in text
    assert "no memory" in text
    assert "no time for 3" in text
    assert "load 5.0 on 2 cores" in text
    assert "# ours" in text
    assert "count: 2" in text


def test_the_json_tells_the_same(tuning: Tuning) -> None:
    """Ratios are to the present configuration, and the new text is there if it is better."""
    told = to_json(tuning, None)
    assert told["replace"]
    assert "count: 2" in told["config"]
    winner = next(candidate for candidate in told["final"] if candidate["winner"])
    assert [found["rate_ratio"] for found in winner["by_callers"]] == pytest.approx([1.9] * 3)
    assert len(told["warnings"]) == 2


@pytest.mark.parametrize("write", [False, True])
def test_only_write_writes(
    tuning: Tuning,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    write: bool,
) -> None:
    """Without --write the repository stays as it is, however much better the best one is."""

    async def found(*_: object, **__: object) -> Tuning:
        return tuning

    config = tmp_path / "repository/m/config.pbtxt"
    config.parent.mkdir(parents=True)
    config.write_text(tuning.subject.config_text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "tune", found)
    monkeypatch.setattr(command, "configure_logging", lambda *_: None)
    asked = TuneOptions("m", None, "balanced", 60.0, "1,4,16", None, None)
    run_tune(asked, model_repository=tmp_path / "repository", plot=None, write=write, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["written"] == ({"file": True, "versions": []} if write else None)
    assert (config.read_text() == tuning.subject.config_text) is not write
    assert ("count: 2" in config.read_text()) is write


@pytest.mark.parametrize(
    ("objective", "callers", "shape", "named"),
    [
        ("cheap", "1", None, "--for"),
        ("latency", "1,x", None, "--callers"),
        ("latency", "0", None, "--callers"),
        ("latency", "1000", None, "--callers"),
        ("latency", "1", "1,-2", "--shape"),
    ],
)
def test_what_was_typed_wrongly_is_named(
    objective: str, callers: str, shape: str | None, named: str
) -> None:
    """An option that makes no sense is named, before anything is started."""
    with pytest.raises(ValueError, match=named):
        TuneOptions("m", None, objective, 60.0, callers, None, shape).read()
