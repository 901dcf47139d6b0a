"""
Write a graph that was read without its weights, and take the weights from the file that it was read
from: piece by piece and byte for byte, so that a large model is never in memory as a whole.

A message of protobuf is a sequence of fields, each a tag and a value; the fields of one number keep
their order and may stand anywhere. So the graph is written first, without initializers, and the
initializers are copied behind it, in the same field.

Source: Protocol Buffers, Encoding; ONNX, `onnx.proto` (ModelProto.graph, GraphProto.initializer).
"""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import onnx

from gateway.converter.errors import ModelInvalid

# Wire types.
_VARINT, _BYTES = 0, 2
_FIXED_BYTES = {1: 8, 5: 4}
_GRAPH = onnx.ModelProto.GRAPH_FIELD_NUMBER
_INITIALIZER = onnx.GraphProto.INITIALIZER_FIELD_NUMBER
_PIECE_BYTES = 1 << 20

_Field = tuple[int, int, int, int]
"""Number, where the field begins, where its value begins and ends."""


def write_model(model: onnx.ModelProto, weights: Path, target: BinaryIO) -> None:
    """
    Write a model with the initializers of another file.

    Args:
        model: As `read_graph` gave it, then changed; the values of its initializers are not used.
        weights: The file that it was read from; its initializers must be in force as they are.
        target: Open for writing.

    Raises:
        ModelInvalid: The file is not as it was.
    """
    around, graph = onnx.ModelProto(), onnx.GraphProto()
    around.CopyFrom(model)
    graph.CopyFrom(model.graph)
    around.ClearField("graph")
    graph.ClearField("initializer")
    head, body = around.SerializeToString(), graph.SerializeToString()
    with (
        weights.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        pieces = list(_initializers(data))
        length = len(body) + sum(end - begin for begin, end in pieces)
        target.write(head + _varint(_GRAPH << 3 | _BYTES) + _varint(length) + body)
        for begin, end in pieces:
            steps = range(begin, end, _PIECE_BYTES)
            target.writelines(data[at : min(end, at + _PIECE_BYTES)] for at in steps)


def _initializers(data: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Find the initializers of the main graph, their tags included."""
    for number, _, begin, end in _fields(data, 0, len(data)):
        if number == _GRAPH:
            for inner, field, _, inner_end in _fields(data, begin, end):
                if inner == _INITIALIZER:
                    yield field, inner_end


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[_Field]:
    """Walk the fields of one message."""
    while at < end:
        field = at
        tag, at = _read_varint(data, at)
        kind, begin = tag & 7, at
        if kind == _VARINT:
            _, at = _read_varint(data, at)
        elif kind == _BYTES:
            length, begin = _read_varint(data, at)
            at = begin + length
        elif kind in _FIXED_BYTES:
            at += _FIXED_BYTES[kind]
        else:
            raise ModelInvalid("Not an ONNX model: a field of an unknown kind.")
        if at > end:
            raise ModelInvalid("Not an ONNX model, or a truncated one.")
        yield tag >> 3, field, begin, at


def _read_varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ModelInvalid("Not an ONNX model, or a truncated one.")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
