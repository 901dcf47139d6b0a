"""Who may call what: every route of the app, really called, by every kind of caller."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.api.rules import (
    RULES,
    Named,
    Rule,
    Rulebook,
    RuleMissing,
    StatedRoute,
    routes_of,
    rules_of,
)
from gateway.app import create_app
from gateway.settings import Settings
from testbed.gateway_process import GatewayProcess, running_gateway
from tests.contract.gate import ADMIN, GHOST, KINDS, MINE, OTHER, ROLE_OF, Gate, image

ROUTES = sorted(
    {(route.method, route.path) for route in routes_of(create_app(Settings(_env_file=None)))}
)
ROUTES_OF_A_MODEL = [
    (method, path)
    for method, path in ROUTES
    if RULES[f"{method} {path}"].model in {Named.PATH, Named.QUERY}
]
REFUSED = {"unauthenticated", "forbidden"}
INFERENCE = {
    "inputs": [{"name": "x", "datatype": "UINT8", "shape": [1, 8, 8, 3], "data": [7] * 8 * 8 * 3}]
}


def request_of(path: str, model: str, rule: Rule) -> tuple[str, dict[str, str]]:
    """Fill in a route's path, and the query that names its model."""
    filled = path.replace("{name}", model)
    # Of a model that is there, the protocol's routes are asked about a version that is there.
    version = "1" if path.startswith("/v2/") else "7"
    for name, value in (("version", version), ("key", "nobody"), ("path:path", "x.css")):
        filled = filled.replace(f"{{{name}}}", value)
    filled = re.sub(r"\{[^}]*\}", "none", filled)
    query = {}
    if rule.model is Named.QUERY:
        query = {"model" if "model" in rule.parameters else "name": model}
    return filled, query


def code_of(answer: httpx.Response) -> str:
    """Read an error's code; "" of what is no error of ours."""
    if answer.headers.get("content-type") != "application/json":
        return ""
    body = answer.json()
    return str(body.get("code", "")) if isinstance(body, dict) else ""


def expected_refusal(rule: Rule, kind: str | None) -> set[tuple[int, str]] | None:
    """Tell which refusals a kind of caller may get from a route about MINE; None: it is let in."""
    if rule.who is None:
        return None
    role = ROLE_OF.get(kind or "")
    if role is None:
        return {(401, "unauthenticated")}
    limited = kind in {"infer", "infer for another"}
    if not role.includes(rule.who) or (limited and rule.model is Named.ALL):
        return {(403, "forbidden")}
    if kind == "infer for another" and rule.model in {Named.PATH, Named.QUERY}:
        return {(404, "model_not_found"), (409, "model_not_loaded")}
    return None


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=map(" ".join, ROUTES))
def test_every_route_lets_in_whom_it_should(gate: Gate, method: str, path: str) -> None:
    """No key, an expired, revoked or wrong one: 401; too low a role: 403; of others: not there."""
    rule = RULES[f"{method} {path}"]
    url, query = request_of(path, MINE, rule)
    of_a_model = path.startswith("/v2/models/{name}") and "trace" not in path
    if of_a_model:
        gate.load()
    for kind in KINDS:
        body = {"json": INFERENCE} if path.endswith("/infer") else {}
        answer = gate.call(method, url, gate.keys[kind] if kind else None, params=query, **body)
        refusal = expected_refusal(rule, kind)
        if refusal is None:
            assert code_of(answer) not in REFUSED, (kind, answer.text)
            assert answer.status_code == 200 or not of_a_model, (kind, answer.text)
        else:
            assert (answer.status_code, code_of(answer)) in refusal, (kind, answer.text)
            assert ("www-authenticate" in answer.headers) == (answer.status_code == 401)
            assert "error" in answer.json() or not path.startswith("/v2")


