"""
An onnxruntime session as the model configuration asks for it: parameters, graph optimization
level, execution accelerators, and the kind of the instance.

The keys and their values are those of Triton's C++ onnxruntime backend; unknown keys of
`parameters` are ignored there, so they are here. Two keys are ours:
`session.intra_op.allow_spinning` (0 or 1), passed on to onnxruntime, because idle threads that spin
cost a small server a core; and `latency.intra_op_thread_count`, see `open_latency_session`.

Source: triton-inference-server/onnxruntime_backend README ("Model Config Options") and
`src/onnxruntime.cc`, release 24.10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from load_checks import ConfigMismatch  # type: ignore[import-not-found]  # beside it, in the stub
from onnxruntime.capi import onnxruntime_pybind11_state as ort_c

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# accelerator in config.pbtxt -> execution provider of onnxruntime
GPU_ACCELERATORS = {"tensorrt": "TensorrtExecutionProvider", "cuda": CUDA}
CPU_ACCELERATORS = {"openvino": "OpenVINOExecutionProvider"}
GRAPH_LEVELS = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
CUDA_OPTIONS = (
    "gpu_mem_limit",
    "arena_extend_strategy",
    "cudnn_conv_algo_search",
    "do_copy_in_default_stream",
)
SHRINKAGE = "memory.enable_memory_arena_shrinkage"
SPINNING = "session.intra_op.allow_spinning"
THREADS = "intra_op_thread_count"
LATENCY_THREADS = "latency.intra_op_thread_count"
# Its name in repositories of version 0.1.
_FORMER_LATENCY_THREADS = "lone.intra_op_thread_count"
_HOST = ort.OrtDevice.make("cpu", 0)._get_c_device()  # noqa: SLF001 - as OrtValue does


class Session:
    """
    A session that is run by onnxruntime's own functions.

    Their Python wrappers check, wrap and unwrap on every run what never changes here. Cold, as
    between two requests, that takes longer than to classify a small image.
    """

    def __init__(self, session: ort.InferenceSession, options: ort.RunOptions | None) -> None:
        self._run = session._sess.run_with_ort_values  # noqa: SLF001 - see above
        self._options = options

    def run(
        self, outputs: Sequence[str], feed: Mapping[str, npt.NDArray[np.generic]]
    ) -> dict[str, Any]:
        """
        Run the graph.

        Args:
            outputs: Names of those that are wanted.
            feed: The inputs by name, C-contiguous. Their memory is used, not copied.

        Returns:
            The outputs by name: onnxruntime's own OrtValue, which speaks DLPack.
        """
        borrowed = ort_c.OrtValue.ortvalue_from_numpy
        values = {name: borrowed(array, _HOST) for name, array in feed.items()}
        answer = self._run(values, outputs, self._options)
        # By index: the end of an iteration is an exception in C++, which takes 40 us.
        return {name: answer[index] for index, name in enumerate(outputs)}


def open_session(
    path: Path, config: Mapping[str, Any], *, kind: str, device_id: int
) -> ort.InferenceSession:
    """
    Open the graph at `path`.

    Args:
        path: The .onnx file.
        config: Triton's JSON of the model configuration.
        kind: "CPU", "GPU" or "MODEL": what Triton resolved the instance group's kind to.
        device_id: The GPU, where kind is "GPU".

    Raises:
        ConfigMismatch: A parameter with a bad value, an unknown accelerator, a GPU instance on an
            onnxruntime without that provider, or where that provider does not start.
    """
    if config.get("model_operations", {}).get("op_library_filename"):
        raise ConfigMismatch("custom operator libraries are not loaded by this backend")
    providers = _providers(config, kind=kind, device_id=device_id)
    if kind == "GPU" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # CUDA's and cuDNN's, where they came as Python packages
    session = ort.InferenceSession(path, session_options(config), providers=providers)
    if kind == "GPU" and CUDA not in session.get_providers():
        # onnxruntime says so on stderr only, and runs everything on the CPU.
        raise ConfigMismatch(f"{CUDA} does not start here: its libraries or its GPU are missing")
    return session


def open_latency_session(
    path: Path, config: Mapping[str, Any], *, kind: str
) -> ort.InferenceSession | None:
    """
    Open the graph a second time, with more threads, for requests that have the machine to
    themselves. (OpenVINO calls the two ways to run a model LATENCY and THROUGHPUT.)

    Returns:
        None if it is not asked for, would be the same, or runs on a GPU.

    Raises:
        ConfigMismatch: A parameter with a bad value.
    """
    parameters = _parameters(config)
    key = LATENCY_THREADS if LATENCY_THREADS in parameters else _FORMER_LATENCY_THREADS
    if key not in parameters or kind == "GPU":
        return None
    options, threads = session_options(config), _integer(parameters, key)
    if options.intra_op_num_threads == 0 or threads <= options.intra_op_num_threads:
        return None
    options.intra_op_num_threads = threads
    # Within a run its threads wait for their next share awake; after it they sleep at once.
    options.add_session_config_entry(SPINNING, "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return ort.InferenceSession(path, options, providers=[CPU])


def session_options(config: Mapping[str, Any]) -> ort.SessionOptions:
    """Return onnxruntime's session options for `parameters` and `optimization.graph.level`."""
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors; a warning per graph node would drown Triton's own log
    parameters = _parameters(config)
    if THREADS in parameters:
        options.intra_op_num_threads = _integer(parameters, THREADS)
    if "inter_op_thread_count" in parameters:
        options.inter_op_num_threads = _integer(parameters, "inter_op_thread_count")
    if "execution_mode" in parameters:
        parallel = _flag(parameters, "execution_mode")
        mode = ort.ExecutionMode
        options.execution_mode = mode.ORT_PARALLEL if parallel else mode.ORT_SEQUENTIAL
    if "enable_mem_arena" in parameters:
        options.enable_cpu_mem_arena = _flag(parameters, "enable_mem_arena")
    if "enable_mem_pattern" in parameters:
        options.enable_mem_pattern = _flag(parameters, "enable_mem_pattern")
    if SPINNING in parameters:
        options.add_session_config_entry(SPINNING, str(int(_flag(parameters, SPINNING))))
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    options.graph_optimization_level = GRAPH_LEVELS.get(
        level, ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    )
    return options


