"""The Open Inference Protocol over gRPC: tritonclient against the gateway, and beside Triton."""

import itertools
import queue
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from gateway.grpc_api.health_messages import (
    NOT_SERVING,
    SERVING,
    HealthCheckRequest,
    HealthCheckResponse,
)
from testbed.gateway_process import running_gateway
from tests.integration.v2.rig import Both
from tests.integration.v2.sent import PIXELS, image_file, tiny_model


def _input(pixels: NDArray[np.uint8]) -> triton_grpc.InferInput:
    given = triton_grpc.InferInput("image", list(pixels.shape), "UINT8")
    given.set_data_from_numpy(pixels)
    return given


def _images(*files: bytes) -> triton_grpc.InferInput:
    given = triton_grpc.InferInput("image", [len(files)], "BYTES")
    given.set_data_from_numpy(np.array(files, np.object_))
    return given


@pytest.fixture
def client(both: Both) -> Iterator[triton_grpc.InferenceServerClient]:
    with triton_grpc.InferenceServerClient(both.grpc) as client:
        yield client


def test_every_call_of_the_client(client: triton_grpc.InferenceServerClient) -> None:
    """Tritonclient's whole gRPC interface: answered, or refused in one line."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("m")
    assert client.is_model_ready("m", "2")
    assert not client.is_model_ready("asleep")
    assert not client.is_model_ready("absent")
    assert client.get_server_metadata().name == "onnx-gateway"
    metadata = client.get_model_metadata("m", "2")
    assert (metadata.name, list(metadata.versions)) == ("m", ["1", "2"])
    assert metadata.inputs[0].datatype == "UINT8"
    config = client.get_model_config("m", as_json=True)["config"]
    assert (config["name"], config["backend"]) == ("m", "onnxruntime")
    index = client.get_model_repository_index()
    assert {(line.name, line.version, line.state) for line in index.models} >= {
        ("m", "1", "READY"),
        ("m", "2", "READY"),
    }
    client.load_model("asleep")
    assert client.is_model_ready("asleep")
    client.unload_model("asleep")
    assert not client.is_model_ready("asleep")
    with pytest.raises(InferenceServerException, match="as they were registered"):
        client.load_model("asleep", config="{}")
    before = client.get_inference_statistics("m", "1").model_stats[0].inference_count
    client.infer("m", [_input(PIXELS)], model_version="1")
    # Triton counts a run a little after it has answered.
    deadline_s = time.monotonic() + 10
    after = before
    while after != before + len(PIXELS):
        assert time.monotonic() < deadline_s
        after = client.get_inference_statistics("m", "1").model_stats[0].inference_count
    assert {each.name for each in client.get_inference_statistics().model_stats} >= {"m"}
    answers: queue.Queue[Any] = queue.Queue()
    client.async_infer("m", [_input(PIXELS)], lambda result, error: answers.put((result, error)))
    result, error = answers.get(timeout=30)
    assert error is None
    assert result.as_numpy("scores").shape == (3, 5)
    calls: list[Callable[[], object]] = [
        client.get_system_shared_memory_status,
        client.get_cuda_shared_memory_status,
        lambda: client.register_system_shared_memory("r", "/r", 64),
        lambda: client.register_cuda_shared_memory("r", b"eA==", 0, 64),
        client.unregister_system_shared_memory,
        client.unregister_cuda_shared_memory,
        client.get_trace_settings,
        lambda: client.update_trace_settings("m", {"trace_rate": "1"}),
        client.get_log_settings,
        lambda: client.update_log_settings({"log_verbose_level": 1}),
    ]
    for call in calls:
        with pytest.raises(InferenceServerException, match="not offered") as refused:
            call()
        assert refused.value.status() == "StatusCode.UNIMPLEMENTED"
    shared = triton_grpc.InferInput("image", [1, 2, 2, 3], "UINT8")
    shared.set_shared_memory("r", 12)
    with pytest.raises(InferenceServerException, match="Shared memory is not offered"):
        client.infer("m", [shared])


async def test_the_asynchronous_client(both: Both) -> None:
    """Tritonclient's aio client over the same calls, its stream included."""
    async with triton_grpc_aio.InferenceServerClient(both.grpc) as client:
        assert await client.is_server_ready()
        assert await client.is_model_ready("m", "1")
        assert (await client.get_model_metadata("m")).name == "m"
        assert (await client.get_model_config("m")).config.backend == "onnxruntime"
        assert (await client.get_model_repository_index()).models
        await client.load_model("asleep")
        await client.unload_model("asleep")
        assert (await client.get_inference_statistics("m")).model_stats
        answer = await client.infer("m", [_input(PIXELS)], request_id="mine")
        assert answer.get_response().id == "mine"
        for algorithm in ("gzip", "deflate"):
            packed = await client.infer("m", [_input(PIXELS)], compression_algorithm=algorithm)
            np.testing.assert_array_equal(packed.as_numpy("scores"), answer.as_numpy("scores"))

        async def asked() -> Any:
            for number, name in enumerate(("m", "absent", "m")):
                given = {"model_name": name, "inputs": [_input(PIXELS)], "request_id": str(number)}
                yield given

        told = [each async for each in client.stream_infer(asked())]
        assert [error is None for _, error in told] == [True, False, True]
        assert [result.get_response().id for result, error in told if error is None] == ["0", "2"]