@pytest.mark.parametrize(
    ("method", "path"), ROUTES_OF_A_MODEL, ids=map(" ".join, ROUTES_OF_A_MODEL)
)
def test_a_model_of_others_is_as_one_that_is_not_there(gate: Gate, method: str, path: str) -> None:
    """To a key of other models, a model answers on every route to the letter as no model does."""
    rule = RULES[f"{method} {path}"]
    assert rule.who is not None
    role = rule.who.value
    key = gate.make(f"limited-{os.urandom(4).hex()}", role, models=[OTHER])
    told = []
    for model in (MINE, GHOST):
        url, query = request_of(path, model, rule)
        body = {"image": image()} if path.endswith("/run/{name}") else None
        answer = gate.call(method, url, key, params=query, json=body)
        told.append((answer.status_code, answer.json()["detail"].replace(model, "MODEL")))
    assert told[0] == told[1]
    assert told[0][0] in {404, 409}


def test_runs_off_the_connection_ask_for_the_key_too(gate: Gate) -> None:
    """A plain run is answered to the keys that may, and refused to all others as by the app."""
    gate.load()
    statuses = {}
    for kind in (None, *gate.keys):
        key = gate.keys[kind] if kind else None
        answer = gate.call("POST", f"/api/v1/run/{MINE}", key, json={"image": image()})
        statuses[kind] = answer.status_code
    assert statuses == {
        None: 401,
        "infer": 200,
        "infer for another": 409,
        "operator": 200,
        "admin": 200,
        "revoked": 401,
        "expired": 401,
        "wrong": 401,
    }


def test_a_key_is_shown_what_it_may_ask(gate: Gate) -> None:
    """`list` and `models` leave out what does not exist for the key."""
    for kind, seen in (("infer", [MINE]), ("infer for another", [OTHER]), ("admin", [MINE, OTHER])):
        assert gate.call("GET", "/api/v1/list", gate.keys[kind]).json() == seen
        models = gate.call("GET", "/api/v1/models", gate.keys[kind]).json()
        assert [model["name"] for model in models] == seen


def test_feedback_is_for_models_that_the_key_sees(gate: Gate) -> None:
    """An answer of another model is not found, and stays there for those who see it."""
    gate.load()
    name = os.urandom(8).hex()
    ran = gate.gateway.client.post(
        f"/api/v1/run/{MINE}",
        json={"image": image()},
        headers={"X-API-Key": gate.keys["infer"], "X-Request-ID": name},
    )
    feedback = {"request_id": name, "category": ran.json()["category"]}
    for kind, status in (("infer for another", 404), ("infer", 200)):
        for _ in range(2 if status == 404 else 1):
            answer = gate.call("POST", "/api/v1/feedback", gate.keys[kind], json=feedback)
            assert answer.status_code == status, answer.text


def test_a_change_of_keys_holds_in_every_worker_at_once(gate: Gate) -> None:
    """What was made, rotated or revoked holds for the next call, whichever worker takes it."""

    def of_all(key: str) -> set[int]:
        # Connections that are open at once go to different workers.
        with contextlib.ExitStack() as stack:
            clients = [
                stack.enter_context(httpx.Client(base_url=gate.gateway.url, trust_env=False))
                for _ in range(8)
            ]
            answers = [each.get("/api/v1/list", headers={"X-API-Key": key}) for each in clients]
        return {answer.status_code for answer in answers}

    first = gate.make("rotated", "infer")
    assert of_all(first) == {200}
    rotated = gate.call("POST", "/api/v1/keys/rotated/rotate", ADMIN, json={"grace_s": 60})
    second = rotated.json()["key"]
    assert of_all(first) == of_all(second) == {200}
    third = gate.call("POST", "/api/v1/keys/rotated/rotate", ADMIN, json={"grace_s": 0})
    assert of_all(second) == {401}
    assert of_all(third.json()["key"]) == {200}
    gate.call("DELETE", "/api/v1/keys/rotated", ADMIN)
    assert of_all(third.json()["key"]) == {401}


