"""
NVIDIA's perf_analyzer straight against Triton, for each model that is ready there.

    python -m perf.perf_analyzer                        against a gateway of its own
    python -m perf.perf_analyzer --url 127.0.0.1:8001   against that Triton (gRPC)
    python -m perf.perf_analyzer -s 50                  what it does not know is perf_analyzer's

The program comes from the wheel of tritonclient 2.50, which is the newest that runs on glibc 2.36,
with the two libraries that it needs beside it, all under build/perf-analyzer. On a newer system, or
where that is not to be had, use the image of Triton's SDK:

    docker compose --profile cpu --profile perf run --rm perf-analyzer
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import tritonclient.grpc as triton_grpc

from gateway.triton.endpoint import TritonEndpoint
from perf.bench.servers import CHECKOUT, running_servers
from perf.bench.workloads import make_workloads
from perf.breakdown import embedded_triton

_FOLDER = CHECKOUT / "build/perf-analyzer"
_WHEELS = ("tritonclient==2.50.0", "nvidia-cuda-runtime-cu12==12.6.77")
_SIDE = 224  # stands for each free dimension


def install() -> tuple[Path, str]:
    """Fetch the program and its libraries; give it and their LD_LIBRARY_PATH."""
    program = _FOLDER / "wheels/bin/perf_analyzer"
    if not program.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--target", str(_FOLDER / "wheels"), *_WHEELS], check=True)
        program.chmod(0o755)
    library = _FOLDER / "libb64/usr/lib/x86_64-linux-gnu"
    if not library.exists():
        subprocess.run(["apt-get", "download", "libb64-0d"], cwd=_FOLDER, check=True)
        (package,) = _FOLDER.glob("libb64-0d_*.deb")
        subprocess.run(["dpkg", "-x", str(package), str(_FOLDER / "libb64")], check=True)
    return program, f"{_FOLDER / 'wheels/nvidia/cuda_runtime/lib'}:{library}"


def shapes(
    client: triton_grpc.InferenceServerClient, model: str, metadata: Mapping[str, str]
) -> list[str]:
    """Give `--shape` for each input, without the batch axis; a free dimension becomes 224."""
    batched = client.get_model_config(model, headers=metadata).config.max_batch_size > 0
    options = []
    for tensor in client.get_model_metadata(model, headers=metadata).inputs:
        sizes = [_SIDE if size < 0 else size for size in tensor.shape[1 if batched else 0 :]]
        options += ["--shape", f"{tensor.name}:{','.join(map(str, sizes))}"]
    return options


def analyse(triton: TritonEndpoint, concurrency: str, more: list[str]) -> None:
    """Measure every loaded version of a Triton; raises CalledProcessError when one is unstable."""
    url, metadata = triton.grpc_url, triton.admin_metadata
    shown = [word for name, value in metadata.items() for word in ("-H", f"{name}:{value}")]
    program, libraries = install()
    client = triton_grpc.InferenceServerClient(url)
    # Its index is an administrative call; its statistics name the same versions, and need not be.
    for model in client.get_inference_statistics(headers=metadata).model_stats:
        print(f"\n{model.name} version {model.version}", flush=True)
        subprocess.run(
            [
                *(str(program), "-m", model.name, "-x", model.version, "-u", url, "-i", "grpc"),
                *shapes(client, model.name, metadata),
                *shown,
                *("--concurrency-range", concurrency, "--measurement-interval", "2000"),
                *("--percentile", "99"),
                *more,
            ],
            env={**os.environ, "LD_LIBRARY_PATH": libraries},
            check=True,
        )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(prog="python -m perf.perf_analyzer")
    parser.add_argument("--url", help="HOST:PORT of Triton's gRPC; default: a gateway's own")
    parser.add_argument("--concurrency", default="1:4:3", help="START:END:STEP")
    arguments, more = parser.parse_known_args()
    if arguments.url:
        remote = TritonEndpoint(http_url="", grpc_url=arguments.url)
        analyse(remote, arguments.concurrency, more)
        return
    with tempfile.TemporaryDirectory(prefix="perf-analyzer-") as place:
        made = make_workloads(Path(place))
        for name in ("W2", "W3"):
            folder = Path(place) / f"run-{name}"
            with running_servers(["gateway"], made[name], folder) as running:
                triton = embedded_triton(running["gateway"])
                analyse(triton, arguments.concurrency, more)


if __name__ == "__main__":
    main()