def test_the_stream(client: triton_grpc.InferenceServerClient) -> None:
    """Requests of a stream are answered in order; a wrong one gets an error, and the next go on."""
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(5):
        client.async_stream_infer("m", [_input(PIXELS[:, : number + 3])], request_id=str(number))
    client.async_stream_infer("absent", [_input(PIXELS)])
    told = [answers.get(timeout=30) for _ in range(6)]
    client.stop_stream()
    assert [result.get_response().id for result, error in told[:5]] == list("01234")
    assert "absent" in str(told[5][1])


def _messages() -> Iterator[Any]:
    """Give requests of many kinds: right and wrong ones."""
    for rows, raw, version, outputs, request_id in itertools.product(
        (1, 3, 9), (True, False), ("1", "2"), ("", "scores", "classes", "absent"), ("", "ä/b")
    ):
        pixels = np.resize(PIXELS, (rows, 5, 4, 3))
        message = service_pb2.ModelInferRequest(
            model_name="m", model_version=version, id=request_id
        )
        given = message.inputs.add(name="image", datatype="UINT8", shape=pixels.shape)
        if raw:
            message.raw_input_contents.append(pixels.tobytes())
        else:
            given.contents.uint_contents.extend(pixels.reshape(-1).tolist())
        if outputs:
            name = "scores" if outputs == "classes" else outputs
            asked = message.outputs.add(name=name)
            if outputs == "classes":
                asked.parameters["classification"].int64_param = 2
        yield message
    for wrong in (
        {"name": "other"},
        {"datatype": "FP32"},
        {"datatype": "NONSENSE"},
        {"shape": [1, 2, 2, 4]},
        {"shape": [-1, 2, 2, 3]},
        {"shape": [1, 2**40, 2**40, 3]},
    ):
        message = service_pb2.ModelInferRequest(model_name="m", model_version="1")
        described = {"name": "image", "datatype": "UINT8", "shape": [1, 2, 2, 3], **wrong}
        message.inputs.add(**described)
        message.raw_input_contents.append(bytes(12))
        yield message
    yield service_pb2.ModelInferRequest(model_name="m", model_version="1")
    yield service_pb2.ModelInferRequest(model_name="absent")


def _answer(stub: Any, message: Any, metadata: dict[str, str]) -> Any:
    """Ask; None if it is refused."""
    try:
        return stub.ModelInfer(message, metadata=tuple(metadata.items()))
    except grpc.RpcError:
        return None


# Ours says FAILED_PRECONDITION or NOT_FOUND where Triton says UNAVAILABLE; both are the caller's.
_OURS = {"INVALID_ARGUMENT", "NOT_FOUND", "UNAVAILABLE"}


