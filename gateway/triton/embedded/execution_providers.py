"""
Run as a program, in a process of its own: prints onnxruntime's version, then each execution
provider that works on this machine.

A provider that onnxruntime was built with may still lack its libraries or its device. It would say
so on stderr only and then run everything on the CPU, so each GPU is tried on a graph of one node.

Source: onnxruntime, "Install ONNX Runtime: preload DLLs", and `InferenceSession.get_providers`.
"""

import sys

import onnxruntime as ort
from onnx import TensorProto, helper

CUDA = "CUDAExecutionProvider"


def main() -> int:
    """Print one line: the version and the providers."""
    working = [name for name in ort.get_available_providers() if name != CUDA or _opens(name)]
    sys.stdout.write(" ".join([ort.__version__, *working]) + "\n")
    return 0


def _opens(provider: str) -> bool:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    same = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [same])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    session = ort.InferenceSession(model.SerializeToString(), providers=[provider])
    return provider in session.get_providers()


if __name__ == "__main__":
    sys.exit(main())
