"""A question for a version that only its process can answer: the smallest input that it takes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tritonclient.utils import triton_to_np_dtype

_FREE_SIDE = 32


@dataclass(frozen=True, slots=True)
class Probe:
    """One inference: the tensor, under the names and in the spelling that Triton wants."""

    input_name: str
    input_dtype: str
    tensor: npt.NDArray[np.generic]
    output_name: str


def probe_tensor(
    dtype: str, shape: Sequence[int | None], known_shape: Sequence[int] | None = None
) -> npt.NDArray[np.generic]:
    """
    Make the input of a probe.

    Args:
        dtype: Triton's spelling, for example FP32.
        shape: The input's shape, the batch axis first; None is a free size.
        known_shape: A shape that is known to work, if one is.

    Returns:
        Zeros: of the known shape, else one item with every free side 32.
    """
    chosen = known_shape or [
        (1 if axis == 0 else _FREE_SIDE) if size is None else size
        for axis, size in enumerate(shape)
    ]
    return np.zeros(chosen, dtype=triton_to_np_dtype(dtype))