def test_the_answers_are_those_of_triton(both: Both) -> None:
    """Every kind of request: answered with the same tensors, to the bit, or refused by both."""
    with grpc.insecure_channel(both.grpc) as mine, grpc.insecure_channel(both.triton_grpc) as its:
        ours = service_pb2_grpc.GRPCInferenceServiceStub(mine)
        theirs = service_pb2_grpc.GRPCInferenceServiceStub(its)
        compared = refused = 0
        for message in _messages():
            if message.inputs and message.inputs[0].shape == [1, 2**40, 2**40, 3]:
                # It costs Triton its process.
                with pytest.raises(grpc.RpcError):
                    ours.ModelInfer(message)
                continue
            wanted = _answer(theirs, message, both.gateway.triton_metadata)
            if wanted is None:
                with pytest.raises(grpc.RpcError) as raised:
                    ours.ModelInfer(message)
                assert raised.value.code().name in _OURS, raised.value
                told = dict(raised.value.trailing_metadata())
                assert told["code"]
                assert told["x-request-id"]
                refused += 1
            else:
                assert ours.ModelInfer(message) == wanted
                compared += 1
    assert compared == 48
    assert refused == 55


def test_encoded_images_are_what_run_makes_of_them(both: Both) -> None:
    """BYTES of shape [N] are image files; one that is broken is named by its position."""
    files = [image_file(pixels, "PNG") for pixels in PIXELS]
    with triton_grpc.InferenceServerClient(both.grpc) as client:
        scores = client.infer("m", [_images(*files)]).as_numpy("scores")
        plain = client.infer("m", [_input(PIXELS)]).as_numpy("scores")
        np.testing.assert_array_equal(scores, plain)
        many = client.infer("m", [_images(*files * 6)]).as_numpy("scores")
        np.testing.assert_allclose(many, np.tile(plain, (6, 1)), rtol=1e-5)
        with pytest.raises(InferenceServerException, match="Image 1: "):
            client.infer("m", [_images(files[0], files[1][:40], files[2])])


def test_the_version_is_chosen_as_for_run(both: Both) -> None:
    """A number, an alias as the version or as a parameter, the champion; metadata says which."""
    with grpc.insecure_channel(both.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for asked, alias, answered in (
            ("", "", "1"),
            ("2", "", "2"),
            ("next", "", "2"),
            ("", "next", "2"),
        ):
            message = service_pb2.ModelInferRequest(model_name="m", model_version=asked)
            message.inputs.add(name="image", datatype="UINT8", shape=[1, 2, 2, 3])
            message.raw_input_contents.append(bytes(12))
            if alias:
                message.parameters["alias"].string_param = alias
            answer, call = stub.ModelInfer.with_call(message)
            assert answer.model_version == answered
            told = dict(call.initial_metadata())
            assert told["x-model-version"] == answered
            assert told["x-request-id"]


def test_inferences_are_counted(both: Both) -> None:
    """The stored metrics hold them by model and version, the cancelled and the refused ones too."""
    with triton_grpc.InferenceServerClient(both.grpc) as client:
        client.infer("m", [_input(PIXELS)], model_version="2")
        with pytest.raises(InferenceServerException):
            client.infer("m", [_input(PIXELS[..., :2])], model_version="2")
    answer = both.gateway.client.get(
        "/api/v1/metrics",
        params={"endpoint": "grpc_model_infer", "version": "2", "group_by": "status"},
    )
    counted = {row["status"]: row["requests"] for row in answer.json()["rows"]}
    assert counted[200] >= 1
    assert counted[400] >= 1


def test_a_deadline_and_a_cancellation_are_heard(both: Both) -> None:
    """A call that its caller gave up leaves no place taken behind."""
    # More calls than there are places, each given up: a place that stays taken would be missed.
    big = np.zeros((8, 500, 500, 3), np.uint8)
    with triton_grpc.InferenceServerClient(both.grpc) as client:
        with pytest.raises(InferenceServerException) as late:
            client.infer("m", [_input(big)], client_timeout=0.001)
        assert late.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        for _ in range(200):
            client.async_infer("m", [_input(big)], lambda **_told: None).cancel()
        assert client.infer("m", [_input(PIXELS)]).as_numpy("scores").shape == (3, 5)


def test_a_message_over_the_limit_is_refused(both: Both) -> None:
    """MAX_BODY_BYTES holds for gRPC, too; the connection stays."""
    with triton_grpc.InferenceServerClient(both.grpc) as client:
        with pytest.raises(InferenceServerException) as refused:
            client.infer("m", [_input(np.zeros((1, 4000, 3000, 3), np.uint8))])
        assert refused.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
        assert client.is_server_live()


def _health(channel: grpc.Channel, service: str, **options: Any) -> int:
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )
    answer: Any = check(HealthCheckRequest(service=service), **options)
    status: int = answer.status
    return status


