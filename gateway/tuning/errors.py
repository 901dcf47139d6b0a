"""
Why a model cannot be tuned. The codes are stable, for scripts.

    TuningError
    ├── NotTunable       not_tunable        it is no model that the gateway calls
    ├── ShapeRequired    shape_required     what a representative input is cannot be told
    ├── BudgetTooSmall   budget_too_small   not even one other configuration can be compared
    └── PresentFails     present_fails      the present configuration does not load or answer
"""

from typing import ClassVar


class TuningError(Exception):
    """The base."""

    code: ClassVar[str]


class NotTunable(TuningError):
    """The model is not one that the gateway could call, or Triton runs it in another way."""

    code = "not_tunable"


class ShapeRequired(TuningError):
    """The input is not an image, so that its shape must be said."""

    code = "shape_required"


class BudgetTooSmall(TuningError):
    """The time is not enough to compare the present configuration with one other."""

    code = "budget_too_small"


class PresentFails(TuningError):
    """The present configuration does not load, or fails on the input."""

    code = "present_fails"
