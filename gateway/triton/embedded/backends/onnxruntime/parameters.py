"""
What a request says beside its tensors: the parameters that the gateway sends along.

encoded_bytes: the request carries a JPEG in place of the pixels of an input. So many of the input's
    first bytes are then the file; it is filled up to whole pixels.
lone: it was the only one that its sender had under way: it may have all of the machine.

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
    lone: bool = False


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
    return Parameters(int(said.get("encoded_bytes", 0)), bool(said.get("lone", False)))
