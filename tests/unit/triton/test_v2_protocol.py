"""The bytes of an inference, read back independently; answers of every kind of nonsense."""

import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.triton.shared_memory import Region
from gateway.triton.tensor import Canvas, InputTensor
from gateway.triton.v2_protocol import (
    INFERENCE_HEADER_LENGTH,
    AnswerInvalid,
    decode_answer,
    decode_error,
    encode_request,
)

_DTYPES = {
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "UINT8": np.uint8,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


def _request(tensor: InputTensor, dtype: str, *, shared: bool, **changes: Any) -> bytes:
    return b"".join(
        encode_request(
            "model-1",
            7,
            host="127.0.0.1:8000",
            tensor=tensor,
            input_dtype=dtype,
            shared=shared,
            request_id="id-1",
            **{"input_name": "x", "output_name": "y", "parameters": {}, "headers": {}, **changes},
        )
    )


def _parse(request: bytes) -> tuple[str, dict[str, str], dict[str, Any], bytes]:
    """Take a request apart as a server does: request line, headers, JSON, binary rest."""
    head, body = request.split(b"\r\n\r\n", 1)
    line, *rest = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (text.split(": ", 1) for text in rest)}
    assert int(headers["content-length"]) == len(body)
    length = int(headers[INFERENCE_HEADER_LENGTH])
    return line, headers, json.loads(body[:length]), body[length:]


@pytest.mark.parametrize("dtype", list(_DTYPES))
def test_values_that_are_sent_stand_behind_the_json(dtype: str) -> None:
    """The input's values, in C order, little-endian, with their number of bytes in the JSON."""
    array: np.ndarray[Any, Any] = (
        np.arange(24).reshape(2, 3, 4).astype(_DTYPES[dtype]).transpose(2, 0, 1)
    )
    line, headers, inference, rest = _parse(
        _request(InputTensor(array), dtype, shared=False, headers={"traceparent": "00-a-b-01"})
    )
    assert line == "POST /v2/models/model-1/versions/7/infer HTTP/1.1"
    assert headers["host"] == "127.0.0.1:8000"
    assert headers["traceparent"] == "00-a-b-01"
    assert inference == {
        "id": "id-1",
        "inputs": [
            {
                "name": "x",
                "shape": [4, 2, 3],
                "datatype": dtype,
                "parameters": {"binary_data_size": array.nbytes},
            }
        ],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }
    sent = np.frombuffer(rest, np.dtype(_DTYPES[dtype]).newbyteorder("<")).reshape(4, 2, 3)
    np.testing.assert_array_equal(sent, array)


def test_values_that_are_shared_are_named_and_not_sent() -> None:
    """In shared memory: the region, the offset and the size, and not one byte of the values."""
    region = Region(16 * 4096)
    before = region.take(1)
    canvas = Canvas(region)
    tensor = canvas.tensor(canvas.allocate(5000).reshape(1, 50, 100))
    _, _, inference, rest = _parse(_request(tensor, "UINT8", shared=True))
    assert rest == b""
    (given,) = inference["inputs"]
    assert given["shape"] == [1, 50, 100]
    assert given["parameters"] == {
        "shared_memory_region": region.name,
        "shared_memory_offset": 4096,
        "shared_memory_byte_size": 5000,
    }
    assert before is not None
    region.close()


@settings(max_examples=100, deadline=None)
@given(
    name=st.text(min_size=1).filter(lambda text: text.encode("utf-8", "ignore").decode() == text)
)
def test_names_of_any_text_arrive(name: str) -> None:
    """Names of tensors are free text: quotes, line ends and every script come back unchanged."""
    tensor = InputTensor(np.zeros(3, np.uint8))
    _, _, inference, rest = _parse(
        _request(tensor, "UINT8", shared=False, input_name=name, output_name=name)
    )
    assert inference["inputs"][0]["name"] == inference["outputs"][0]["name"] == name
    assert rest == b"\0\0\0"


def _answer(*outputs: tuple[str, str, np.ndarray[Any, Any]]) -> tuple[dict[str, str], bytes]:
    described: list[dict[str, Any]] = [
        {
            "name": name,
            "datatype": dtype,
            "shape": list(array.shape),
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, dtype, array in outputs
    ]
    head = json.dumps({"model_name": "m", "outputs": described}).encode()
    body = head + b"".join(array.tobytes() for _, _, array in outputs)
    return {INFERENCE_HEADER_LENGTH: str(len(head))}, body


@pytest.mark.parametrize("wanted", list(_DTYPES))
def test_each_of_several_outputs_is_found(wanted: str) -> None:
    """Of outputs with unlike dtypes and odd sizes each is read at its own place."""
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray[Any, Any]] = {
        dtype: rng.integers(0, 100, (1, 3 + number)).astype(kind)
        for number, (dtype, kind) in enumerate(_DTYPES.items())
    }
    headers, body = _answer(*((dtype, dtype, array) for dtype, array in arrays.items()))
    values = decode_answer(headers, body, wanted)
    assert values.dtype == arrays[wanted].dtype
    np.testing.assert_array_equal(values, arrays[wanted])
    assert not values.flags.writeable


