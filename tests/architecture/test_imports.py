"""Who may import whom. The rooms of the house, and the doors between them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A room may import itself, what is listed, and those that know nothing of the others.
EVERYBODY = {
    "gateway.access_errors",
    "gateway.backoff",
    "gateway.background",
    "gateway.errors",
    "gateway.settings",
    "gateway.child_process",
    "gateway.full_disk",
    "gateway.peers",
    "gateway.processes",
}
DOORS: dict[str, set[str]] = {
    "gateway.api": {
        "gateway.converter",
        "gateway.inference",
        "gateway.metrics",
        "gateway.registry",
        "gateway.rollouts",
        "gateway.preprocessing",
        "gateway.access",
        "gateway.store",
        "gateway.telemetry",
        "gateway.services",
    },
    "gateway.inference": {
        "gateway.registry",
        "gateway.rollouts",
        "gateway.preprocessing",
        "gateway.triton",
        "gateway.telemetry",
        "gateway.converter",
    },
    "gateway.registry": {
        "gateway.preprocessing",
        "gateway.triton",
        "gateway.store",
        "gateway.converter",
    },
    "gateway.metrics": {
        "gateway.registry",
        "gateway.store",
        "gateway.telemetry",
        "gateway.triton",
    },
    "gateway.preprocessing": {"gateway.converter"},
    "gateway.rollouts": {"gateway.registry", "gateway.store"},
    "gateway.tuning": {
        "gateway.inference",
        "gateway.preprocessing",
        "gateway.registry",
        "gateway.store",
        "gateway.triton",
        "gateway.converter",
    },
    "gateway.access": set(),
    "gateway.triton": set(),
    "gateway.store": set(),
    "gateway.telemetry": set(),
    "gateway.converter": set(),
}
# What only some rooms may import from outside.
OUTSIDE = {
    "fastapi": {"gateway.app", "gateway.api", "gateway.server"},
    "sqlalchemy": {"gateway.store"},
    "tritonclient": {"gateway.triton", "gateway.converter"},
    "typer": {"gateway.cli", "gateway.converter"},
}


def _modules() -> Iterator[tuple[str, Path]]:
    for package in ("gateway", "gateway.converter"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            # What runs inside Triton's process, and what only trains the demo, is no room of ours.
            if "backends" not in parts and "demo" not in parts:
                yield ".".join(parts).removesuffix(".__init__"), path


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _within(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


@pytest.mark.parametrize(("module", "path"), list(_modules()), ids=str)
def test_a_room_uses_only_its_doors(module: str, path: Path) -> None:
    """Imports run one way: api, then inference and registry, then triton and store."""
    room = next((room for room in DOORS if _within(module, room)), None)
    if room is None:
        return  # the wiring and the command line see everything
    allowed = DOORS[room] | EVERYBODY | {room}
    wrong = [
        name
        for name in _imports(path)
        if name.split(".")[0] in {"gateway", "gateway.converter"}
        and not any(_within(name, door) for door in allowed)
    ]
    assert wrong == []


@pytest.mark.parametrize(("module", "path"), list(_modules()), ids=str)
def test_libraries_stay_in_their_rooms(module: str, path: Path) -> None:
    """FastAPI is HTTP's, SQLAlchemy the store's, Triton's client the triton room's."""
    wrong = [
        name
        for name in _imports(path)
        if (rooms := OUTSIDE.get(name.split(".")[0])) is not None
        and not any(_within(module, room) for room in rooms)
        and name != "sqlalchemy.exc.IntegrityError"  # what a broken constraint means, callers know
    ]
    assert wrong == []


def test_the_pure_core_of_rollouts_does_no_io() -> None:
    """State machine, routing and analysis take time and randomness as arguments."""
    impure = {"asyncio", "time", "random", "socket", "pathlib", "os", "httpx", "sqlalchemy"}
    for room in ("state", "statistics"):
        for path in sorted((ROOT / "gateway/rollouts" / room).glob("*.py")):
            used = {imported.split(".")[0] for imported in _imports(path)}
            assert not used & impure, (path.name, used & impure)


def test_the_rules_of_tuning_do_no_io() -> None:
    """What is tried, what wins and when to stop is decided on measurements that come in."""
    impure = {"asyncio", "time", "socket", "pathlib", "os", "tempfile"}
    for name in ("candidates", "judgement", "search", "plot"):
        path = ROOT / "gateway/tuning" / f"{name}.py"
        used = {imported.split(".")[0] for imported in _imports(path)}
        assert not used & impure, (name, used & impure)


def test_every_test_says_its_rule_in_one_line() -> None:
    """Each test function has a docstring of one line: the rule that it holds."""
    silent = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith(
                "test_"
            ):
                text = ast.get_docstring(node) or ""
                if not text or "\n\n" in text:
                    silent.append(f"{path.relative_to(ROOT)}::{node.name}")
    assert silent == []


def test_no_module_is_too_long() -> None:
    """A module has one purpose: 450 lines are the end of it."""
    long = {
        module: n for module, path in _modules() if (n := len(path.read_text().splitlines())) > 450
    }
    assert long == {}
