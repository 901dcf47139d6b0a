from pathlib import Path
from typing import Any

from gateway.triton.embedded.command import ServerCommand, server_command
from gateway.triton.embedded.ports import Ports


def command(**changes: Any) -> ServerCommand:
    arguments: dict[str, Any] = {
        "server": Path("/wheel/tritonserver"),
        "repository": Path("/models"),
        "backend_directory": Path("/var/backends/k"),
        "library_directories": [Path("/var/libraries"), Path("/wheel/libs")],
        "instances": Path("/var/instances"),
        "work": Path("/var/work"),
        "ports": Ports(1001, 1002, 1003),
        "admin_key": "s3cret",
        "shm_prefix": "gwtriton_abc_",
        "exit_timeout_s": 7,
        "gpu": False,
        "extra_arguments": (),
        "environ": {},
    }
    return server_command(**{**arguments, **changes})


def test_only_loopback() -> None:
    """Each of the three services is bound to loopback, on the port given."""
    argv = command().argv
    for service, port in (("http", 1001), ("grpc", 1002), ("metrics", 1003)):
        assert f"--{service}-address=127.0.0.1" in argv
        assert f"--{service}-port={port}" in argv


def test_all_calls_but_health_are_restricted() -> None:
    """What asks, changes the server, or maps memory wants the secret, under a lower-case name."""
    apis = (
        "inference,metadata,model-config,statistics,shared-memory,model-repository,trace,logging"
        ":admin-key=s3cret"
    )
    assert f"--http-restricted-api={apis}" in command().argv
    assert f"--grpc-restricted-protocol={apis}" in command().argv


def test_environment_is_built_from_nothing() -> None:
    """The server sees no secret of the gateway's, only what it needs."""
    environ = {
        "PATH": "/bin",
        "HOME": "/home/g",
        "DATABASE_URL": "postgresql://u:password@db/x",
        "API_KEYS": "k",
        "LD_PRELOAD": "/evil.so",
        "PYTHONPATH": "/evil",
        "AWS_ACCESS_KEY_ID": "a",
    }
    env = command(environ=environ).env
    assert {"DATABASE_URL", "API_KEYS", "LD_PRELOAD", "PYTHONPATH"}.isdisjoint(env)
    assert env["PATH"] == "/bin"
    assert env["AWS_ACCESS_KEY_ID"] == "a"
    assert env["ORT_DISABLE_TELEMETRY"] == "1"
    assert env["LD_LIBRARY_PATH"] == "/var/libraries:/wheel/libs"
    assert env["MALLOC_TRIM_THRESHOLD_"] == env["MALLOC_MMAP_THRESHOLD_"] == "67108864"


def test_the_libraries_of_a_gpu_are_found_where_the_gateway_finds_them() -> None:
    """The gateway's own LD_LIBRARY_PATH comes after ours with a GPU, and is not seen without."""
    environ = {"LD_LIBRARY_PATH": "/usr/local/cuda/lib64"}
    without = command(environ=environ).env["LD_LIBRARY_PATH"]
    assert "cuda" not in without
    found = command(environ=environ, gpu=True).env["LD_LIBRARY_PATH"]
    assert found == f"{without}:/usr/local/cuda/lib64"


def test_gpus_are_hidden_without_a_provider() -> None:
    """Where onnxruntime has no CUDA, KIND_AUTO must not choose a GPU."""
    environ = {"CUDA_VISIBLE_DEVICES": "1"}
    assert command(environ=environ).env["CUDA_VISIBLE_DEVICES"] == ""
    assert command(environ=environ, gpu=True).env["CUDA_VISIBLE_DEVICES"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in command(gpu=True).env


def test_no_model_loads_by_itself() -> None:
    """Model control is explicit, configurations are taken as written, our arguments come last."""
    argv = command(extra_arguments=("--log-verbose=1",)).argv
    assert "--model-control-mode=explicit" in argv
    assert "--disable-auto-complete-config" in argv
    assert argv[-1] == "--log-verbose=1"