def run_options(config: Mapping[str, Any]) -> ort.RunOptions | None:
    """Return the options of every run: arena shrinkage, "cpu:0" or "cpu:0;gpu:0"; or None."""
    arenas = _parameters(config).get(SHRINKAGE)
    if not arenas:
        return None
    options = ort.RunOptions()
    options.add_run_config_entry(SHRINKAGE, arenas)
    return options


def _providers(
    config: Mapping[str, Any], *, kind: str, device_id: int
) -> list[tuple[str, dict[str, Any]]]:
    wanted: list[tuple[str, dict[str, Any]]] = []
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    if kind == "GPU":
        device = {"device_id": device_id}
        for accelerator in accelerators.get("gpu_execution_accelerator", []):
            options = {**device, **accelerator.get("parameters", {})}
            wanted.append((_provider(accelerator, GPU_ACCELERATORS), options))
        if CUDA not in dict(wanted):
            parameters = _parameters(config)
            chosen = {key: parameters[key] for key in CUDA_OPTIONS if key in parameters}
            wanted.append((CUDA, {**device, **chosen}))
    wanted += [
        (
            _provider(accelerator, CPU_ACCELERATORS),
            {},
        )  # parameters of openvino are ignored upstream
        for accelerator in accelerators.get("cpu_execution_accelerator", [])
    ]
    available = ort.get_available_providers()
    for provider, _ in wanted:
        if provider not in available:
            raise ConfigMismatch(
                f"{provider} is not in this onnxruntime {ort.__version__}, "
                f"which has: {', '.join(available)}"
            )
    return [*wanted, (CPU, {})]


def _provider(accelerator: Mapping[str, Any], known: Mapping[str, str]) -> str:
    name = accelerator.get("name", "")
    if name not in known:
        raise ConfigMismatch(f"unknown Execution Accelerator '{name}' is requested")
    return known[name]


def _parameters(config: Mapping[str, Any]) -> dict[str, str]:
    return {key: value["string_value"] for key, value in config.get("parameters", {}).items()}


def _integer(parameters: Mapping[str, str], key: str) -> int:
    try:
        value = int(parameters[key])
    except ValueError:
        value = -1
    if value < 0:
        raise ConfigMismatch(
            f"failed to convert parameter '{key}' value '{parameters[key]}' to a number of threads"
        )
    return value


def _flag(parameters: Mapping[str, str], key: str) -> bool:
    if parameters[key] not in ("0", "1"):
        raise ConfigMismatch(f"parameter '{key}' must be 0 or 1, not '{parameters[key]}'")
    return parameters[key] == "1"
