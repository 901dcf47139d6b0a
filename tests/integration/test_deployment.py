"""docker-compose.yml: read by Compose for each profile, and held against what it promises."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

_ROOT = Path(__file__).parents[2]
_ALWAYS = {"gateway", "prometheus", "grafana"}
_PROFILES = {"cpu": {"triton-cpu"}, "gpu": {"triton-gpu"}, "perf": {"locust", "perf-analyzer"}}
_TOOLS = _PROFILES["perf"]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((_ROOT / "docker-compose.yml").read_text())
    return document


@pytest.mark.parametrize("profile", sorted(_PROFILES))
def test_compose_reads_each_profile(profile: str) -> None:
    """`docker-compose config` accepts the file; a profile has the services that it names."""
    if shutil.which("docker-compose") is None:
        pytest.skip("no docker-compose on this machine (Debian: package docker-compose)")
    command = ["docker-compose", "--profile", profile, "config", "--services"]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    every = _ALWAYS | set().union(*_PROFILES.values())
    # Version 1 lists the services of every profile, version 2 those of this one.
    assert set(done.stdout.split()) in (every, _ALWAYS | _PROFILES[profile])


def test_profiles_are_as_documented(compose: dict[str, Any]) -> None:
    """What always runs has no profile; every other service has one."""
    services = compose["services"]
    found = {name: set(service.get("profiles", ())) for name, service in services.items()}
    wanted = {name: {profile} for profile, names in _PROFILES.items() for name in names}
    assert found == wanted | {name: set() for name in _ALWAYS}


def test_every_service_is_confined(compose: dict[str, Any]) -> None:
    """Read-only, no capabilities, not root, bounded in memory, processors and log."""
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["user"].split(":")[0] not in {"0", "root"}, name
        assert service["logging"]["options"]["max-size"], name
        assert {"cpus", "memory"} <= service["deploy"]["resources"]["limits"].keys(), name


def test_what_stays_up_is_watched(compose: dict[str, Any]) -> None:
    """Every service but the tools has a health check and starts again."""
    for name in compose["services"].keys() - _TOOLS:
        service = compose["services"][name]
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"][0] == "CMD", name


def test_triton_and_prometheus_are_on_internal_networks_only(compose: dict[str, Any]) -> None:
    """Nobody outside reaches Triton; what is published, is on loopback."""
    networks = compose["networks"]
    for name, service in compose["services"].items():
        if name.startswith("triton") or name == "prometheus":
            assert "ports" not in service, name
            assert all((networks[one] or {}).get("internal") for one in service["networks"]), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name


def test_the_image_and_the_services_agree_on_the_user(compose: dict[str, Any]) -> None:
    """The gateway writes the repository as the user that Triton reads it as."""
    dockerfile = (_ROOT / "deploy/gateway.Dockerfile").read_text()
    user = compose["services"]["gateway"]["user"]
    assert f"USER {user}\n" in dockerfile
    for name in ("triton-cpu", "triton-gpu"):
        assert compose["services"][name]["user"] == user
        assert "gateway" in compose["services"][name]["depends_on"]


def test_files_that_are_mounted_exist(compose: dict[str, Any]) -> None:
    """Every path of this checkout that a service mounts is there, and mounted read-only."""
    for service in compose["services"].values():
        for volume in service.get("volumes", ()):
            source, _, *mode = volume.split(":")
            if source.startswith("."):
                assert (_ROOT / source).exists(), volume
                assert mode == ["ro"], volume
            else:
                assert source in compose["volumes"], volume
