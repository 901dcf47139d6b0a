"""What the rollouts that are measured try: a champion, a challenger of known truth, and traffic."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from perf import rollout_versions as versions
from testbed.rollout_family import PICTURES
from testbed.rollout_load import Picture
from testbed.signature_family import CHANGES, UNIT, colours, side_of

_STEPS = [10, 50, 100]
CHAIN: dict[str, Any] = {"strategy": ["shadow", "canary"], "steps": _STEPS}
SHADOW: dict[str, Any] = {"strategy": "shadow"}
CANARY: dict[str, Any] = {"strategy": "canary", "steps": _STEPS}
CNN_LAYERS = 38
"""About 10 ms of one core."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """How many callers ask, and how often together; None: each as soon as it was answered."""

    name: str
    clients: int
    rate_per_s: float | None = None


FIVE = Traffic("5/s", 8, 5.0)
FORTY = Traffic("40/s", 16, 40.0)
FIFTY = Traffic("50/s", 16, 50.0)
SATURATED = Traffic("16 callers, saturated", 16)
ALONE = Traffic("one caller after the other", 1)

Build = Callable[[Path], Path]
_digits = cache(versions.pictures)


@dataclass(frozen=True, slots=True)
class Version:
    """How a version's file is written, and the preprocessing record that it is registered with."""

    build: Build
    record: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """
    One row of the table.

    Attributes:
        name: What is tried.
        champion, challenger: Write the two versions into a file; known by name, so that rows share
            them.
        traffic: Who asks.
        plan: Of the rollout; the defaults stand for what it does not say.
        right: How it should end.
        feedback: The share of the answers whose true class is told a second and a half later.
    """

    name: str
    champion: str
    challenger: str
    traffic: Traffic
    plan: Mapping[str, Any]
    right: str
    feedback: float = 0.0

    @property
    def title(self) -> str:
        """The row's name, by which it is chosen."""
        strategy = self.plan["strategy"]
        how = strategy if isinstance(strategy, str) else " → ".join(strategy)
        return f"{self.name}, {self.traffic.name}, {how}"

    @property
    def pictures(self) -> Sequence[Picture]:
        """What its callers send."""
        return PICTURES if self.challenger.split(",")[0] in CHANGES else _digits()


def _cnn(factor: float) -> Version:
    return Version(lambda path: versions.convolving(path, layers=round(CNN_LAYERS * factor)))


def _colours(change: str, *, challenger: bool, flipped: bool = False) -> Version:
    changed, record = CHANGES[change] if challenger else ({}, UNIT)

    def build(path: Path) -> Path:
        path.write_bytes(colours(**{"side": side_of(change), "flipped": flipped, **changed}))
        return path

    return Version(build, record)


VERSIONS: Mapping[str, Version] = {
    "tiny": Version(lambda path: versions.again(path, seed=0)),
    "tiny again": Version(lambda path: versions.again(path, seed=1)),
    "cnn": _cnn(1.0),
    "cnn again": Version(lambda path: versions.convolving(path, layers=CNN_LAYERS, seed=1)),
    **{f"cnn {factor}×": _cnn(factor) for factor in (1.3, 1.9, 2.9)},
    "failing": Version(lambda path: versions.failing(path, share=0.05)),
    "worse": Version(lambda path: versions.worse(path, lost=0.05)),
    "flipped": Version(versions.flipped),
    "one class lost": Version(lambda path: versions.losing(path, category=3)),
    **{f"before {change}": _colours(change, challenger=False) for change in CHANGES},
    **{change: _colours(change, challenger=True) for change in CHANGES},
    **{f"{change}, wrong": _colours(change, challenger=True, flipped=True) for change in CHANGES},
}

SAME = tuple(
    Case(f"the same, {model}", model, f"{model} again", traffic, CHAIN, "Succeeded")
    for model in ("tiny", "cnn")
    for traffic in (FIVE, FIFTY, SATURATED, ALONE)
)
SLOWER = tuple(
    Case(f"{factor}× the computing", "cnn", f"cnn {factor}×", traffic, plan, "Failed")
    for factor in (1.3, 1.9, 2.9)
    for traffic in (FORTY, SATURATED)
    for plan in (SHADOW, CANARY)
)
WORSE = tuple(
    Case(name, "tiny", challenger, traffic, plan, "Failed", feedback)
    for name, challenger, feedback in (
        ("5 % errors", "failing", 0.0),
        ("5 points worse, half labelled", "worse", 0.5),
        ("flipped labels, half labelled", "flipped", 0.5),
        ("one class lost, half labelled", "one class lost", 0.5),
    )
    for traffic, plan in ((FIFTY, CHAIN), (SATURATED, CANARY))
)
SIGNATURES = tuple(
    Case(
        f"{change}{suffix}",
        f"before {change}",
        f"{change}{suffix}",
        SATURATED,
        CHAIN,
        right,
        feedback=0.5,
    )
    for change in CHANGES
    for suffix, right in (("", "Succeeded"), (", wrong", "Failed"))
)
CASES: Mapping[str, Case] = {case.title: case for case in (*SAME, *SLOWER, *WORSE, *SIGNATURES)}


@dataclass(slots=True)
class Files:
    """The versions' files, each written when it is first asked for."""

    folder: Path
    _written: dict[str, Path] = field(default_factory=dict)

    def of(self, version: str) -> Path:
        """Write a version, once."""
        found = self._written.get(version)
        if found is None:
            file = self.folder / f"{len(self._written)}.onnx"
            found = self._written[version] = VERSIONS[version].build(file)
        return found
