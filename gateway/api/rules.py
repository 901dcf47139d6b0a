"""
Which role each route asks for: one table of all routes of the app.

A new route is given its line in `RULES`, under its methods and its path as the route states it. An
app with a route that has none does not start (`RuleMissing`), and nobody but an admin is let
through to a path that stands in no line. What a line says:

    who       a role; OPEN: everybody, without a key
    model     PATH: the parameter `{name}` is a model; QUERY: those of the query that `parameters`
              names are. To a key of other models it does not exist: `unknown` is
              the error that a name that does not exist gets from this route, too. EACH: the route
              shows several models, and leaves out itself what its caller does not see. ALL: it is
              about all of them, and not for keys of some. NO: it is about none.

What is no route of the app (gRPC) asks `Keyring.caller` with the key of its metadata, then
`Caller.require` and `Caller.sees` with what its own table says.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount, compile_path

from gateway.access.roles import Role
from gateway.errors import ModelNotFound, ModelNotLoaded


class Named(Enum):
    """Where a request says which model it is about."""

    NO = auto()
    PATH = auto()
    QUERY = auto()
    EACH = auto()
    ALL = auto()


@dataclass(frozen=True, slots=True)
class Rule:
    """What a route asks of its caller. `who` is None for everybody."""

    who: Role | None
    model: Named = Named.NO
    unknown: type[ModelNotFound | ModelNotLoaded] = ModelNotFound
    parameters: frozenset[str] = frozenset({"name", "model_name"})


OPEN = Rule(None)
_SEE = Rule(Role.INFER, Named.PATH)
_WORK = Rule(Role.OPERATOR, Named.PATH)
_WORK_BY_QUERY = Rule(Role.OPERATOR, Named.QUERY)
_READ_METRICS = Rule(Role.OPERATOR, Named.QUERY, parameters=frozenset({"model"}))
_WORK_ON_ALL = Rule(Role.OPERATOR, Named.ALL)
_DELETE = Rule(Role.ADMIN, Named.PATH)
_MANAGE = Rule(Role.ADMIN, Named.ALL)
_ONE_MODEL = "/api/v1/models/{name}"
_VERSION = f"{_ONE_MODEL}/versions/{{version}}"
_EVALUATION_SET = f"{_ONE_MODEL}/evaluation-set"

RULES: Mapping[str, Rule] = {
    "GET /livez": OPEN,
    "GET /readyz": OPEN,
    "GET /startupz": OPEN,
    "GET /docs": OPEN,
    "GET /docs/oauth2-redirect": OPEN,
    "GET /redoc": OPEN,
    "GET /openapi.json": OPEN,
    "GET /static-offline-docs/{path:path}": OPEN,
    # Signing in; the browser proves itself by what it kept, and by the issuer's code.
    "GET /login": OPEN,
    "GET /login/callback": OPEN,
    "POST /logout": OPEN,
    "GET /api/v1/caller": Rule(Role.INFER),
    # The original contract.
    "GET /api/v1/list": Rule(Role.INFER, Named.EACH),
    "POST /api/v1/load": _WORK_BY_QUERY,
    "POST /api/v1/run/{name}": Rule(Role.INFER, Named.PATH, ModelNotLoaded),
    "POST /api/v1/unload": Rule(Role.OPERATOR, Named.QUERY, ModelNotLoaded),
    # Models.
    "GET /api/v1/models": Rule(Role.INFER, Named.EACH),
    f"GET {_ONE_MODEL}": _SEE,
    f"DELETE {_ONE_MODEL}": _DELETE,
    f"GET {_ONE_MODEL}/ready": _SEE,
    f"GET {_ONE_MODEL}/versions": _SEE,
    f"GET {_VERSION}": _SEE,
    f"DELETE {_VERSION}": _DELETE,
    f"PUT {_ONE_MODEL}/aliases/{{alias}}": _WORK,
    f"DELETE {_ONE_MODEL}/aliases/{{alias}}": _WORK,
    "POST /api/v1/register": _WORK_BY_QUERY,
    f"POST {_ONE_MODEL}/optimize": _WORK,
    # Metrics.
    "GET /metrics": _WORK_ON_ALL,
    "GET /api/v1/metrics": _READ_METRICS,
    "GET /api/v1/metrics/categories": _READ_METRICS,
    "GET /api/v1/metrics/samples": _READ_METRICS,
    # Rollouts and evaluation.
    "POST /api/v1/feedback": Rule(Role.INFER, Named.EACH),
    "GET /api/v1/rollouts": _WORK_ON_ALL,
    f"GET {_ONE_MODEL}/rollouts": _WORK,
    f"POST {_ONE_MODEL}/rollouts": _WORK,
    f"POST {_ONE_MODEL}/rollout-plan": _WORK,
    **{
        f"{method} {prefix}/rollouts/{{rollout}}{rest}": rule
        for prefix, rule in (("/api/v1", _WORK_ON_ALL), (_ONE_MODEL, _WORK))
        for method, rest in (
            ("GET", ""),
            ("POST", "/promote"),
            ("POST", "/rollback"),
            ("POST", "/pause"),
            ("POST", "/resume"),
            ("POST", "/skip-step"),
            ("GET", "/verdicts"),
            ("GET", "/samples"),
            ("GET", "/samples/{digest}/image"),
        )
    },
    f"GET {_ONE_MODEL}/accuracy": _WORK,
    f"GET {_VERSION}/evaluation": _WORK,
    f"GET {_EVALUATION_SET}": _WORK,
    f"PUT {_EVALUATION_SET}": _WORK,
    f"POST {_ONE_MODEL}/replays": _WORK,
    f"GET {_ONE_MODEL}/replays": _WORK,
    f"GET {_ONE_MODEL}/replays/{{replay}}": _WORK,
    f"GET {_ONE_MODEL}/recordings": _WORK,
    f"DELETE {_ONE_MODEL}/recordings": _DELETE,
    # Access.
    "GET /api/v1/keys": _MANAGE,
    "POST /api/v1/keys": _MANAGE,
    "DELETE /api/v1/keys/{key}": _MANAGE,
    "POST /api/v1/keys/{key}/rotate": _MANAGE,
    "GET /api/v1/audit": _MANAGE,
    # The Open Inference Protocol.
    "GET /v2": OPEN,
    "GET /v2/health/live": OPEN,
    "GET /v2/health/ready": OPEN,
    "GET /v2/models/stats": _WORK_ON_ALL,
    **{
        f"{method} /v2/models/{{name}}{version}{rest}": Rule(Role.INFER, Named.PATH, ModelNotLoaded)
        for version in ("", "/versions/{version}")
        for method, rest in (
            ("GET", ""),
            ("GET", "/ready"),
            ("GET", "/config"),
            ("GET", "/stats"),
            ("POST", "/infer"),
        )
    },
    "POST /v2/repository/index": Rule(Role.INFER, Named.EACH),
    "POST /v2/repository/models/{name}/load": _WORK,
    "POST /v2/repository/models/{name}/unload": Rule(Role.OPERATOR, Named.PATH, ModelNotLoaded),
    **{
        f"{method} /v2/{path}": Rule(Role.INFER)
        for method in ("GET", "POST")
        for path in (
            "{kind}sharedmemory/{rest:path}",
            "trace/setting",
            "logging",
            "models/{name}/trace/setting",
        )
    },
}
"""By method and path."""


def rules_of(*, metrics_public: bool) -> Mapping[str, Rule]:
    """Return the table as the settings would have it."""
    return {**RULES, "GET /metrics": OPEN} if metrics_public else RULES


class StatedRoute(NamedTuple):
    """A route as the app states it."""

    method: str
    path: str
    endpoint: Callable[..., Any] | None


class RuleMissing(Exception):
    """A route has no line in the table, or a line no route."""


def routes_of(app: FastAPI) -> Iterator[StatedRoute]:
    """Yield every route of an app, once for each of its methods."""
    for route in iter_route_contexts(app.routes):
        if isinstance(route.original_route, Mount):
            yield StatedRoute("GET", f"{route.original_route.path}/{{path:path}}", None)
            continue
        for method in sorted((route.methods or {"GET"}) - {"HEAD"}):
            assert route.path is not None
            yield StatedRoute(method, route.path, route.endpoint)


class Found(NamedTuple):
    """The line that a request falls under; `model` is the one that its path names."""

    rule: Rule
    route: StatedRoute
    model: str | None


class Rulebook:
    """
    The table, ready to be asked.

    Raises:
        RuleMissing: The routes are not those of the table.
    """

    def __init__(self, routes: Iterable[StatedRoute], rules: Mapping[str, Rule] = RULES) -> None:
        self._exact: dict[tuple[str, str], Found] = {}
        self._templates: list[tuple[str, re.Pattern[str], Found]] = []
        missing = []
        for route in routes:
            rule = rules.get(f"{route.method} {route.path}")
            if rule is None:
                missing.append(f"{route.method} {route.path}")
            elif "{" in route.path:
                found = Found(rule, route, None)
                self._templates.append((route.method, compile_path(route.path)[0], found))
            else:
                self._exact[route.method, route.path] = Found(rule, route, None)
        if missing:
            raise RuleMissing(f"State in gateway/api/rules.py who may call: {', '.join(missing)}.")

    def find(self, method: str, path: str) -> Found | None:
        """Find the line of a request; None if there is none, or no route."""
        method = "GET" if method == "HEAD" else method
        if (found := self._exact.get((method, path))) is not None:
            return found
        for its_method, pattern, found in self._templates:
            if its_method == method and (match := pattern.match(path)) is not None:
                return found._replace(model=match.groupdict().get("name"))
        return None

    def methods(self, path: str) -> list[str]:
        """Tell the methods that a path has; HEAD is answered wherever GET is."""
        exact = {method for method, its_path in self._exact if its_path == path}
        matching = {method for method, pattern, _ in self._templates if pattern.match(path)}
        found = exact | matching
        return sorted(found | {"HEAD"} if "GET" in found else found)