def test_keys_are_listed_without_what_opens(gate: Gate) -> None:
    """A list holds names, roles and states; no secret is in it, in the log or in the database."""
    listed = gate.call("GET", "/api/v1/keys", ADMIN)
    states = {key["name"]: key["state"] for key in listed.json()}
    assert states["gone"] == "revoked"
    assert states["short"] == "expired"
    assert states["reader"] == "in force"
    written = listed.text + "".join(gate.gateway.output)
    database = gate.gateway.folder / "var/gateway.db"
    stored = b"".join(path.read_bytes() for path in database.parent.glob("gateway.db*"))
    for key in gate.keys.values():
        secret = key[17:]
        assert secret not in written
        assert secret.encode() not in stored
    assert ADMIN not in written
    assert ADMIN.encode() not in stored


def test_made_up_keys_add_no_series(gate: Gate) -> None:
    """Whatever wrong keys are shown, the metrics have no line more than after the first."""

    def series() -> set[str]:
        text = gate.call("GET", "/metrics", ADMIN).text
        lines = (line.split(" ")[0] for line in text.splitlines() if not line.startswith("#"))
        return {line for line in lines if "gateway_request" in line}

    for path in ("/api/v1/list", f"/api/v1/run/{MINE}", "/nowhere"):
        gate.call("POST", path, "wrong")
    gate.call("GET", "/metrics", ADMIN)
    before = series()
    for number in range(300):
        key = f"ogw_{number:012x}_{'A' * 43}" if number % 2 else f"wrong {number}"
        path = ("/api/v1/list", f"/api/v1/run/{MINE}", "/nowhere")[number % 3]
        assert gate.call("POST", path, key).status_code in {401, 405}
    assert series() == before


def test_every_refused_attempt_is_counted_by_its_reason(gate: Gate) -> None:
    """Whoever may not is counted under why: over REST, V2 and on the short way of plain runs."""

    def counted() -> dict[str, float]:
        text = gate.call("GET", "/metrics", ADMIN).text
        found = re.findall(r'gateway_refused_requests_total\{.*reason="(\w+)"\} (\S+)', text)
        sums: dict[str, float] = {}
        for reason, number in found:
            sums[reason] = sums.get(reason, 0.0) + float(number)
        return sums

    shown = {"no_key": None, "key_wrong": "wrong", "key_revoked": "revoked"}
    shown |= {"key_expired": "expired", "models": "infer for another"}
    for path in (f"/api/v1/run/{MINE}", f"/v2/models/{MINE}/infer"):
        for reason, kind in shown.items():
            before = counted()
            key = None if kind is None else gate.keys[kind]
            gate.call("POST", path, key, json={"image": image()})
            after = counted()
            changed = {name for name in after if after[name] != before.get(name)}
            assert changed == {reason}, (path, reason)
    before = counted()
    gate.call("GET", "/api/v1/audit", gate.keys["operator"])
    client, admin = gate.gateway.client, {"X-API-Key": ADMIN}
    client.get("/api/v1/list", headers={**admin, "Host": "evil.example"})
    client.post("/api/v1/load?name=x", headers={**admin, "Origin": "http://evil.example"})
    after = counted()
    for reason in ("role", "host", "cross_site"):
        assert after[reason] == before.get(reason, 0.0) + 1


def test_metrics_are_open_where_the_settings_say_so() -> None:
    """METRICS_PUBLIC takes the key off /metrics, and off nothing else."""
    opened = rules_of(metrics_public=True)
    assert {route for route in RULES if opened[route] != RULES[route]} == {"GET /metrics"}
    assert opened["GET /metrics"].who is None
    assert rules_of(metrics_public=False) is RULES


