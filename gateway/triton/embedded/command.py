"""
The command line and environment of the embedded tritonserver, as a pure function.

Loopback only, explicit model control, no auto-completion of configurations (what is served is what
was written), and all calls but health behind a secret. The environment is built from nothing:
the server runs models that strangers sent, so it sees no secret of the gateway's.

Source: Triton "Model Control" and "Secure Deployment Considerations"; `tritonserver --help`, 2.51.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.triton.embedded.ports import LOOPBACK, Ports
from gateway.triton.endpoint import ADMIN_HEADER

# All that 2.51 knows but health, which is asked before and after everything else.
RESTRICTED_APIS = (
    "inference,metadata,model-config,statistics,shared-memory,model-repository,trace,logging"
)
INSTANCES_DIR = "GATEWAY_TRITON_INSTANCES_DIR"
# Below this size the allocator keeps memory instead of giving each image's buffer back to the
# kernel and faulting it in again on the next request.
MALLOC_KEEP_BYTES = 64 * 1024 * 1024
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")
# Object storage for the repository, and the GPU's runtime.
INHERITED_PREFIXES = ("AWS_", "AZURE_STORAGE_", "GOOGLE_APPLICATION_", "TRITON_CLOUD_", "NVIDIA_")


@dataclass(frozen=True, slots=True)
class ServerCommand:
    """What to execute: no shell takes part."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path


def server_command(
    *,
    server: Path,
    repository: Path | str,
    backend_directory: Path,
    library_directories: Sequence[Path],
    instances: Path,
    work: Path,
    ports: Ports,
    admin_key: str,
    shm_prefix: str,
    exit_timeout_s: int,
    gpu: bool,
    extra_arguments: Sequence[str],
    environ: Mapping[str, str],
) -> ServerCommand:
    """
    Return the command of one start.

    Args:
        server: The tritonserver executable.
        repository: The model repository: a directory, or an s3:// address.
        backend_directory: Holds `onnxruntime/`.
        library_directories: LD_LIBRARY_PATH of the stubs, in order.
        instances: Where the backend leaves its presence files.
        work: The working directory; must be empty.
        ports: All three, none of them 0.
        admin_key: Secret of the restricted calls.
        shm_prefix: Prefix of the shared-memory regions.
        exit_timeout_s: How long the server waits for requests in flight after SIGTERM.
        gpu: Whether onnxruntime can use one; if not, they are hidden, or KIND_AUTO would take one.
        extra_arguments: Further arguments, after ours.
        environ: The gateway's own environment.
    """
    restricted = f"{RESTRICTED_APIS}:{ADMIN_HEADER}={admin_key}"
    argv = [
        str(server),
        f"--model-repository={repository}",
        f"--backend-directory={backend_directory}",
        "--model-control-mode=explicit",
        "--disable-auto-complete-config",
        "--strict-readiness=false",
        f"--exit-timeout-secs={exit_timeout_s}",
        "--allow-http=true",
        f"--http-address={LOOPBACK}",
        f"--http-port={ports.http}",
        f"--http-restricted-api={restricted}",
        "--allow-grpc=true",
        f"--grpc-address={LOOPBACK}",
        f"--grpc-port={ports.grpc}",
        f"--grpc-restricted-protocol={restricted}",
        "--allow-metrics=true",
        f"--metrics-address={LOOPBACK}",
        f"--metrics-port={ports.metrics}",
        f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
        # One instance otherwise brings some 35 threads, of which it uses a few.
        "--backend-config=python,thread-pool-size=2",
        *extra_arguments,
    ]
    env = {
        name: value
        for name, value in environ.items()
        if name in INHERITED or name.startswith(INHERITED_PREFIXES)
    }
    libraries = [str(directory) for directory in library_directories]
    if gpu and environ.get("LD_LIBRARY_PATH"):
        libraries.append(environ["LD_LIBRARY_PATH"])  # Where CUDA lies, on many machines.
    env |= {
        "LD_LIBRARY_PATH": ":".join(libraries),
        "PYTHONEXECUTABLE": sys.executable,
        "PYTHONDONTWRITEBYTECODE": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        "MALLOC_MMAP_THRESHOLD_": str(MALLOC_KEEP_BYTES),
        "MALLOC_TRIM_THRESHOLD_": str(MALLOC_KEEP_BYTES),
        INSTANCES_DIR: str(instances),
    }
    if not gpu:
        env["CUDA_VISIBLE_DEVICES"] = ""
    elif "CUDA_VISIBLE_DEVICES" in environ:
        env["CUDA_VISIBLE_DEVICES"] = environ["CUDA_VISIBLE_DEVICES"]
    return ServerCommand(argv=argv, env=env, cwd=work)
