"""What came of tuning, for scripts: one JSON object. Times in seconds, rates a second."""

import math
from dataclasses import asdict
from typing import Any

from gateway.converter.config_text import change_fields
from gateway.tuning.candidates import FIELDS, Candidate, apply
from gateway.tuning.judgement import Figures
from gateway.tuning.records import Written
from gateway.tuning.tune import Tuning


def to_json(tuning: Tuning, written: Written | None) -> dict[str, Any]:
    """
    Describe a tuning.

    Args:
        tuning: What came of it.
        written: What was changed; None: nothing was asked to be, or there was nothing better.
    """
    result, decision = tuning.result, tuning.result.decision
    return {
        "model": tuning.subject.name,
        "version": tuning.subject.version,
        "objective": tuning.wanted.objective.value,
        "input_shape": list(tuning.subject.tensor.shape),
        "cores": tuning.cores,
        "load_1m": tuning.load_1m,
        "warnings": warnings(tuning),
        "budget_s": tuning.wanted.budget_s,
        "took_s": tuning.took_s,
        "measure_s": tuning.measure_s,
        "candidates": [
            _candidate(tuning, candidate, figures) for candidate, figures in result.figures.items()
        ],
        "final": [
            _candidate(tuning, candidate, figures) for candidate, figures in result.final.items()
        ],
        "failed": [
            {**asdict(candidate), "reason": reason} for candidate, reason in result.failed.items()
        ],
        "left_out": result.left_out,
        "replace": decision.replace,
        "reason": decision.reason,
        "throughput_gain": decision.throughput_gain,
        "latency_gain": decision.latency_gain,
        "throughput_noise": _finite(decision.throughput_noise),
        "latency_noise": _finite(decision.latency_noise),
        "config": config_text(tuning) if decision.replace else None,
        "written": None if written is None else asdict(written),
    }


def config_text(tuning: Tuning) -> str:
    """Give the config.pbtxt of the winner."""
    subject = tuning.subject
    wanted = apply(subject.config, tuning.result.winner)
    return change_fields(subject.config_text, wanted, FIELDS)


def warnings(tuning: Tuning) -> list[str]:
    """Say what makes the figures worth less."""
    said = []
    if tuning.busy:
        said.append(
            f"This machine was busy before (load {tuning.load_1m:.1f} on {tuning.cores} cores): "
            "the figures are noise in part. Measure again when it is quiet."
        )
    if tuning.result.left_out:
        said.append(
            f"There was no time for {tuning.result.left_out} of the candidates: "
            "a larger --budget-s reaches them."
        )
    return said


def _candidate(tuning: Tuning, candidate: Candidate, figures: Figures) -> dict[str, Any]:
    present = tuning.result.figures[tuning.result.present]
    return {
        **asdict(candidate),
        "text": str(candidate),
        "present": candidate == tuning.result.present,
        "winner": candidate == tuning.result.winner,
        "rounds": len(figures.rounds),
        "by_callers": [
            {
                "callers": callers,
                "rate_per_s": figures.rate_per_s(callers),
                "p99_s": figures.p99_s(callers),
                "rate_ratio": figures.rate_per_s(callers) / present.rate_per_s(callers),
                "p99_ratio": figures.p99_s(callers) / present.p99_s(callers),
            }
            for callers in figures.callers
        ],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
