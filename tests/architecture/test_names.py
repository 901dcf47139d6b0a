"""One word, one meaning: names of classes and modules."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.rooms import ROOT, modules, within

# The converter is a library of its own: an error of it has a counterpart of the same name among
# the gateway's, which is the same fault towards a caller (`registry/refusals.py`).
COUNTERPARTS = ("gateway.converter.errors", "gateway.errors")
# As names these say nothing to a stranger.
OPAQUE = {
    "bury",
    "door",
    "errands",
    "hub",
    "lone",
    "one_of_several",
    "siblings",
    "told",
}
# Faces share the nouns of the product (`models.py`); these would say nothing in two places.
ONCE = {"opening.py", "serving.py", "trial.py"}


def _gateway() -> Iterator[tuple[str, Path]]:
    return ((name, path) for name, path in modules(ROOT) if within(name, "gateway"))


def test_a_class_has_a_name_of_its_own() -> None:
    """No two classes of the gateway share a name, so a name in a traceback says which one it is."""
    homes: dict[str, list[str]] = defaultdict(list)
    for module, path in _gateway():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(module)
    twice = {
        name: found
        for name, found in homes.items()
        if len(found) > 1 and not all(_is_an_error(module) for module in found)
    }
    assert twice == {}


def test_names_say_what_they_name() -> None:
    """No function, variable or attribute is called by a word that says nothing to a stranger."""
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for _, path in _gateway()
        for line, name in _names(path)
        if name.strip("_").lower() in OPAQUE
    ]
    assert wrong == []


def test_some_modules_are_there_once() -> None:
    """A module that is named after an act is the only one of that name."""
    found = [path.name for _, path in _gateway() if path.name in ONCE]
    assert len(found) == len(set(found))


def _is_an_error(module: str) -> bool:
    return any(within(module, other) for other in COUNTERPARTS)


def _names(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.lineno, node.name
            case ast.Name(id=name) | ast.arg(arg=name) | ast.Attribute(attr=name):
                yield node.lineno, name
