"""Ask versions apart from callers: what passes is waited for, a fault of the version counts."""

import asyncio
from types import MappingProxyType, SimpleNamespace
from typing import cast

import pytest

from gateway.errors import (
    DeadlineExceeded,
    GatewayError,
    InferenceFailed,
    LoadFailed,
    ModelNotLoaded,
    ModelOutputInvalid,
    Overloaded,
    TritonUnavailable,
)
from gateway.registry.lifecycle import Lifecycle
from gateway.registry.registry import Registry
from gateway.rollouts.control import asking
from gateway.rollouts.control.asking import loaded_meanwhile, patiently

PASSING = [
    pytest.param(TritonUnavailable("away"), id="away"),
    pytest.param(Overloaded("full"), id="full"),
    pytest.param(DeadlineExceeded("late"), id="late"),
    pytest.param(ModelNotLoaded("m"), id="not loaded"),
    pytest.param(LoadFailed("broken"), id="load failed"),
]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_RETRY_S", 0.0)


@pytest.mark.parametrize("error", PASSING)
async def test_what_passes_is_waited_for(error: GatewayError) -> None:
    """After some failures that are not the version's the answer counts as if nothing had been."""
    left = [error] * 5

    async def ask() -> str:
        if left:
            raise left.pop()
        return "answered"

    assert await patiently(ask) == "answered"


@pytest.mark.parametrize("error", PASSING)
async def test_what_does_not_pass_is_no_verdict_on_the_version(error: GatewayError) -> None:
    """It is raised, so that nothing is stored and it is tried again later."""

    async def ask() -> str:
        raise error

    with pytest.raises(type(error)):
        await patiently(ask)


@pytest.mark.parametrize(
    "error", [InferenceFailed("broken"), ModelOutputInvalid("NaN")], ids=["failed", "no scores"]
)
async def test_what_is_the_versions_fault_is_an_answer(error: GatewayError) -> None:
    """It is asked once, and fails on that image."""
    asked = 0

    async def ask() -> str:
        nonlocal asked
        asked += 1
        raise error

    assert await patiently(ask) is None
    assert asked == 1


@pytest.mark.parametrize(
    ("desired", "aliased", "calls"),
    [
        pytest.param({1, 2}, 1, [], id="loaded already"),
        pytest.param({1}, 1, ["load 2 for t", "unload 2 for t"], id="loaded for it"),
        pytest.param({1}, 2, ["load 2 for t"], id="named by an alias since"),
    ],
)
@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_version_is_loaded_for_as_long_as_it_takes(
    desired: set[int], aliased: int, calls: list[str], *, cancelled: bool
) -> None:
    """It is unloaded afterwards, however the work ended, unless somebody needs it."""
    made: list[str] = []

    class Loads:
        async def load(self, _name: str, version: int, *, actor: str) -> None:
            made.append(f"load {version} for {actor}")

        async def unload(self, _name: str, version: int, *, actor: str) -> None:
            made.append(f"unload {version} for {actor}")

    model = SimpleNamespace(desired=desired, aliases={"champion": aliased})
    models = MappingProxyType({"m": model})
    registry = SimpleNamespace(catalog=SimpleNamespace(models=models, model=models.__getitem__))

    async def work() -> None:
        async with loaded_meanwhile(
            cast("Registry", registry), cast("Lifecycle", Loads()), "m", 2, actor="t"
        ):
            if cancelled:
                raise asyncio.CancelledError

    await asyncio.gather(work(), return_exceptions=True)
    assert made == calls
