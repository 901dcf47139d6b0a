"""Who may import whom, over every package without exception; and how long a module may be."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture import rooms
from tests.architecture.rooms import COMMON, ROOMS, ROOT, Import, imports, modules, within

# What only some rooms may import from outside.
OUTSIDE = {
    "fastapi": {"gateway.app", "gateway.api", "gateway.server", "perf.peers"},
    "sqlalchemy": {"gateway.store"},
    "tritonclient": {
        "gateway.triton",
        "gateway.converter",
        "gateway.grpc_api",
        "testbed",
        "perf",
    },
    "typer": {"gateway.cli", "tools", "perf"},
    "grpc": {"gateway.triton", "gateway.grpc_api", "testbed", "perf"},
}
LONGEST = 300


def test_no_room_imports_what_stands_above_it() -> None:
    """Imports run one way, from the command line down to Triton and the database."""
    assert rooms.wrong_imports(ROOT) == []


def test_every_module_has_a_room() -> None:
    """A new package says what it is for and what it may import before it is used."""
    assert rooms.homeless(ROOT) == []


def test_the_rooms_stand_in_order() -> None:
    """A room imports only rooms listed before it, so that no circle can be allowed."""
    order = list(ROOMS)
    wrong = [
        (name, other)
        for at, (name, room) in enumerate(ROOMS.items())
        for other in room.imports
        if not all(inner in order[:at] for inner in order if within(inner, other))
    ]
    assert wrong == []


def test_no_packages_import_each_other() -> None:
    """There is no circle between packages, inside a room neither."""
    assert rooms.circles(ROOT) == []


def test_what_everybody_may_import_imports_nobody() -> None:
    """The common ground has no door into a room, or every room would have it."""
    wrong = [
        Import(module, name)
        for module, path in modules(ROOT)
        if any(within(module, common) for common in COMMON)
        for name in imports(module, path)
        if name.split(".")[0] == "gateway" and not any(within(name, each) for each in COMMON)
    ]
    assert wrong == []


def _upward_imports() -> Iterator[tuple[str, str]]:
    """Yield for each room the lines that import what stands above it, in every form."""
    for room in (*ROOMS, *sorted(COMMON)):
        upper = "tests.unit" if room in {"perf", "tools", "testbed"} else "gateway.__main__"
        if room == "gateway.__main__":
            upper = "perf.bench"
        yield room, f"from {upper} import name"
        yield room, f"import {upper}.inner"
        yield room, f"def late():\n    from {upper} import name"
        if upper.split(".")[0] == room.split(".")[0]:
            dots = "." * _intruder(room).count(".")
            yield room, f"from {dots} import {upper.rpartition('.')[2]}"


def _intruder(room: str) -> str:
    """Name a module in a room: a new one in a package, or the room itself."""
    return f"{room}.intruder" if (ROOT / room.replace(".", "/")).is_dir() else room


@pytest.mark.parametrize(("room", "line"), list(_upward_imports()))
def test_an_upward_import_is_found(room: str, line: str, tmp_path: Path) -> None:
    """Written into any package, in any form, it is what the test complains about."""
    module = _intruder(room)
    path = tmp_path / f"{module.replace('.', '/')}.py"
    path.parent.mkdir(parents=True)
    path.write_text(f"{line}\n")
    assert [wrong.module for wrong in rooms.wrong_imports(tmp_path)] == [module]


def test_a_module_without_a_room_is_found(tmp_path: Path) -> None:
    """A package that nobody has listed does not slip through."""
    path = tmp_path / "gateway" / "helpers" / "things.py"
    path.parent.mkdir(parents=True)
    path.write_text("import os\n")
    assert rooms.homeless(tmp_path) == ["gateway.helpers.things"]


def test_a_circle_is_found(tmp_path: Path) -> None:
    """Two packages that import each other, one inside the other, are a circle."""
    for package, line in (
        ("gateway/triton", "from gateway.triton.embedded import process"),
        ("gateway/triton/embedded", "from gateway.triton import client"),
    ):
        folder = tmp_path / package
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        (folder / "one.py").write_text(f"{line}\n")
    assert rooms.circles(tmp_path) == [["gateway.triton", "gateway.triton.embedded"]]


def test_the_document_shows_the_rooms() -> None:
    """The table in docs/architecture.md is this one: python -m tests.architecture.rooms --write."""
    text = rooms.DOCUMENT.read_text(encoding="utf-8")
    assert rooms.table() in text
    assert rooms.document_with_table(text) == text


@pytest.mark.parametrize(("module", "path"), list(modules(ROOT)), ids=str)
def test_libraries_stay_in_their_rooms(module: str, path: Path) -> None:
    """FastAPI is HTTP's, SQLAlchemy the store's, Triton's client the triton room's."""
    wrong = [
        name
        for name in imports(module, path)
        if (allowed := OUTSIDE.get(name.split(".")[0])) is not None
        and not any(within(module, room) for room in allowed)
        and name != "sqlalchemy.exc.IntegrityError"  # what a broken constraint means, callers know
    ]
    assert wrong == []


def test_the_pure_core_of_rollouts_does_no_io() -> None:
    """State machine, routing and analysis take time and randomness as arguments."""
    impure = {"asyncio", "time", "random", "socket", "pathlib", "os", "httpx", "sqlalchemy"}
    for room in ("state", "statistics"):
        for path in sorted((ROOT / "gateway/rollouts" / room).glob("*.py")):
            used = {imported.split(".")[0] for imported in imports(path.stem, path)}
            assert not used & impure, (path.name, used & impure)


def test_the_rules_of_tuning_do_no_io() -> None:
    """What is tried, what wins and when to stop is decided on measurements that come in."""
    impure = {"asyncio", "time", "socket", "pathlib", "os", "tempfile"}
    for name in ("candidates", "judgement", "search", "plot"):
        path = ROOT / "gateway/tuning" / f"{name}.py"
        used = {imported.split(".")[0] for imported in imports(path.stem, path)}
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
    """A module has one purpose: 300 lines are the end of it."""
    lengths = {module: len(path.read_text().splitlines()) for module, path in modules(ROOT)}
    assert {module for module, lines in lengths.items() if lines > LONGEST} == set()
