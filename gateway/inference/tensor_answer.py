"""
The answer to a V2 inference: Triton's, under the id and the name that the caller knows.

Source: Triton, "HTTP/REST and GRPC Protocol" (V2), Binary Tensor Data Extension.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from gateway.inference.request import Stages
from gateway.registry.versions import ModelVersion
from gateway.triton.connections import HttpResponse
from gateway.triton.v2_protocol import INFERENCE_HEADER_LENGTH, AnswerInvalid, decode_answer

# Longer answers are not read: no classifier's are, and it would hold up the others.
_LARGEST_SCORES_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class TensorAnswer:
    """
    Triton's answer, the version that gave it, and how long it took.

    Attributes:
        response: As Triton sent it.
        chosen: The version.
        triton_model: Where that version lies.
        request_id: The id that Triton was told.
        stages: How long it took.
    """

    response: HttpResponse
    chosen: ModelVersion
    triton_model: str
    request_id: str
    stages: Stages

    @property
    def version(self) -> int:
        """The version's number."""
        return self.chosen.version

    @property
    def json_bytes(self) -> int:
        """How much of the body is JSON; values come behind it if it is not all."""
        return int(self.response.headers.get(INFERENCE_HEADER_LENGTH, len(self.response.body)))

    @property
    def has_values(self) -> bool:
        """Whether the answer is in two parts, even if the second is empty."""
        return INFERENCE_HEADER_LENGTH in self.response.headers

    def named(self, caller_id: str) -> tuple[bytes, int]:
        """
        Write the answer for the caller.

        Args:
            caller_id: The id that the caller gave; "" for none.

        Returns:
            The body, and how much of it is JSON.
        """
        body, length = self.response.body, self.json_bytes
        ours = b'{"id":"%s","model_name":"%s",' % (
            self.request_id.encode(),
            self.triton_model.encode(),
        )
        theirs = b'{"model_name":"%s",' % self.chosen.model.encode()
        if caller_id:
            theirs = b'{"id":%s,%s' % (orjson.dumps(caller_id), theirs[1:])
        if body.startswith(ours):
            named = b"".join((theirs, memoryview(body)[len(ours) :]))
            return named, length + len(theirs) - len(ours)
        said = self.said()
        written = orjson.dumps({"id": caller_id, **said} if caller_id else said)
        return b"".join((written, memoryview(body)[length:])), len(written)

    def said(self) -> dict[str, Any]:
        """Read the JSON part, without its id and under the name that callers know."""
        read: dict[str, Any] = orjson.loads(memoryview(self.response.body)[: self.json_bytes])
        read.pop("id", None)
        return {**read, "model_name": self.chosen.model}

    def outputs(self) -> Iterator[tuple[dict[str, Any], memoryview]]:
        """Yield what the JSON part says of each output, and its values if they come behind it."""
        at, body = self.json_bytes, memoryview(self.response.body)
        for output in self.said()["outputs"]:
            size_bytes = output.get("parameters", {}).get("binary_data_size", 0)
            yield output, body[at : at + size_bytes]
            at += size_bytes

    def scores(self) -> npt.NDArray[np.generic] | None:
        """Read the scores of one image or row, finite; None if the answer does not hold them."""
        if len(self.response.body) > _LARGEST_SCORES_BYTES:
            return None
        wanted = self.chosen.signature.outputs[0]
        try:
            scores = decode_answer(self.response.headers, self.response.body, wanted.name)
        except AnswerInvalid:
            return None
        single = scores.ndim < 2 or scores.shape[0] == 1
        if not single or scores.size == 0 or scores.dtype.kind not in "fiu":
            return None
        return scores if np.isfinite(scores).all() else None
