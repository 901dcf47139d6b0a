"""The OpenAPI document: what clients are made of."""

import re
from typing import Any

import pytest

from gateway.app import create_app
from gateway.settings import Settings


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = create_app(Settings()).openapi()
    return found


def test_operations_have_names_that_people_would_give(document: dict[str, Any]) -> None:
    """Words with underscores, each once, and nothing of the path."""
    names = [
        operation["operationId"]
        for operations in document["paths"].values()
        for operation in operations.values()
    ]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+){0,5}", name) for name in names), names
    assert not any("api_v1" in name for name in names)


def test_every_answer_says_what_it_carries(document: dict[str, Any]) -> None:
    """Each has the request's id; a refusal says when to come again, what is allowed, or where."""
    shared = document["components"]["responses"]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            answers = operation["responses"]
            assert {"307", "400", "405"} <= answers.keys(), path
            assert ("413" in answers) or "requestBody" not in operation, path
            for status, answer in answers.items():
                said = shared[answer["$ref"].rpartition("/")[2]] if "$ref" in answer else answer
                assert "X-Request-ID" in said["headers"], (path, status)
                if status.startswith(("4", "5")):
                    assert said["content"], (path, status)
    wanted = {"307": "Location", "405": "Allow", "429": "Retry-After", "503": "Retry-After"}
    for status, header in wanted.items():
        assert header in shared[f"Answer{status}"]["headers"]


def test_every_path_names_its_parameters(document: dict[str, Any]) -> None:
    """What stands in braces in a path is described: generators leave out what is not."""
    for path, operations in document["paths"].items():
        for operation in operations.values():
            named = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path)), path
