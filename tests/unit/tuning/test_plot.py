"""The picture and the table of a tuning."""

import io
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from rich.console import Console

from gateway.cli.tuning import show
from gateway.tuning.candidates import Candidate
from gateway.tuning.judgement import Figures, Objective, Sample, decide
from gateway.tuning.plot import draw
from gateway.tuning.report import to_json
from gateway.tuning.search import Result
from gateway.tuning.subject import Subject
from gateway.tuning.tune import Tuning, Wanted
from tools.signature import ModelSignature, TensorSignature

PRESENT, WINNER, OTHER = (
    Candidate(1, 1, None, None, 8),
    Candidate(2, 1, None, None, 8),
    Candidate(1, 2, False, 200, 8),
)
SVG = "{http://www.w3.org/2000/svg}"
CONFIG = 'name: "m"  # ours\nmax_batch_size: 8\ninstance_group { count: 1 }\n'


def _figures(rate_per_s: float) -> Figures:
    return Figures(
        [
            {
                callers: Sample(rate_per_s * callers**0.5, callers / rate_per_s)
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
            CONFIG + 'parameters { key: "intra_op_thread_count" value { string_value: "1" } }\n',
            np.zeros((1, 224, 224, 3), np.uint8),
        ),
        Result(
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
