"""
The figures as a picture: p99 against throughput, a line for each candidate from the fewest callers
to the most. Down and to the right is better. SVG, drawn with the standard library.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from gateway.tuning.candidates import Candidate
from gateway.tuning.judgement import Figures

_WIDTH, _HEIGHT = 900, 520
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 30, 50, 60
_LEGEND_LINE = 18
_PRESENT, _WINNER, _OTHER = "#1f2937", "#d97706", "#94a3b8"
_STEPS = (1, 2, 5)


@dataclass(frozen=True, slots=True)
class _Scale:
    """From values to pixels."""

    largest_rate: float
    least_ms: float
    largest_ms: float

    def x(self, rate_per_s: float) -> float:
        return _LEFT + rate_per_s / self.largest_rate * (_WIDTH - _LEFT - _RIGHT)

    def y(self, p99_ms: float) -> float:
        span = math.log(self.largest_ms / self.least_ms)
        share = math.log(p99_ms / self.least_ms) / span
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def draw(
    title: str, figures: Mapping[Candidate, Figures], *, present: Candidate, winner: Candidate
) -> str:
    """
    Draw candidates as an SVG document.

    Args:
        title: Above the picture.
        figures: What was measured of each.
        present, winner: The two that are drawn in colour and named; the others are grey.
    """
    named = list(dict.fromkeys([present, winner]))
    height = _HEIGHT + _LEGEND_LINE * (len(named) + 1)
    svg = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {_WIDTH} {height}",
            "font-family": "sans-serif",
            "font-size": "13",
        },
    )
    ET.SubElement(svg, "rect", {"width": str(_WIDTH), "height": str(height), "fill": "white"})
    _text(svg, _LEFT, 28, title, weight="bold")
    scale = _scale(figures)
    _axes(svg, scale)
    others = [candidate for candidate in figures if candidate not in named]
    for candidate in [*others, *named]:
        colour = _colour(candidate, present, winner)
        _line(svg, scale, figures[candidate], colour, str(candidate), strong=candidate in named)
    for index, candidate in enumerate(named):
        y = _HEIGHT + _LEGEND_LINE * index
        colour = _colour(candidate, present, winner)
        ET.SubElement(svg, "circle", {"cx": f"{_LEFT}", "cy": f"{y}", "r": "5", "fill": colour})
        what = "present" if candidate == present else "best found"
        _text(svg, _LEFT + 14, y + 4, f"{what}: {candidate}")
    return ET.tostring(svg, encoding="unicode", xml_declaration=True)


def _scale(figures: Mapping[Candidate, Figures]) -> _Scale:
    points = [point for found in figures.values() for point in _points(found)]
    rates, latencies_ms = zip(*points, strict=True)
    return _Scale(max(rates) * 1.05, min(latencies_ms) / 1.3, max(latencies_ms) * 1.3)


def _points(figures: Figures) -> list[tuple[float, float]]:
    """Give (requests a second, p99 in milliseconds) by the number of callers, in order."""
    return [
        (figures.rate_per_s(callers), max(1e-3, figures.p99_s(callers) * 1000))
        for callers in figures.callers
    ]


def _line(
    svg: ET.Element, scale: _Scale, figures: Figures, colour: str, name: str, *, strong: bool
) -> None:
    group = ET.SubElement(svg, "g", {"stroke": colour, "fill": colour})
    ET.SubElement(group, "title").text = name
    places = [(scale.x(rate), scale.y(ms)) for rate, ms in _points(figures)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    width = "2.5" if strong else "1"
    ET.SubElement(group, "polyline", {"points": path, "fill": "none", "stroke-width": width})
    for (x, y), callers in zip(places, figures.callers, strict=True):
        radius = "4" if strong else "2.5"
        ET.SubElement(group, "circle", {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": radius})
        if strong:
            _text(svg, x + 6, y - 6, str(callers), colour=colour)


def _axes(svg: ET.Element, scale: _Scale) -> None:
    bottom = _HEIGHT - _BOTTOM
    step = _step(scale.largest_rate / 6)
    for index in range(int(scale.largest_rate / step) + 1):
        x = scale.x(index * step)
        _rule(svg, x, _TOP, x, bottom)
        _text(svg, x, bottom + 18, f"{index * step:g}", anchor="middle")
    for value_ms in _logarithmic(scale.least_ms, scale.largest_ms):
        y = scale.y(value_ms)
        _rule(svg, _LEFT, y, _WIDTH - _RIGHT, y)
        _text(svg, _LEFT - 8, y + 4, f"{value_ms:g}", anchor="end")
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    _text(svg, middle, bottom + 40, "requests a second", anchor="middle")
    _text(svg, _LEFT, _TOP - 6, "p99, ms (the numbers at the lines: callers at once)")


def _step(least: float) -> float:
    decade = 10.0 ** math.floor(math.log10(least))
    return next(step * decade for step in (*_STEPS, 10) if step * decade >= least)


def _logarithmic(least: float, largest: float) -> Sequence[float]:
    decades = range(math.floor(math.log10(least)), math.ceil(math.log10(largest)) + 1)
    return [
        step * 10.0**decade
        for decade in decades
        for step in _STEPS
        if least <= step * 10.0**decade <= largest
    ]


def _colour(candidate: Candidate, present: Candidate, winner: Candidate) -> str:
    return _PRESENT if candidate == present else _WINNER if candidate == winner else _OTHER


def _rule(svg: ET.Element, x1: float, y1: float, x2: float, y2: float) -> None:
    ends = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
    ET.SubElement(svg, "line", {**ends, "stroke": "#e2e8f0"})


def _text(
    svg: ET.Element,
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    colour: str = "#1f2937",
    weight: str = "normal",
) -> None:
    style = {"text-anchor": anchor, "fill": colour, "stroke": "none", "font-weight": weight}
    ET.SubElement(svg, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", **style}).text = text
