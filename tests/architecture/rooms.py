"""
Who may import whom: the one list, read by the test that holds it and by the document that shows it.

    python -m tests.architecture.rooms           prints the table
    python -m tests.architecture.rooms --write   puts it into docs/architecture.md
"""

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "architecture.md"
_BEGIN, _END = "<!-- rooms: begin -->", "<!-- rooms: end -->"

TOPS = ("gateway", "tools", "testbed", "perf", "tests")


@dataclass(frozen=True, slots=True)
class Room:
    """
    A package, or a module that is one of its own.

    Attributes:
        purpose: What it is for.
        imports: Other rooms that it may import; a room covers all that is in it.
    """

    purpose: str
    imports: frozenset[str] = frozenset()


def _room(purpose: str, imports: str = "") -> Room:
    return Room(purpose, frozenset(_full(name) for name in imports.split()))


def _full(name: str) -> str:
    return name if name.split(".", maxsplit=1)[0] in TOPS else f"gateway.{name}"


COMMON = frozenset(
    {
        "gateway.background",
        "gateway.errors",
        "gateway.peers",
        "gateway.settings",
    }
)
"""Everybody may import these. They import each other, and nothing else of ours."""

# From the ground up: a room imports only rooms above its line.
ROOMS: Mapping[str, Room] = {
    "gateway.converter": _room("ONNX files in, a model repository out"),
    "gateway.demo": _room("the demo's model, and what is asked of it", "converter"),
    "gateway.system": _room(
        "what the operating system gives: child processes, descriptors, memory, disks", "converter"
    ),
    "gateway.listener": _room("the socket that the gateway listens on"),
    "gateway.tls": _room("certificates, read again when their files change"),
    "gateway.store": _room("the database"),
    "gateway.telemetry": _room("logs, metrics, traces"),
    "gateway.triton": _room("one Triton, several, and the embedded one", "system"),
    "gateway.preprocessing": _room(
        "how an image becomes an input, by a version's record", "converter"
    ),
    "gateway.registry": _room(
        "what is registered; load and unload",
        "converter preprocessing store system triton",
    ),
    "gateway.rollouts.stored": _room("dataclasses as JSON documents, and back"),
    "gateway.rollouts.statistics": _room(
        "evidence, measures and verdicts; pure", "rollouts.stored"
    ),
    "gateway.rollouts.state": _room(
        "a rollout's plan, phases and routing; pure", "registry rollouts.statistics rollouts.stored"
    ),
    "gateway.rollouts.live": _room(
        "copies and counts of requests under a rollout; recorded requests",
        "rollouts.state rollouts.statistics store",
    ),
    "gateway.rollouts.control": _room(
        "what moves a rollout on, and people's commands",
        "registry rollouts.live rollouts.state rollouts.statistics store system",
    ),
    "gateway.metrics": _room(
        "requests counted, stored by the minute, asked for", "registry store telemetry triton"
    ),
    "gateway.inference": _room(
        "the story of a request",
        "converter preprocessing registry rollouts.live rollouts.state telemetry triton",
    ),
    "gateway.tuning": _room(
        "a model's configuration, searched by measuring; its rules are pure",
        "converter inference preprocessing registry store triton",
    ),
    "gateway.optimize": _room(
        "a faster challenger made of a version: quantized, measured, decided",
        "converter inference preprocessing registry rollouts.control system",
    ),
    "gateway.access": _room("keys and roles: who may ask for what", "registry store"),
    "gateway.control_plane": _room(
        "wires what loads models, in a single process and in the parent",
        "demo registry telemetry triton",
    ),
    "gateway.core": _room(
        "wires what every process opens",
        "access control_plane metrics registry store triton",
    ),
    "gateway.health": _room(
        "whether runs are answered, and what is away", "inference registry triton"
    ),
    "gateway.services": _room(
        "wires what answers requests; what the faces call",
        "access control_plane core health inference metrics optimize registry rollouts store"
        " triton",
    ),
    "gateway.api": _room(
        "HTTP only; the one table from errors to statuses",
        "access converter health inference metrics optimize registry rollouts services store"
        " system telemetry tls",
    ),
    "gateway.grpc_api": _room(
        "gRPC only; the table from errors to its statuses",
        "access inference registry services store telemetry tls",
    ),
    "gateway.app": _room("makes the app", "api control_plane services telemetry"),
    "gateway.server": _room(
        "uvicorn, on our socket and our signals; gRPC beside it",
        "api grpc_api services system tls",
    ),
    "gateway.workers.wire": _room("what the parent and a worker say, and how", "store triton"),
    "gateway.workers.parent": _room(
        "starts the workers, hands them connections, loads for them",
        "control_plane core metrics registry store system triton workers.wire",
    ),
    "gateway.workers.child": _room(
        "a worker: a gateway that asks its parent to load",
        "app control_plane registry server store telemetry triton workers.wire",
    ),
    "gateway.cli": _room(
        "the command line",
        "access app control_plane converter demo grpc_api listener"
        " server store system telemetry tls triton tuning workers",
    ),
    "gateway.__main__": _room("`python -m gateway`", "cli"),
    "tools": _room("the converter's command; training of the demo", "converter demo"),
    "testbed": _room(
        "what tests and measurements share: a gateway's process, a Triton, model families",
        "access converter demo preprocessing triton",
    ),
    "perf": _room(
        "measurements",
        "testbed access converter demo inference metrics rollouts store system telemetry triton",
    ),
}