def test_the_last_way_to_manage_keys_cannot_be_closed(tmp_path: Path) -> None:
    """The first key is an admin's, it closes the gateway, and the last of them stays."""
    with running_gateway(tmp_path) as gateway:
        call = gateway.client.request
        body = {"name": "first", "role": "infer"}
        assert call("POST", "/api/v1/keys", json=body).json()["code"] == "last_admin_key"
        assert call("GET", "/api/v1/list").status_code == 200
        first = call("POST", "/api/v1/keys", json={**body, "role": "admin"}).json()["key"]
        assert call("GET", "/api/v1/list").status_code == 401
        gateway.client.headers["X-API-Key"] = first
        assert call("POST", "/api/v1/keys", json=body).json()["code"] == "key_exists"
        assert call("DELETE", "/api/v1/keys/first").json()["code"] == "last_admin_key"
        second = call("POST", "/api/v1/keys", json={"name": "second", "role": "admin"}).json()
        assert call("DELETE", "/api/v1/keys/first").status_code == 200
        assert call("GET", "/api/v1/list").status_code == 401
        _commands(gateway, second["key"])
        _another_gateway(tmp_path, gateway)


def _commands(gateway: GatewayProcess, key: str) -> None:
    """Make, list, rotate and revoke a key as it is typed."""
    made = _typed(gateway, key, "create", "ci", "--role", "infer", "--model", "mi*", "--json")
    assert {"name", "key"} <= made.keys()
    listed = _typed(gateway, key, "list", "--json")
    assert [each["models"] for each in listed if each["name"] == "ci"] == [["mi*"]]
    rotated = _typed(gateway, key, "rotate", "ci", "--grace", "0", "--json")
    assert rotated["key"] != made["key"]
    assert _typed(gateway, key, "revoke", "ci", "--json")["state"] == "revoked"
    gateway.client.headers["X-API-Key"] = key


def _another_gateway(folder: Path, first: GatewayProcess) -> None:
    """Another gateway of the database takes a new key, and refuses a revoked one, in a second."""
    environment = {
        "DATA_DIR": str(folder / "other"),
        "KEYS_SECRET_FILE": str(folder / "var/keys.secret"),
        "DATABASE_URL": f"sqlite:///{folder}/var/gateway.db",
    }
    with running_gateway(folder, environment=environment) as other:
        made = first.client.post("/api/v1/keys", json={"name": "far", "role": "infer"}).json()
        other.client.headers["X-API-Key"] = made["key"]
        for status in (200, 401):
            began_s = time.monotonic()
            while other.client.get("/api/v1/list").status_code != status:
                assert time.monotonic() - began_s < 1.0
            if status == 200:
                first.client.delete("/api/v1/keys/far")


def _typed(gateway: GatewayProcess, key: str, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "keys", *arguments],
        env={**os.environ, "GATEWAY_URL": gateway.url, "GATEWAY_KEY": key},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_route_without_a_role_stops_the_start() -> None:
    """Who adds a route states who may call it, or has no app."""
    with pytest.raises(RuleMissing, match="POST /api/v1/new"):
        Rulebook([StatedRoute("POST", "/api/v1/new", None)])


def test_every_line_of_the_table_is_a_route() -> None:
    """What is stated of a route that is gone is gone, too."""
    assert set(RULES) == {f"{method} {path}" for method, path in ROUTES}


def test_nobody_is_served_on_the_network_without_a_key(tmp_path: Path) -> None:
    """On an address of others the start ends with the two ways out; with either it goes on."""
    with (
        pytest.raises(AssertionError, match=r"GATEWAY_ADMIN_KEY.*--insecure"),
        running_gateway(tmp_path, environment={"HOST": "0.0.0.0"}),
    ):
        pass
    with running_gateway(tmp_path, "--insecure", environment={"HOST": "0.0.0.0"}) as gateway:
        assert gateway.client.get("/api/v1/list").json() == []
        assert gateway.line_with("open_to_everybody")


