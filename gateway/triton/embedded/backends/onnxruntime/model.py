"""
Triton's `onnxruntime` backend in Python: the same config.pbtxt runs here and on NVIDIA's container.

Triton starts one stub process per model instance, which imports this file and calls `initialize`
once, `execute` with one or more requests at a time, and `finalize` before it leaves. Tensors come
in and go out by DLPack: the stub's own numpy bridge was built against numpy 1 and gets sizes wrong
under numpy 2.

A request is not asked whether its sender has gone (`is_cancelled`): that is a message to another
process and back, which takes longer than a small model, and Triton does not notice the end of an
HTTP connection.

Presence: with INSTANCES_DIR in the environment, an instance keeps a file there named after its
pid, from the start of `initialize` to the end of `finalize`. A file whose process is gone therefore
means a crash, never an unload; Triton itself neither reports nor repairs that.

Source: Triton "Python-based backends", and triton-inference-server/python_backend README.
"""

import errno
import gc
import json
import os
import select
import signal
import threading
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb
from encoded import NotDecoded, decode
from load_checks import check_config, graph_tensors
from onnxruntime import OrtValue
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from parameters import read_parameters
from session import Session, open_latency_session, open_session, run_options

INSTANCES_DIR = "GATEWAY_TRITON_INSTANCES_DIR"
SERVER = "tritonserver"
# How the gateway knows that it has to decode the image itself.
NOT_DECODED = "image not decoded"
# How onnxruntime's arena says that there is no more.
OUT_OF_MEMORY = "Failed to allocate memory"


class TritonPythonModel:
    """One instance of one version of a model."""

    def initialize(self, args):
        """Open the session and check the configuration against it; an exception fails the load."""
        _die_with_parent()
        config = json.loads(args["model_config"])
        self._presence = _announce(args)
        try:
            path, kind = _model_file(args, config), args["model_instance_kind"]
            session = open_session(
                path, config, kind=kind, device_id=int(args["model_instance_device_id"])
            )
            inputs = graph_tensors(session.get_inputs())
            overridable = graph_tensors(session.get_overridable_initializers())
            outputs = graph_tensors(session.get_outputs())
            check_config(config, inputs=inputs, overridable=overridable, outputs=outputs)
            options = run_options(config)
            self._session = Session(session, options)
            latency = open_latency_session(path, config, kind=kind)
            self._latency_session = None if latency is None else Session(latency, options)
        except BaseException:
            self._withdraw()
            raise
        self._inputs = [io["name"] for io in config["input"]]
        self._batches = int(config.get("max_batch_size", 0)) > 0
        self._warm = self._latency_session is None
        # The libraries' objects live as long as this process: no collection need look at them.
        gc.collect()
        gc.freeze()

    def execute(self, requests):
        """Answer every request, in order; one that fails has an error of its own."""
        responses, feeds, uncontended = [None] * len(requests), {}, False
        for index, request in enumerate(requests):
            try:
                said = read_parameters(request.parameters())
                feeds[index] = self._feed(request, said.encoded_bytes)
            except (NotDecoded, ValueError, TypeError) as reason:
                error = pb.TritonError(f"{NOT_DECODED}: {reason}", pb.TritonError.INVALID_ARG)
                responses[index] = pb.InferenceResponse(error=error)
            else:
                uncontended = said.uncontended and len(requests) == 1
        for members in self._groups(feeds):
            names = [requests[index].requested_output_names() for index in members]
            wanted = names[0] if len(names) == 1 else sorted(set().union(*names))
            group = [feeds[index] for index in members]
            answers = self._run_group(wanted, group, uncontended=uncontended)
            for index, requested, answer in zip(members, names, answers, strict=True):
                responses[index] = _response(requested, answer)
        return responses

    def finalize(self):
        """Leave in order: a crash would not come here."""
        self._withdraw()

    def _feed(self, request, encoded_bytes):
        """Return {input: array}, without a copy; an optional input may be absent."""
        feed = {}
        for name in self._inputs:
            tensor = pb.get_input_tensor_by_name(request, name)
            if tensor is not None:
                array = np.from_dlpack(_Lent(tensor))
                feed[name] = decode(array, encoded_bytes, array.ndim) if encoded_bytes else array
        return feed

    def _groups(self, feeds):
        """Split the indices into those that can run as one batch.

        These have the same inputs with equal shapes behind the batch axis. A model that does not
        batch runs one at a time.
        """
        if not self._batches or len(feeds) == 1:
            return [[index] for index in feeds]
        groups = {}
        for index, feed in feeds.items():
            key = tuple((name, array.shape[1:]) for name, array in feed.items())
            groups.setdefault(key, []).append(index)
        return list(groups.values())

    def _run_group(self, wanted, feeds, *, uncontended):
        """Run `feeds` as one batch; return for each its {output: OrtValue}, or the TritonError."""
        if len(feeds) == 1:
            return [self._run(wanted, feeds[0], uncontended=uncontended)]
        merged = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
        answer = self._run(wanted, merged)
        if isinstance(answer, pb.TritonError):
            # One bad request must not fail those that happened to be batched with it.
            return [self._run(wanted, feed) for feed in feeds]
        rows = [len(next(iter(feed.values()))) for feed in feeds]
        bounds = [0, *accumulate(rows)]
        arrays = {name: np.from_dlpack(value) for name, value in answer.items()}
        for name, array in arrays.items():
            if array.ndim == 0 or len(array) != bounds[-1]:
                message = f"output '{name}' of shape {list(array.shape)} does not keep the batch"
                return [pb.TritonError(message, pb.TritonError.INTERNAL)] * len(feeds)
        return [
            {name: _owning_copy(array[start:stop]) for name, array in arrays.items()}
            for start, stop in pairwise(bounds)
        ]

    def _run(self, wanted, feed, *, uncontended=False):
        if not self._warm:
            # The first request, which is Triton's warm-up, warms both.
            self._warm = True
            self._run(wanted, feed, uncontended=True)
        latency = self._latency_session if uncontended else None
        session = latency or self._session
        try:
            return session.run(wanted, feed)
        except ort_errors.InvalidArgument as error:
            return pb.TritonError(f"onnx runtime error 2: {error}", pb.TritonError.INVALID_ARG)
        except MemoryError as error:
            return pb.TritonError(
                f"onnx runtime: out of memory: {error}", pb.TritonError.UNAVAILABLE
            )
        except Exception as error:  # noqa: BLE001 - whatever it was, it belongs to this request alone
            return pb.TritonError(f"onnx runtime error: {error}", pb.TritonError.INTERNAL)

    def _withdraw(self):
        if self._presence is not None:
            self._presence.unlink(missing_ok=True)


