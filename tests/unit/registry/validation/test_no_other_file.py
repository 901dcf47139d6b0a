"""A model that names another file: validation refuses it and opens that file at no moment."""

import ctypes
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from gateway.registry.validation.validator import Validator
from tests.model_family import FAMILY

_IN_OPEN = 0x20
_EVENT = struct.Struct("iIII")


class _Opened:
    """Counts how often a file is opened, by whomever: the kernel tells (inotify)."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def times(self) -> int:
        """Tell how often since the last time."""
        try:
            events = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return 0
        return len(events) // _EVENT.size


@contextmanager
def _watching(path: Path) -> Iterator[_Opened]:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert descriptor >= 0, os.strerror(ctypes.get_errno())
    try:
        assert libc.inotify_add_watch(descriptor, os.fsencode(path), _IN_OPEN) >= 0
        yield _Opened(descriptor)
    finally:
        os.close(descriptor)


def _initializer(model: onnx.ModelProto, location: str) -> None:
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


def _in_subgraph(model: onnx.ModelProto, location: str) -> None:
    inner = onnx.ModelProto()
    _initializer(inner, location)
    branch = helper.make_graph([], "branch", [], [])
    branch.initializer.extend(inner.graph.initializer)
    model.graph.node.append(helper.make_node("If", ["a"], ["o"], then_branch=branch))


@pytest.mark.parametrize(
    ("hide", "where"),
    [
        (_initializer, "relative"),
        (_in_subgraph, "absolute"),
        (_initializer, "climbing"),
        (_in_subgraph, "link"),
    ],
    ids=["relative", "absolute-in-subgraph", "climbing", "link-in-subgraph"],
)
async def test_the_other_file_is_never_opened(
    hide: Callable[[onnx.ModelProto, str], None], where: str, tmp_path: Path
) -> None:
    """The file is there and of the right size: only looking into it would tell it from weights."""
    folder = tmp_path / "upload"
    folder.mkdir()
    secret = (folder if where in {"relative", "absolute"} else tmp_path) / "secret.bin"
    secret.write_bytes(b"1234")
    (folder / "link.bin").symlink_to(secret)
    location = {"relative": "secret.bin", "climbing": "../secret.bin", "link": "link.bin"}
    model = FAMILY[0].make()
    hide(model, location.get(where, str(secret)))
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    validator = Validator(memory_bytes=4 << 30, timeout_s=60.0, runtime="local")
    with _watching(secret) as opened:
        secret.read_bytes()
        assert opened.times() == 1  # this is how it would be seen
        validated = await validator.validate(
            path,
            path.stat().st_size,
            folder=folder,
            name="m",
            preprocessing=None,
            labels=None,
        )
        assert opened.times() == 0
    refusal = validated.report.refusal
    assert refusal is not None
    assert (refusal.name, refusal.code) == ("file", "external_data_forbidden")