def test_the_health_service(both: Both) -> None:
    """`grpc.health.v1` tells of the gateway and of each model, and a watch hears of a change."""
    with grpc.insecure_channel(both.grpc) as channel:
        assert _health(channel, "") == SERVING
        assert _health(channel, "inference.GRPCInferenceService") == SERVING
        assert _health(channel, "m") == SERVING
        assert _health(channel, "asleep") == NOT_SERVING
        with pytest.raises(grpc.RpcError) as unknown:
            _health(channel, "absent")
        assert unknown.value.code() == grpc.StatusCode.NOT_FOUND
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )(HealthCheckRequest(service="asleep"), timeout=60)
        assert next(watch).status == NOT_SERVING
        both.gateway.client.post("/api/v1/load", params={"name": "asleep"})
        assert next(watch).status == SERVING
        watch.cancel()
        both.gateway.client.post("/api/v1/unload", params={"name": "asleep"})


def test_several_workers_ask_for_keys_on_one_port(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Each worker answers on the port; a key says which models there are, and what may be done."""
    admin = "the key of the first admin"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = {"WORKERS": "2", "GATEWAY_ADMIN_KEY": admin, "GRPC_PORT": str(port)}
    with running_gateway(tmp_path_factory.mktemp("workers"), environment=environment) as gateway:
        gateway.client.headers["X-API-Key"] = admin
        gateway.register("mine", tiny_model(1), load="true")
        gateway.register("other", tiny_model(2), load="true")
        body = {"name": "reader", "role": "infer", "models": ["mine"]}
        key = gateway.client.post("/api/v1/keys", json=body).json()["key"]
        asked = {"authorization": f"Bearer {key}"}

        def statuses(headers: dict[str, str], call: Callable[[Any], Any]) -> set[str]:
            """Ask over connections of their own, so that both workers answer."""
            found = set()
            for _ in range(8):
                options = [("grpc.use_local_subchannel_pool", 1)]
                with triton_grpc.InferenceServerClient(
                    f"127.0.0.1:{port}", channel_args=options
                ) as client:
                    try:
                        call(lambda name, *a, c=client: getattr(c, name)(*a, headers=headers))
                        found.add("OK")
                    except InferenceServerException as error:
                        found.add(str(error.status()).partition(".")[2])
            return found

        given = [_input(PIXELS)]
        assert statuses({}, lambda ask: ask("infer", "mine", given)) == {"UNAUTHENTICATED"}
        assert statuses({}, lambda ask: ask("is_server_live")) == {"OK"}
        assert statuses(asked, lambda ask: ask("infer", "mine", given)) == {"OK"}
        assert statuses(asked, lambda ask: ask("infer", "other", given)) == {"NOT_FOUND"}
        assert statuses(asked, lambda ask: ask("load_model", "mine")) == {"PERMISSION_DENIED"}
        assert statuses(asked, lambda ask: ask("get_log_settings")) == {"UNIMPLEMENTED"}
        assert statuses(asked, lambda ask: ask("get_inference_statistics")) == {"PERMISSION_DENIED"}
        counted = gateway.client.get(
            "/api/v1/metrics", params={"endpoint": "grpc_model_infer", "model": "mine"}
        ).json()["rows"]
        assert sum(row["requests"] for row in counted) == 16
