"""
What validation found out: one entry for each stage, readable by people and by programs. The report
of a version that was published is kept with it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

STAGES = ("file", "operators", "signature", "config", "trial")


@dataclass(frozen=True, slots=True)
class ValidationStage:
    """
    One stage.

    Attributes:
        name: Which one, of `STAGES`.
        ok: Whether the model passed.
        took_s: How long it took, in seconds.
        code, detail: Why not, if it did not.
        facts: What was found: numbers with their units in their names.
    """

    name: str
    ok: bool
    took_s: float
    code: str | None = None
    detail: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """
    All stages, in order, up to the first that failed.

    Attributes:
        runtime: What the model was validated for.
        warnings: What is worth knowing and no reason to refuse.
    """

    runtime: str
    stages: tuple[ValidationStage, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def refusal(self) -> ValidationStage | None:
        """The stage that refused the model, if one did."""
        return next((stage for stage in self.stages if not stage.ok), None)

    def facts(self, name: str) -> Mapping[str, Any]:
        """Give what a stage found; nothing if it was not reached."""
        return next((stage.facts for stage in self.stages if stage.name == name), {})

    def to_json(self) -> dict[str, Any]:
        """Give a JSON object that `from_json` reads back."""
        return {
            "ok": self.refusal is None and len(self.stages) == len(STAGES),
            "runtime": self.runtime,
            "stages": [asdict(stage) for stage in self.stages],
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        return cls(
            runtime=stored["runtime"],
            stages=tuple(ValidationStage(**stage) for stage in stored["stages"]),
            warnings=tuple(stored["warnings"]),
        )
