"""Who may call what: every route of the app, really called, by every kind of caller."""

import base64
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from gateway.access.roles import Role
from gateway.api.rules import RULES, Named, Rule, Rulebook, RuleMissing, StatedRoute, routes_of
from gateway.app import create_app
from gateway.settings import Settings
from testbed.gateway_process import GatewayProcess, running_gateway
from tests.running_triton import tiny_classifier

ADMIN = "the key of the first admin, of the settings"
MINE, OTHER, GHOST = "mine", "other", "ghost"
ROUTES = sorted(
    {(route.method, route.path) for route in routes_of(create_app(Settings(_env_file=None)))}
)
ROUTES_OF_A_MODEL = [
    (method, path)
    for method, path in ROUTES
    if RULES[f"{method} {path}"].model in {Named.PATH, Named.QUERY}
]
ROLE_OF = {"infer": Role.INFER, "operator": Role.OPERATOR, "admin": Role.ADMIN}
REFUSED = {"unauthenticated", "forbidden"}


@dataclass
class Gate:
    """A gateway that asks for keys, and keys of every kind."""

    gateway: GatewayProcess
    keys: dict[str, str]

    def call(self, method: str, path: str, key: str | None, **options: Any) -> httpx.Response:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return self.gateway.client.request(method, path, headers=headers, **options)

    def load(self) -> None:
        """Load what an admin has unloaded while every route was called."""
        assert self.call("POST", "/api/v1/load", ADMIN, params={"name": MINE}).text == "200"

    def make(self, name: str, role: str, **terms: Any) -> str:
        body = {"name": name, "role": role, **terms}
        answer = self.call("POST", "/api/v1/keys", ADMIN, json=body)
        assert answer.status_code == 200, answer.text
        key: str = answer.json()["key"]
        return key


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    environment = {"GATEWAY_ADMIN_KEY": ADMIN, "WORKERS": "2"}
    with running_gateway(tmp_path_factory.mktemp("gate"), environment=environment) as gateway:
        made = Gate(gateway, {})
        gateway.client.headers["X-API-Key"] = ADMIN
        for name in (MINE, OTHER):
            gateway.register(name, tiny_classifier(), load="true")
        del gateway.client.headers["X-API-Key"]
        made.keys = {
            "infer": made.make("reader", "infer", models=[MINE]),
            "infer for another": made.make("stranger", "infer", models=[OTHER]),
            "operator": made.make("operator", "operator"),
            "admin": made.make("admin", "admin"),
            "revoked": made.make("gone", "admin"),
            "expired": made.make("short", "admin", expires="1s"),
        }
        assert made.call("DELETE", "/api/v1/keys/gone", ADMIN).status_code == 200
        made.keys["wrong"] = made.keys["admin"][:-4] + "----"
        time.sleep(1.1)  # the second of the key that expires
        yield made


def image() -> str:
    written = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 10, 10)).save(written, "PNG")
    return base64.b64encode(written.getvalue()).decode()


def request_of(path: str, model: str, rule: Rule) -> tuple[str, dict[str, str]]:
    """Fill in a route's path, and the query that names its model."""
    filled = path.replace("{name}", model)
    for name, value in (("version", "7"), ("key", "nobody"), ("path:path", "x.css")):
        filled = filled.replace(f"{{{name}}}", value)
    filled = re.sub(r"\{[^}]*\}", "none", filled)
    query = {}
    if rule.model is Named.QUERY:
        query = {"model" if "model" in rule.parameters else "name": model}
    return filled, query


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=map(" ".join, ROUTES))
def test_every_route_lets_in_whom_it_should(gate: Gate, method: str, path: str) -> None:
    """No key, an expired, a revoked, a wrong one: 401; too low a role: 403; all others get in."""
    rule = RULES[f"{method} {path}"]
    url, query = request_of(path, MINE, rule)
    kinds = [None, "expired", "revoked", "wrong", "infer", "operator", "admin"]
    for kind in kinds:
        answer = gate.call(method, url, gate.keys[kind] if kind else None, params=query)
        body = answer.json() if answer.headers.get("content-type") == "application/json" else {}
        code = body.get("code", "") if isinstance(body, dict) else ""
        role = ROLE_OF.get(kind or "")
        if rule.who is None or (role is not None and role.includes(rule.who)):
            limited = kind == "infer" and rule.model is Named.ALL
            assert limited == (code in REFUSED), (kind, answer.text)
        elif role is None:
            assert (answer.status_code, code) == (401, "unauthenticated"), (kind, answer.text)
            assert answer.headers["www-authenticate"] == "Bearer"
        else:
            assert (answer.status_code, code) == (403, "forbidden"), (kind, answer.text)


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
        assert any("open_to_everybody" in line for line in gateway.output)


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
