"""
Ray Serve, as its documentation writes a deployment, with HAProxy in front, which answers several
times as many requests as Ray's own proxy:
https://docs.ray.io/en/master/kuberay/user-guides/serve-high-throughput.html. Without
RAY_SERVE_THROUGHPUT_OPTIMIZED: it answers no more here, with a longer tail. One replica for each
core.

    python perf/peers/ray_server.py PORT MODEL.onnx WORKERS THREADS
"""

import os
import signal
import socket
import sys
from pathlib import Path

PORT, MODEL, WORKERS, THREADS = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
CLIENTS = 64  # served at once by each replica; Ray's default is 5
FOLDER = Path.cwd()


def free_port() -> str:
    """Find a port for what has to have one, and may not have 0."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


HAPROXY = {
    "NBTHREAD": str(WORKERS),
    "STATS_PORT": free_port(),
    "METRICS_PORT": free_port(),
    # Ray puts 57 bytes into each path; of a socket's, HAProxy takes 97 in all.
    "CONFIG_FILE_LOC": str(FOLDER / "c"),
    "SOCKET_PATH": str(FOLDER / "s"),
    "METRICS_SOCKET_PATH": str(FOLDER / "m"),
    "SERVER_STATE_BASE": str(FOLDER),
    "SERVER_STATE_FILE": str(FOLDER / "t"),
}
os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # no other machine: Ray's own ports are on loopback
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": free_port(),
    **{f"RAY_SERVE_HAPROXY_{name}": value for name, value in HAPROXY.items()},
}

import ray  # noqa: E402 - it reads the environment when it is imported
from classifier import Classifier  # noqa: E402
from ray import serve  # noqa: E402
from starlette.requests import Request  # noqa: E402


@serve.deployment(num_replicas=WORKERS, max_ongoing_requests=CLIENTS)
class ClassifierDeployment:
    """Base64 in, a category out."""

    def __init__(self, path: str, threads: int) -> None:
        self.classifier = Classifier(path, threads)

    async def __call__(self, request: Request) -> dict[str, str]:
        """Answer `{"category": "07"}`."""
        return self.classifier.classify((await request.json())["image"])


if __name__ == "__main__":
    ray.init(
        num_cpus=WORKERS,
        include_dashboard=False,
        object_store_memory=100_000_000,  # of shared memory; no request goes through it
        _temp_dir=str(FOLDER),
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # Ray's own aborts before it cleans up
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(ClassifierDeployment.bind(MODEL, THREADS), blocking=True)
