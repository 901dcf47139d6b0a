"""
What is noted about one request while it is answered, and counted when it has been.

The route writes its model here, the runner the version that it chose and how long each stage took,
the error handler the error's code. Only the recorder counts, once, at the end.
"""

from dataclasses import dataclass, field
from typing import Any

STAGES = ("queue", "decode", "infer")
"""The stages of a `run`, in the order in which they happen."""


@dataclass(slots=True)
class Observation:
    """
    One request.

    Attributes:
        endpoint: The endpoint's name ("run"); "" until the route is known.
        model: The model's name as the caller gave it; it need not exist.
        version: The version that answered or failed; 0 if none was chosen.
        status: The HTTP status of the answer.
        code: The stable code of the error, "" if there was none.
        category: What a `run` answered.
        bytes_in, bytes_out: Sizes of the two bodies.
        total_s: From the request's arrival to the last byte of its answer.
        stages_s: The stages that the request went through, in seconds.
        trace_id: Of the request's trace, in hexadecimal; "" without tracing.
        refusal: Why it was refused unseen, in a word; "" if it was not.
    """

    endpoint: str = ""
    model: str = ""
    version: int = 0
    status: int = 500
    code: str = ""
    category: str = ""
    bytes_in: int = 0
    bytes_out: int = 0
    total_s: float = 0.0
    stages_s: dict[str, float] = field(default_factory=dict)
    trace_id: str = ""
    refusal: str = ""


def observation_of(scope: Any) -> Observation:
    """Return what is noted about the request of an ASGI scope; a blank one if nobody counts it."""
    found = scope.get("state", {}).get("observation")
    return found if isinstance(found, Observation) else Observation()
