"""
What a request says beside its tensors: the parameters that the gateway sends along.

encoded_bytes: the request carries a JPEG in place of an input's pixels. So many of the input's
    first bytes are the file; the rest fills it up to whole pixels.
uncontended: its sender had no other request under way: it may have the whole machine.

Source: Triton, "Parameters Extension"; python_backend README (InferenceRequest.parameters).
"""

from __future__ import annotations

from json import JSONDecoder
from typing import NamedTuple

# Of json.loads only what reads: what that looks for before takes longer than the reading.
_read = JSONDecoder().raw_decode


class Parameters(NamedTuple):
    """`encoded_bytes`: 0 for a request that carries pixels."""

    encoded_bytes: int = 0
    uncontended: bool = False


_NONE = Parameters()


def read_parameters(parameters: str) -> Parameters:
    """
    Read a request's parameters.

    Args:
        parameters: JSON, as Triton hands them over; "" if there are none.
    """
    if not parameters:
        return _NONE
    said = _read(parameters)[0]
    return Parameters(int(said.get("encoded_bytes", 0)), bool(said.get("uncontended", False)))