@dataclass(frozen=True, slots=True)
class Import:
    """A module imports something of ours: a module, or a name in one."""

    module: str
    name: str


def modules(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield every module below a root that has a room, by its name; tests have none."""
    for top in TOPS:
        if top == "tests":
            continue
        for path in sorted((root / top).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            # What runs inside Triton's process imports by other paths.
            if "backends" not in parts:
                yield ".".join(parts).removesuffix(".__init__"), path


def imports(module: str, path: Path) -> Iterator[str]:
    """Yield what a module imports, wherever in it that stands, as dotted names."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, *([node.module] if node.module else [])])
            source = base if node.level else node.module or ""
            yield from (f"{source}.{alias.name}" for alias in node.names)


def within(name: str, room: str) -> bool:
    """Whether a dotted name is a room or in it."""
    return name == room or name.startswith(f"{room}.")


def room_of(name: str) -> str | None:
    """Return the room that a module is in; None if it is in none."""
    found = [room for room in (*ROOMS, *COMMON) if within(name, room)]
    return max(found, key=len, default=None)


def wrong_imports(root: Path) -> list[Import]:
    """List the imports below a root that no line of `ROOMS` allows."""
    return [
        Import(module, name)
        for module, path in modules(root)
        for name in imports(module, path)
        if name.split(".")[0] in TOPS and not _may(module, name)
    ]


def homeless(root: Path) -> list[str]:
    """List the modules below a root that are in no room and hold code."""
    return [
        module
        for module, path in modules(root)
        # The gateway itself says its version, and nothing else.
        if room_of(module) is None and _has_code(path) and module != "gateway"
    ]


def _has_code(path: Path) -> bool:
    """Whether there is more in a file than a docstring."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(not isinstance(node, ast.Expr) for node in body)


def _may(module: str, name: str) -> bool:
    room = room_of(module)
    if name.rpartition(".")[0] == "gateway" and room_of(name) is None:
        return True  # `from gateway import __version__`
    if any(within(name, common) or name == "gateway" for common in COMMON):
        return True
    if room is None or room not in ROOMS:
        return False
    allowed = ROOMS[room].imports | {room}
    return any(within(name, other) for other in allowed)


def circles(root: Path) -> list[list[str]]:
    """List the groups of packages below a root that import each other, however deep they lie."""
    found = dict(modules(root))
    arrows: dict[str, set[str]] = {}
    for module, path in found.items():
        home = _package(module, found)
        for name in imports(module, path):
            other = _package(name, found) if name.split(".")[0] in TOPS else home
            if other != home:
                arrows.setdefault(home, set()).add(other)
    return _strongly_connected(arrows)


def _package(name: str, found: Mapping[str, Path]) -> str:
    """Return the package that holds a module or a name; a module of the top is its own."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        candidate = ".".join(parts[:length])
        path = found.get(candidate)
        if path is not None and (path.name == "__init__.py" or length == 2):
            return candidate
    return parts[0]


def _strongly_connected(arrows: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Find the circles of a graph: nodes that can reach each other."""
    reach: dict[str, set[str]] = {}
    for start in arrows:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for other in arrows.get(waiting.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)
        reach[start] = seen
    groups = {tuple(sorted(b for b in seen if a in reach.get(b, ()))) for a, seen in reach.items()}
    return sorted(list(group) for group in groups if group)


def table() -> str:
    """Return the rooms as a Markdown table, from the ground up."""
    lines = ["| room | purpose | may import |", "| --- | --- | --- |"]
    for name, room in ROOMS.items():
        shown = ", ".join(f"`{_short(other)}`" for other in ROOMS if other in _listed(room))
        lines.append(f"| `{_short(name)}` | {room.purpose} | {shown or '–'} |")
    common = ", ".join(f"`{_short(name)}`" for name in sorted(COMMON))
    return "\n".join([*lines, "", f"Everybody may import {common}."])


def _listed(room: Room) -> set[str]:
    """Return the rooms that a room may import; a package that holds several stands for them."""
    return {name for name in ROOMS if any(within(name, other) for other in room.imports)}


def _short(name: str) -> str:
    return name.removeprefix("gateway.").replace(".", "/")


def document_with_table(text: str) -> str:
    """Return a document with the table between its marks."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{table()}\n{_END}{after}"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        written = document_with_table(DOCUMENT.read_text(encoding="utf-8"))
        DOCUMENT.write_text(written, encoding="utf-8")
    else:
        sys.stdout.write(f"{table()}\n")
