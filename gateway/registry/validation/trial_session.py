"""A model in onnxruntime for its trial: one thread, and its errors in our words."""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from gateway.converter.errors import ConverterError
from gateway.converter.signature import ModelSignature
from gateway.registry.validation.runtime import Runtime, explain

_OUT_OF_MEMORY = re.compile(
    r"bad_alloc|[Ff]ailed to allocate|bad allocation|out of memory", re.IGNORECASE
)

Array = npt.NDArray[np.generic]


class TrialFailed(ConverterError):
    """The graph cannot be run on an image."""

    code = "trial_failed"


class TrialSession:
    """
    A model that can be asked.

    Raises:
        TrialFailed, OperatorUnsupported, OpsetUnsupported: It cannot be loaded.
        MemoryError: It asked for more memory than there is.
    """

    def __init__(
        self,
        model: Path | bytes,
        signature: ModelSignature,
        runtime: Runtime,
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self._input = signature.inputs[0].name
        self._outputs = [tensor.name for tensor in signature.outputs]
        try:
            self._session = onnxruntime.InferenceSession(
                model if isinstance(model, bytes) else str(model),
                options,
                providers=["CPUExecutionProvider"],
            )
        except Exception as error:
            _raise_memory(error)
            explained = explain(error, runtime)
            if explained is not error:
                raise explained from error
            raise TrialFailed(f"onnxruntime cannot load the model: {_clean(error)}") from error

    def run(self, tensor: Array) -> list[Array]:
        """
        Answer one input with every output, each of any shape.

        Raises:
            TrialFailed: The graph fails on it.
            MemoryError: It asked for more memory than there is.
        """
        try:
            return list(self._session.run(self._outputs, {self._input: tensor}))
        except Exception as error:
            _raise_memory(error)
            raise TrialFailed(
                f"The model fails on an input of shape {list(tensor.shape)}: {_clean(error)}"
            ) from error

    def scores(self, tensor: Array) -> Array:
        """Answer one input with the first output; errors as `run`."""
        return self.run(tensor)[0]


def _raise_memory(error: Exception) -> None:
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)):
        raise MemoryError(str(error)) from error


def _clean(error: Exception) -> str:
    """Keep what the runtime says about the model; leave out its sources' paths and functions."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"(?:/[\w.@+-]+){2,}(?::\d+)?\S*", "…", text)
    return text[:300]
