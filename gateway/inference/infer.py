"""Ask one version: send its input, time it, and make a category or an error of the answer."""

import time

from gateway.inference.decoder import Decoder
from gateway.inference.request import ImageRequest, Prediction
from gateway.inference.tasks.classify import category
from gateway.inference.triton_errors import error_of
from gateway.triton.errors import TritonError, TritonNotDecoded, TritonNotReady
from gateway.triton.replicas import Lease
from gateway.triton.tensor import InputTensor


async def infer(request: ImageRequest, lease: Lease, tensor: InputTensor) -> Prediction:
    """
    Ask the request's version.

    Args:
        request: Its stages take note of the time, also of a call that fails.
        lease: On a replica that has the version ready.
        tensor: The input.

    Raises:
        TritonNotReady: No replica has the version ready any more.
        TritonNotDecoded: The tensor carries an image that Triton leaves to be decoded here.
        GatewayError: Any other failure; see `triton_errors.py`. ModelOutputInvalid: the scores are
            not finite numbers.
    """
    chosen = request.chosen
    wanted, answered = chosen.signature.inputs[0], chosen.signature.outputs[0]
    began_s = time.perf_counter()
    try:
        scores = await lease.infer(
            input_name=wanted.name,
            input_dtype=wanted.dtype,
            tensor=tensor,
            output_name=answered.name,
            request_id=request.request_id,
        )
    except (TritonNotDecoded, TritonNotReady):
        raise
    except TritonError as error:
        raise error_of(error, chosen, tensor.shape) from error
    finally:
        request.stages.infer_s = time.perf_counter() - began_s
    return Prediction(category(scores), scores, chosen, request.stages)


async def decode_and_infer(request: ImageRequest, lease: Lease, decoder: Decoder) -> Prediction:
    """
    Decode the request's image here, and ask its version.

    Raises:
        RequestError: The image is at fault; see `Decoder.decode`.
        TritonNotReady, GatewayError: As `infer`.
    """
    tensor = await decoder.decode(request, lease.region)
    try:
        return await infer(request, lease, tensor)
    finally:
        tensor.release()