class _Lent:
    """
    A request's tensor for numpy, which asks with arguments that the stub does not know: to catch
    what it throws then takes longer than all the rest.
    """

    __slots__ = ("_tensor",)

    def __init__(self, tensor):
        self._tensor = tensor

    def __dlpack__(self, **_):
        return self._tensor.__dlpack__()

    def __dlpack_device__(self):
        return self._tensor.__dlpack_device__()


def _response(requested, answer):
    if isinstance(answer, pb.TritonError):
        return pb.InferenceResponse(error=answer)
    # onnxruntime's capsules and not numpy's: numpy complains, on every request, about how the
    # stub marks a capsule as used.
    return pb.InferenceResponse(
        [pb.Tensor.from_dlpack(name, answer[name].to_dlpack()) for name in requested]
    )


def _owning_copy(array):
    """
    Return an OrtValue that owns its memory.

    One made by `ortvalue_from_numpy` only borrows: its capsule would point to memory that is free
    by the time the stub copies it out, after `execute` has returned.
    """
    value = OrtValue.ortvalue_from_shape_and_type(array.shape, array.dtype)
    value.update_inplace(np.ascontiguousarray(array))
    return value._ortvalue  # noqa: SLF001 - only what is below the wrapper speaks DLPack


def _model_file(args, config):
    path = Path(args["model_repository"], args["model_version"])
    path /= config.get("default_model_filename") or "model.onnx"
    return path / "model.onnx" if path.is_dir() else path


def _announce(args):
    directory = os.environ.get(INSTANCES_DIR)
    if not directory:
        return None
    presence = Path(directory, str(os.getpid()))
    draft = presence.with_suffix(".tmp")
    said = {
        "model": args["model_name"],
        "version": int(args["model_version"]),
        "instance": args["model_instance_name"],
    }
    try:
        draft.write_text(json.dumps(said))
        draft.rename(presence)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        # To serve matters more; a crash of this process is then seen as one that never began.
        pb.Logger.log_warn(f"no space for the presence file: {error.strerror}")
        return None
    return presence


def _die_with_parent():
    """Kill this process when tritonserver is gone: a stub inside a run would otherwise live on."""
    parent = os.getppid()
    server = os.pidfd_open(parent)
    if Path(f"/proc/{parent}/comm").read_text().strip() != SERVER:
        # It died before this process could look: another one has taken its place by now.
        os.kill(os.getpid(), signal.SIGKILL)

    def wait():
        poll = select.poll()
        poll.register(server, select.POLLIN)
        poll.poll()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="die-with-parent", daemon=True).start()
