"""
The ways to hand an image to Triton, side by side on one machine.

    shared    decode here, straight into memory that both share; the request names the slot
    sent      decode here, send the pixels (uint8) in the request's body
    encoded   send the JPEG as it came; the embedded Triton's backend decodes it
    laid      the JPEG as it came, laid into the shared memory

No HTTP server of ours takes part: what is compared is the way from the JPEG's bytes to the scores.
Rounds are interleaved; CPU is that of this process and all of Triton's.

    python -m perf.transports --rounds 5 --seconds 3
"""

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from gateway.converter.model_config import ConfigOptions, parse, to_json
from gateway.converter.placement import usable_cores
from gateway.converter.publish import publish_version
from gateway.inference.images.decoding import ImageLimits, decode_image, jpeg_size
from gateway.system.allocator import keep_large_buffers
from gateway.triton.client import TritonClient
from gateway.triton.embedded import EmbeddedListener, EmbeddedOptions, EmbeddedTriton
from gateway.triton.endpoint import TritonEndpoint
from gateway.triton.shared_memory import Region
from gateway.triton.tensor import Canvas, InputTensor
from perf.bench import images, models
from perf.bench.processes import cpu_s

REGION_BYTES = 64 * 1024 * 1024
LIMITS = ImageLimits(pixels=25_000_000)

Ask = Callable[[bytes], Awaitable[npt.NDArray[np.generic]]]


@dataclass(frozen=True, slots=True)
class Round:
    """One way, measured once: requests per second, latencies and CPU in milliseconds."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float


class Silent(EmbeddedListener):
    """Nothing is expected to happen to this Triton."""

    async def came_up(self, endpoint: TritonEndpoint) -> None:
        """Hear of a new server."""

    def went_down(self, reason: str) -> None:
        """Hear of a death."""
        raise RuntimeError(reason)

    def stub_lost(self, model: str, version: int, detail: str) -> None:
        """Hear of a lost instance."""
        raise RuntimeError(f"{model}/{version}: {detail}")


async def _measure(ask: Ask, image: bytes, clients: int, seconds: float) -> Round:
    latencies: list[float] = []
    until = time.perf_counter() + seconds

    async def client() -> None:
        while (began := time.perf_counter()) < until:
            await ask(image)
            latencies.append(time.perf_counter() - began)

    began, before = time.perf_counter(), cpu_s(os.getpid())
    await asyncio.gather(*(client() for _ in range(clients)))
    took, used = time.perf_counter() - began, cpu_s(os.getpid()) - before
    p50, p99 = np.percentile(latencies, [50, 99]) * 1000
    return Round(len(latencies) / took, float(p50), float(p99), used / len(latencies) * 1000)


async def _run(rounds: int, seconds: float, concurrency: list[int]) -> dict[str, object]:
    keep_large_buffers()
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        repository = root / "repository"
        repository.mkdir()
        (root / "tiny.onnx").write_bytes(models.tiny())
        published = publish_version(
            root / "tiny.onnx",
            repository=repository,
            name="tiny",
            version=1,
            options=ConfigOptions(),
        )
        triton = EmbeddedTriton(EmbeddedOptions(data_dir=root, repository=repository), Silent())
        client = TritonClient(await triton.start())
        threads = ThreadPoolExecutor(usable_cores())
        try:
            config = to_json(parse(published.config_text))
            await client.load("tiny", config, timeout_s=60)
            await client.share(REGION_BYTES, timeout_s=5)
            ways = _ways(client, threads)
            for name, image in zip(("W1", "W2"), images.jpegs(), strict=True):
                results[name] = await _compare(ways, image, rounds, seconds, concurrency)
        finally:
            threads.shutdown()
            await client.close()
            await triton.stop(idle=True)
    return results


def _ways(client: TritonClient, threads: ThreadPoolExecutor) -> dict[str, Ask]:
    loop = asyncio.get_running_loop()

    def draw(canvas: Canvas, image: bytes) -> InputTensor:
        try:
            return canvas.tensor(decode_image(image, LIMITS, canvas.allocate)[np.newaxis])
        finally:
            canvas.release()

    async def infer(tensor: InputTensor) -> npt.NDArray[np.generic]:
        try:
            return await client.infer(
                "tiny",
                1,
                input_name="image",
                input_dtype="UINT8",
                tensor=tensor,
                output_name="scores",
                request_id="0",
            )
        finally:
            tensor.release()

    async def shared(image: bytes) -> npt.NDArray[np.generic]:
        canvas = Canvas(client.region)
        return await infer(await loop.run_in_executor(threads, draw, canvas, image))

    async def sent(image: bytes) -> npt.NDArray[np.generic]:
        return await infer(await loop.run_in_executor(threads, draw, Canvas(None), image))

    async def encoded(image: bytes) -> npt.NDArray[np.generic]:
        return await infer(_carrying(image, None))

    async def laid(image: bytes) -> npt.NDArray[np.generic]:
        return await infer(_carrying(image, client.region))

    return {"shared": shared, "sent": sent, "encoded": encoded, "laid": laid}


def _carrying(image: bytes, region: Region | None) -> InputTensor:
    size = jpeg_size(image)
    assert size is not None
    tensor = InputTensor.carrying(image, (1, *size, 3))
    slot = region.take(tensor.size_bytes) if region is not None else None
    if region is None or slot is None:
        return tensor
    laid = region.view(slot).reshape(tensor.array.shape)
    np.copyto(laid, tensor.array)
    return replace(tensor, array=laid, region=region, slot=slot)


async def _compare(
    ways: dict[str, Ask], image: bytes, rounds: int, seconds: float, concurrency: list[int]
) -> dict[str, dict[str, Round]]:
    answers = [await ask(image) for ask in ways.values()]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])
    measured: dict[str, dict[str, list[Round]]] = {}
    for clients in concurrency:
        for _ in range(rounds):
            for way, ask in ways.items():
                found = await _measure(ask, image, clients, seconds)
                measured.setdefault(str(clients), {}).setdefault(way, []).append(found)
    return {
        clients: {way: _median(found) for way, found in by_way.items()}
        for clients, by_way in measured.items()
    }


def _median(found: list[Round]) -> Round:
    columns = zip(*(asdict(each).values() for each in found), strict=True)
    return Round(*(statistics.median(column) for column in columns))


def main(
    rounds: Annotated[int, typer.Option(help="Interleaved rounds.")] = 5,
    seconds: Annotated[float, typer.Option(help="Length of one measurement.")] = 3.0,
    concurrency: Annotated[str, typer.Option(help="Numbers of clients.")] = "1,4,16",
    output: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
) -> None:
    """Compare the ways."""
    clients = [int(number) for number in concurrency.split(",")]
    results = uvloop.run(_run(rounds, seconds, clients))
    table = Table("load", "clients", "way", "req/s", "p50 ms", "p99 ms", "CPU ms")
    for load, by_clients in results.items():
        assert isinstance(by_clients, dict)
        for number, by_way in by_clients.items():
            for way, found in by_way.items():
                figures = (f"{value:.1f}" for value in asdict(found).values())
                table.add_row(load, number, way, *figures)
    Console().print(table)
    if output is not None:
        output.write_text(json.dumps(results, default=asdict, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
