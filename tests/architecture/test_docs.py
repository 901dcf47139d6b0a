"""The documents say what is true: settings, links, and every command in them."""

import re
from pathlib import Path

import pytest

from gateway.api.rules import RULES, Named
from gateway.cli.settings_table import settings_table
from gateway.grpc_api.methods import METHODS, UNSUPPORTED

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md")]
)


def test_every_setting_is_documented() -> None:
    """docs/settings.md is what `gateway settings` prints."""
    assert (ROOT / "docs/settings.md").read_text() == settings_table()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Every relative link and picture exists."""
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    missing = [
        target
        for target in targets
        if "://" not in target and not (document.parent / target).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_targets_of_make_exist(document: Path) -> None:
    """Every `make TARGET` that a document names is a target."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    named = set(
        re.findall(r"(?:^|`|\s)make ([a-z-]+)(?:`|\s*$)", document.read_text(), re.MULTILINE)
    )
    assert named <= targets


def test_every_route_stands_in_the_security_document() -> None:
    """docs/security.md lists each route with its role, as the table in the code has them."""
    said = {
        Named.NO: "–",
        Named.PATH: "its own",
        Named.QUERY: "its own",
        Named.EACH: "shows its own",
        Named.ALL: "keys for all models only",
    }
    wanted = [
        f"| `{route}` | {rule.who or 'open'} | {said[rule.model]} |"
        for route, rule in RULES.items()
    ]
    text = (ROOT / "docs/security.md").read_text()
    table = text.partition("<!-- routes -->")[2].partition("<!-- /routes -->")[0]
    assert table.strip().splitlines()[2:] == wanted, "\n".join(wanted)


def methods_table() -> list[str]:
    """Write gRPC's methods and who may call them, as docs/security.md has them."""
    lines = ["| method | role | a key for some models |", "| --- | --- | --- |"]
    for name, method in METHODS.items():
        own = "its own; without a name, keys for all models only"
        models = own if method.every_model else "its own" if method.model else "–"
        if name == "RepositoryIndex":
            models = "shows its own"
        offered = " (not offered)" if method is UNSUPPORTED else ""
        lines.append(f"| `{name}` | {method.who or 'open'}{offered} | {models} |")
    return lines


def test_every_method_stands_in_the_security_document() -> None:
    """docs/security.md lists each call of gRPC with its role, as the table in the code has them."""
    text = (ROOT / "docs/security.md").read_text()
    table = text.partition("<!-- methods -->")[2].partition("<!-- /methods -->")[0]
    assert table.strip().splitlines() == methods_table(), "\n".join(methods_table())
