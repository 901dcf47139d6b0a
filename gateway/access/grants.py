"""Which role, and which models, the claims of a token give: as the settings say."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.access.callers import Caller
from gateway.access.models import check_patterns
from gateway.access.roles import Role

ANY = "*"
_LISTS_IN_TEXT = {"scope", "scp"}
_LONGEST_NAME = 128


@dataclass(frozen=True, slots=True)
class Grant:
    """
    What one value of a claim gives.

    Attributes:
        value: The claim's value; `*` for every token of the issuer.
        role: The role that it gives.
        models: Patterns of the models that it is for; () for all.
    """

    value: str
    role: Role
    models: tuple[str, ...] = ()


def read_grants(lines: Iterable[str]) -> tuple[Grant, ...]:
    """
    Read `VALUE=ROLE`, or `VALUE=ROLE:PATTERN|PATTERN` for some models.

    Raises:
        ValueError: A line says something else.
    """
    grants = []
    for line in lines:
        value, equals, given = line.rpartition("=")
        name, _, patterns = given.partition(":")
        if not equals or not value or name not in set(Role):
            raise ValueError(f"{line!r} does not read VALUE=ROLE or VALUE=ROLE:PATTERN|PATTERN")
        models = check_patterns(patterns.split("|")) if patterns else ()
        grants.append(Grant(value, Role(name), models))
    return tuple(grants)


def values_of(claims: Mapping[str, Any], claim: str) -> frozenset[str]:
    """
    Read the values of a claim: text, or a list of texts.

    Args:
        claims: Of a token that was checked.
        claim: The claim's name, or a path of names with dots (`realm_access.roles`).
    """
    found: Any = claims.get(claim)
    if found is None:
        found = claims
        for name in claim.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
    if isinstance(found, str):
        return frozenset(found.split()) if claim in _LISTS_IN_TEXT else frozenset({found})
    if isinstance(found, Sequence):
        return frozenset(value for value in found if isinstance(value, str))
    return frozenset()


def caller_of(grants: Sequence[Grant], subject: str, name: str, values: frozenset[str]) -> Caller:
    """
    Make the caller of a token.

    The highest role that a value gives is the caller's; its models are those of the grants of that
    role. So nobody has more than one of the grants gives, and a lower one takes nothing away.

    Args:
        grants: Of the settings.
        subject: Who the token is about, as the issuer knows them.
        name: How the audit log calls them.
        values: Of the claim that the grants are about.
    """
    shown = "".join(each for each in name if each.isprintable())[:_LONGEST_NAME]
    identity = f"oidc:{subject}"
    given = [grant for grant in grants if grant.value == ANY or grant.value in values]
    if not given:
        return Caller(identity, f"subject {shown}", None)
    role = next(role for role in reversed(Role) if any(grant.role is role for grant in given))
    of_role = [grant.models for grant in given if grant.role is role]
    models = () if () in of_role else check_patterns(p for models in of_role for p in models)
    return Caller(identity, f"subject {shown}", role, models)