def test_a_key_over_its_rate_is_told_when_to_come_back(gate: Gate) -> None:
    """On a plain run and on any other call: RateLimit on each answer, then 429 and Retry-After."""
    gate.load()
    for path, body in ((f"/api/v1/run/{MINE}", {"image": image()}), ("/api/v1/list", None)):
        key = gate.make(f"slow-{os.urandom(4).hex()}", "infer", rate_per_s=0.02)
        method = "GET" if body is None else "POST"
        answers = [gate.call(method, path, key, json=body) for _ in range(3)]
        # One connection, one worker: each has its part of the rate, and of a bucket one at least.
        assert [answer.status_code for answer in answers] == [200, 429, 429]
        assert answers[0].headers["ratelimit-policy"] == '"requests";q=1;w=100'
        assert answers[0].headers["ratelimit"].startswith('"requests";r=0;t=')
        assert answers[1].json()["code"] == "rate_limited"
        assert 90 <= int(answers[1].headers["retry-after"]) <= 100


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Host": "evil.example"}, 421, "host_not_allowed"),
        ({"Origin": "http://evil.example"}, 403, "cross_site"),
        ({"Sec-Fetch-Site": "cross-site"}, 403, "cross_site"),
        ({"Sec-Fetch-Site": "same-origin", "Content-Type": "text/plain"}, 415, None),
    ],
)
def test_what_a_hostile_page_can_send_changes_nothing(
    gate: Gate, headers: dict[str, str], status: int, code: str | None
) -> None:
    """Run, load, unload, delete and register from another site: refused, also with a good key."""
    gate.load()
    before = gate.call("GET", "/api/v1/models", ADMIN).json()
    content = json.dumps({"image": image()}).encode()
    for method, path in (
        ("POST", f"/api/v1/run/{MINE}"),
        ("POST", f"/api/v1/unload?name={MINE}"),
        ("POST", f"/api/v1/load?name={OTHER}"),
        ("DELETE", f"/api/v1/models/{OTHER}"),
        ("POST", "/api/v1/register?name=new"),
        ("POST", "/api/v1/keys"),
    ):
        sent = {"X-API-Key": ADMIN, "Content-Type": "application/json", **headers}
        answer = gate.gateway.client.request(method, path, content=content, headers=sent)
        assert answer.status_code == status, (path, answer.text)
        assert answer.json()["code"] == code or code is None
        assert "access-control-allow-origin" not in answer.headers
    assert gate.call("GET", "/api/v1/models", ADMIN).json() == before


def test_pages_carry_security_headers(gate: Gate) -> None:
    """A page may be framed by nobody and load from nowhere else; no answer's type is guessed."""
    page = gate.call("GET", "/docs", None)
    assert page.headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    answer = gate.call("GET", "/api/v1/list", ADMIN)
    assert answer.headers["x-content-type-options"] == page.headers["x-content-type-options"]
    assert "content-security-policy" not in answer.headers


def test_the_audit_log_says_who_did_what_from_where(gate: Gate) -> None:
    """A change carries the key's name, the address and the request; the log is JSON lines, too."""
    gate.load()
    name = os.urandom(8).hex()
    headers = {"X-API-Key": gate.keys["operator"], "X-Request-ID": name}
    gate.gateway.client.post(f"/api/v1/unload?name={MINE}", headers=headers)
    entries = gate.call("GET", "/api/v1/audit", ADMIN, params={"limit": 5}).json()
    last = entries[-1]
    assert (last["action"], last["actor"], last["model"]) == ("unload", "key operator", MINE)
    assert (last["source"], last["request_id"], last["outcome"]) == ("127.0.0.1", name, "done")
    made = gate.call("GET", "/api/v1/audit", ADMIN, params={"action": "key_create"}).json()
    assert {entry["actor"] for entry in made} == {"GATEWAY_ADMIN_KEY"}
    assert not any(key[17:] in json.dumps(made) for key in gate.keys.values())
    lines = gate.call("GET", "/api/v1/audit", ADMIN, params={"limit": 5, "format": "jsonl"}).text
    assert [json.loads(line) for line in lines.splitlines()] == entries
    typed = subprocess.run(
        [sys.executable, "-m", "gateway", "audit", "--limit", "5", "--json"],
        env={**os.environ, "GATEWAY_URL": gate.gateway.url, "GATEWAY_KEY": ADMIN},
        capture_output=True,
        text=True,
        check=True,
    )
    assert typed.stdout.splitlines() == lines.splitlines()
