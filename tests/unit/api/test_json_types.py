"""What bodies of requests may hold, type by type."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from gateway.api.rest.keys import NewKeyRequest, RotateRequest
from gateway.api.rest.models import AliasRequest
from gateway.api.rest.replays import ReplayRequest
from gateway.api.rest.rollout_schemas import (
    LabelsRequest,
    MetricRequest,
    RolloutRequest,
    StageRequest,
)
from gateway.app import create_app
from gateway.settings import Settings

BODIES = (
    AliasRequest,
    LabelsRequest,
    MetricRequest,
    NewKeyRequest,
    ReplayRequest,
    RolloutRequest,
    RotateRequest,
    StageRequest,
)
_WRONG: dict[str, tuple[object, ...]] = {
    "number": (True, False, "1", ""),
    "integer": (True, False, "1", "", 1.5),
    "boolean": (1, 0, "true", "yes"),
    "array": ("", "ab", {}),
    "string": (True, 1, ["a"]),
    "object": ([], ""),
}


def _fields() -> Iterator[tuple[type[BaseModel], str, object]]:
    for body in BODIES:
        for name, said in body.model_json_schema()["properties"].items():
            kinds = {each["type"] for each in said.get("anyOf", [said]) if "type" in each}
            if len(kinds - {"null"}) == 1:
                for wrong in _WRONG[(kinds - {"null"}).pop()]:
                    yield body, name, wrong


@pytest.mark.parametrize(("body", "name", "wrong"), list(_fields()))
def test_a_value_of_another_type_is_refused(
    body: type[BaseModel], name: str, wrong: object
) -> None:
    """What is no number, truth, text or list in JSON is not read as one."""
    with pytest.raises(ValidationError) as refused:
        body.model_validate({name: wrong})
    assert name in {error["loc"][0] for error in refused.value.errors()}


@pytest.mark.parametrize(("body", "given"), [
    (RotateRequest, {"grace_s": 60}),
    (RotateRequest, {"grace_s": 0.5}),
    (AliasRequest, {"version": 2}),
    (NewKeyRequest, {"name": "ci", "role": "infer", "models": ["a-*"]}),
])  # fmt: skip
def test_what_is_of_its_type_is_taken(body: type[BaseModel], given: dict[str, object]) -> None:
    """Whole numbers are numbers too."""
    assert body.model_validate(given)


@pytest.mark.parametrize("pattern", ["", "a b", "a/b", "é", "a\n"])
def test_a_key_is_for_names_that_could_be(pattern: str) -> None:
    """A pattern that no model's name could match is refused, the empty one too."""
    with pytest.raises(ValidationError):
        NewKeyRequest.model_validate({"name": "ci", "role": "infer", "models": [pattern]})


def test_these_are_all_bodies_with_numbers() -> None:
    """A body that takes a number, a truth or a list is in the list above."""
    document: dict[str, Any] = create_app(Settings()).openapi()
    schemas = document["components"]["schemas"]
    typed = {
        name
        for name, schema in schemas.items()
        if name.endswith("Request")
        and any(
            each.get("type") in {"number", "integer", "boolean", "array"}
            for said in schema.get("properties", {}).values()
            for each in said.get("anyOf", [said])
        )
    }
    assert typed == {body.__name__ for body in BODIES}
