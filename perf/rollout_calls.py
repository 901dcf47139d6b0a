"""What the parts of `rollout_in_production` ask of a gateway."""

from pathlib import Path

from testbed.gateway_process import GatewayProcess
from testbed.rollout_calls import register


def register_versions(gateway: GatewayProcess, name: str, *files: Path) -> None:
    """Register files as the versions of a model, from 1, and load the champion."""
    for place, file in enumerate(files, start=1):
        assert register(gateway, name, file) == place
    load_version(gateway, name)


def load_version(gateway: GatewayProcess, name: str, **version: int) -> None:
    """Load a model's champion, or the version that is named."""
    answer = gateway.client.post("/api/v1/load", params={"name": name, **version})
    assert answer.status_code == 200, answer.text
