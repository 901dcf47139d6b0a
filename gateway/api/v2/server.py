"""
V2 about the server: live, ready, what it is; and the calls that it does not offer.

Source: Open Inference Protocol, REST; Triton, "HTTP/REST and GRPC Protocol".
"""

from fastapi import APIRouter, Request

from gateway.api.rest.dependencies import ServicesOf
from gateway.errors import ProtocolUnsupported, TritonUnavailable
from gateway.inference.describe import EXTENSIONS

router = APIRouter(prefix="/v2", tags=["open inference protocol"])


@router.get("/health/live", summary="Is the server alive?")
async def v2_live() -> dict[str, bool]:
    """Answer as long as the process can."""
    return {"live": True}


@router.get("/health/ready", summary="Would an inference be answered?")
async def v2_ready(services: ServicesOf) -> dict[str, bool]:
    """Check what `/readyz` checks."""
    failed = [name for name, check in (await services.health.ready()).items() if not check.ok]
    if failed:
        raise TritonUnavailable(f"Not ready: {', '.join(failed)}.")
    return {"ready": True}


@router.get("", summary="Describe the server")
async def v2_server(request: Request) -> dict[str, object]:
    """Name the server, its version and its extensions."""
    return {
        "name": "onnx-gateway",
        "version": request.app.version,
        "extensions": list(EXTENSIONS),
    }


@router.api_route(
    "/{kind}sharedmemory/{rest:path}", methods=["GET", "POST"], include_in_schema=False
)
@router.api_route("/trace/setting", methods=["GET", "POST"], include_in_schema=False)
@router.api_route("/logging", methods=["GET", "POST"], include_in_schema=False)
@router.api_route("/models/{name}/trace/setting", methods=["GET", "POST"], include_in_schema=False)
async def v2_unsupported(request: Request) -> None:
    """Refuse what is the operator's alone: shared memory, traces and logs of Triton."""
    raise ProtocolUnsupported(f"{request.url.path} is not offered by the gateway.")