def _json_only(described: Any) -> tuple[dict[str, str], bytes]:
    return {}, orjson.dumps(described)


_NONSENSE: tuple[Any, ...] = (
    [],
    None,
    {},
    {"outputs": None},
    {"outputs": 1},
    {"outputs": "y"},
    {"outputs": ["y"]},
    {"outputs": [None]},
    {"outputs": [{}]},
    {"outputs": [{"name": "y"}]},
    {"outputs": [{"name": "y", "parameters": None}]},
    {"outputs": [{"name": "y", "parameters": {"binary_data_size": None}}]},
    {"outputs": [{"name": "y", "datatype": [], "shape": [1]}]},
    {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1]}]},
    {"outputs": [{"name": "y", "datatype": "FP32", "shape": None}]},
    {"outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}]},
    {"outputs": [{"name": "y", "datatype": "FP32", "shape": ["a"]}]},
    {"outputs": [{"name": "y", "datatype": "FP32", "shape": [2**63]}]},
    {"outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "data": [0.5]}]},
)
_SCORES = ("y", "FP32", np.zeros((1, 3), np.float32))


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        _answer(("other", "FP32", np.zeros((1, 3), np.float32))),
        _answer(("y", "BYTES", np.zeros((1, 3), np.uint8))),
        _answer(("y", "FP99", np.zeros((1, 3), np.float32))),
        _answer(("y", "FP64", np.zeros((1, 3), np.float32))),
        ({INFERENCE_HEADER_LENGTH: "3"}, _answer(_SCORES)[1]),
        ({INFERENCE_HEADER_LENGTH: "-3"}, _answer(_SCORES)[1]),
        ({INFERENCE_HEADER_LENGTH: "many"}, _answer(_SCORES)[1]),
        (_answer(_SCORES)[0], _answer(_SCORES)[1][:-4]),
        (_answer(_SCORES)[0], _answer(_SCORES)[1][:-1]),
        ({}, b""),
        ({}, b"<html>502</html>"),
        *(_json_only(described) for described in _NONSENSE),
        ({}, b'{"outputs":[{"name":"y","parameters":{"binary_data_size":1e999}}]}'),
    ],
)
def test_what_is_no_answer_is_refused(headers: dict[str, str], body: bytes) -> None:
    """No such output, no numbers, sizes that contradict, nonsense: AnswerInvalid."""
    with pytest.raises(AnswerInvalid):
        decode_answer(headers, body, "y")


def test_values_that_stand_in_the_json_are_read() -> None:
    """A server may answer without the binary extension: its `data` is the output's values."""
    output = {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 0.25]}
    values = decode_answer({}, orjson.dumps({"outputs": [output]}), "y")
    assert values.dtype == np.dtype(np.float32)
    assert values.tolist() == [[0.5, 0.25]]


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "datatype", "shape", "parameters", "binary_data_size"]), inner
        )
    ),
    max_leaves=8,
)
_OUTPUT = st.fixed_dictionaries(
    {
        "name": st.just("y") | _JSON,
        "datatype": st.sampled_from(["FP32", "BF16", "BYTES"]) | _JSON,
        "shape": st.lists(st.integers(-(2**65) // 4, 2**63 - 1) | st.integers(-2, 4)) | _JSON,
    },
    optional={"parameters": st.fixed_dictionaries({"binary_data_size": _JSON}) | _JSON},
)


@settings(max_examples=300, deadline=None)
@given(
    described=st.fixed_dictionaries({"outputs": st.lists(_OUTPUT, max_size=3) | _JSON}),
    length=st.none() | st.integers(-50, 300) | st.text(max_size=4),
    rest=st.binary(max_size=32),
)
def test_a_strange_answer_is_numbers_or_refused(
    described: object, length: int | str | None, rest: bytes
) -> None:
    """Whatever stands in an answer: an array, or AnswerInvalid, and never another exception."""
    head = orjson.dumps(described)
    headers = {INFERENCE_HEADER_LENGTH: str(len(head) if length is None else length)}
    try:
        values = decode_answer(headers, head + rest, "y")
    except AnswerInvalid:
        return
    assert values.nbytes <= len(rest)


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=300), length=st.integers(0, 300))
def test_random_bytes_are_refused(body: bytes, length: int) -> None:
    """Bytes that are no answer: AnswerInvalid; as the body of an error: some text."""
    with pytest.raises(AnswerInvalid):
        decode_answer({INFERENCE_HEADER_LENGTH: str(length)}, body, "y")
    assert isinstance(decode_error(body), str)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error":"no such model"}', "no such model"),
        (b"[1]", "[1]"),
        (b'"text"', '"text"'),
        (b"\xff" * 500, "\N{REPLACEMENT CHARACTER}" * 200),
    ],
)
def test_an_error_is_read_whatever_it_is(body: bytes, text: str) -> None:
    """Triton's own words where there are some; else the beginning of the body."""
    assert decode_error(body) == text
