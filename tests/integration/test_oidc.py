"""Tokens of a real issuer, and people who sign in with a browser, at a real gateway."""

import base64
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import grpc
import httpx
import pytest
from google.protobuf.message_factory import GetMessageClass
from tritonclient.grpc import service_pb2

from testbed.gateway_process import GatewayProcess, running_gateway
from testbed.oidc_issuer import AUDIENCE, CLIENT_ID, CLIENT_SECRET, OidcIssuer, running_issuer
from tests.eventually import eventually
from tests.running_triton import tiny_classifier

ADMIN = "the key of the first admin, of the settings"
INDEX = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name[
    "RepositoryIndex"
]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@dataclass
class Rig:
    gateway: GatewayProcess
    issuer: OidcIssuer
    grpc: str

    def get(self, token: str, path: str = "/api/v1/caller") -> httpx.Response:
        return self.gateway.client.get(path, headers={"Authorization": f"Bearer {token}"})

    def browser(self) -> httpx.Client:
        """A client with cookies of its own, that says as a browser does where it comes from."""
        headers = {"Sec-Fetch-Site": "same-origin"}
        return httpx.Client(base_url=self.gateway.url, headers=headers, trust_env=False)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    port, grpc_port = free_port(), free_port()
    with running_issuer() as issuer:
        environment = {
            "PORT": str(port),
            "GRPC_PORT": str(grpc_port),
            "WORKERS": "2",
            "GATEWAY_ADMIN_KEY": ADMIN,
            "OIDC_ISSUER": issuer.url,
            "OIDC_AUDIENCE": AUDIENCE,
            "OIDC_ROLES": "ml-admins=admin,shop=infer:flowers",
            "OIDC_ROLES_CLAIM": "groups",
            "OIDC_NAME_CLAIM": "email",
            "OIDC_CLIENT_ID": CLIENT_ID,
            "OIDC_CLIENT_SECRET": CLIENT_SECRET,
            "OIDC_PUBLIC_URL": f"http://127.0.0.1:{port}",
        }
        folder = tmp_path_factory.mktemp("oidc")
        with running_gateway(folder, environment=environment) as gateway:
            gateway.client.headers["X-API-Key"] = ADMIN
            for name in ("flowers", "birds"):
                gateway.register(name, tiny_classifier())
            del gateway.client.headers["X-API-Key"]
            yield Rig(gateway, issuer, f"127.0.0.1:{grpc_port}")


def test_a_token_is_its_subject_on_every_face(rig: Rig) -> None:
    """Over REST, V2 and gRPC: the role and the models that its groups give, by name in the log."""
    admin = rig.issuer.token(email="ada@example.com")
    who = rig.get(admin).json()
    assert who == {"name": "subject ada@example.com", "role": "admin", "models": []}
    shop = rig.issuer.token("ec-1", sub="shop", groups=["shop", "others"])
    assert rig.get(shop).json() == {"name": "subject shop", "role": "infer", "models": ["flowers"]}
    assert rig.get(shop, "/api/v1/list").json() == ["flowers"]
    assert rig.get(shop, "/api/v1/keys").status_code == 403
    index = rig.gateway.client.post("/v2/repository/index", headers={"X-API-Key": shop}).json()
    assert {line["name"] for line in index} == {"flowers"}
    with grpc.insecure_channel(rig.grpc) as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/RepositoryIndex",
            request_serializer=GetMessageClass(INDEX.input_type).SerializeToString,
            response_deserializer=GetMessageClass(INDEX.output_type).FromString,
        )
        said = call(
            service_pb2.RepositoryIndexRequest(),
            metadata=[("authorization", f"Bearer {rig.issuer.token(groups=['shop'])}")],
            timeout=30.0,
        )
    assert {line.name for line in said.models} == {"flowers"}
    loaded = rig.gateway.client.post(
        "/api/v1/load?name=birds", headers={"Authorization": f"Bearer {admin}"}
    )
    assert loaded.text == "200"
    entry = rig.get(admin, "/api/v1/audit?limit=1").json()[-1]
    assert (entry["action"], entry["actor"]) == ("load", "subject ada@example.com")


def test_what_is_no_good_token_gets_nobody_in(rig: Rig) -> None:
    """Another audience or issuer, expired, not yet, without a role, changed: refused by reason."""
    now_s = int(time.time())
    good = rig.issuer.token()
    head, body, _ = good.split(".")
    refused = {
        "aud": rig.issuer.token(aud="elsewhere"),
        "iss": rig.issuer.token(iss="https://elsewhere.example"),
        "expired": rig.issuer.token(exp=now_s - 100),
        "not yet": rig.issuer.token(nbf=now_s + 100),
        "unsigned": f"{head}.{body}.",
        "none": f"eyJhbGciOiJub25lIn0.{body}.",
    }
    statuses = {name: rig.get(token).status_code for name, token in refused.items()}
    assert set(statuses.values()) == {401}, statuses
    assert rig.get(rig.issuer.token(groups=["strangers"])).status_code == 403
    assert rig.get(good).status_code == 200
    assert rig.gateway.client.get("/livez", headers={"X-API-Key": "eyJx.y.z"}).status_code == 200
    shown = "".join(rig.gateway.output)
    assert good.split(".")[2] not in shown
    metrics = rig.gateway.client.get("/metrics", headers={"X-API-Key": ADMIN}).text
    assert 'reason="token_wrong"' in metrics
    assert 'reason="token_expired"' in metrics


def test_a_person_signs_in_and_out(rig: Rig) -> None:
    """Code flow with PKCE: a session of an HttpOnly cookie, which no other page can use."""
    rig.issuer.groups("ml-admins")
    with rig.browser() as browser:
        assert browser.get("/api/v1/caller").status_code == 401
        begun = browser.get("/login", params={"to": "/api/v1/list"})
        assert begun.status_code == 302
        asked = parse_qs(urlsplit(begun.headers["location"]).query)
        assert asked["code_challenge_method"] == ["S256"]
        back = httpx.get(begun.headers["location"], trust_env=False).headers["location"]
        done = browser.get(back)
        assert (done.status_code, done.headers["location"]) == (302, "/api/v1/list")
        (cookie,) = [each for each in done.headers.get_list("set-cookie") if "session=ey" in each]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert "Path=/" in cookie
        who = browser.get("/api/v1/caller").json()
        assert who == {"name": "subject ada@example.com", "role": "admin", "models": []}
        # A code is good once, and for the browser that began.
        with rig.browser() as other:
            assert other.get(back).status_code == 401
        assert browser.get(back).status_code in {401, 503}
        changing: list[tuple[dict[str, str], int]] = [
            ({"Sec-Fetch-Site": "same-origin"}, 200),
            ({"Origin": rig.gateway.url}, 200),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Origin": "http://evil.example"}, 403),
            # A script has a key; a browser says where it comes from.
            ({}, 403),
        ]
        with httpx.Client(
            base_url=rig.gateway.url, cookies=browser.cookies, trust_env=False
        ) as client:
            for headers, status in changing:
                answer = client.post("/api/v1/load?name=birds", headers=headers)
                assert answer.status_code == status, (headers, answer.text)
        assert browser.post("/logout").status_code == 204
        assert browser.get("/api/v1/caller").status_code == 401


def test_who_has_no_role_gets_no_session(rig: Rig) -> None:
    """The issuer knows them, the gateway does not; and a stranger's callback leads nowhere."""
    rig.issuer.groups("strangers")
    with rig.browser() as browser:
        location = browser.get("/login").headers["location"]
        back = httpx.get(location, trust_env=False).headers["location"]
        assert browser.get(back).status_code == 403
        assert browser.get("/api/v1/caller").status_code == 401
        for query in ("?code=x&state=y", "?error=access_denied", ""):
            assert browser.get(f"/login/callback{query}").status_code == 401
    for to in ("//evil.example", "https://evil.example", "/\\evil.example", "evil"):
        rig.issuer.groups("shop")
        with rig.browser() as browser:
            location = browser.get("/login", params={"to": to}).headers["location"]
            back = httpx.get(location, trust_env=False).headers["location"]
            assert browser.get(back).headers["location"] == "/docs"
    rig.issuer.groups("ml-admins")


async def test_keys_rotate_and_the_issuer_goes_away(rig: Rig) -> None:
    """A new key is taken without restart; made-up ones do not pester; away, known ones hold."""
    old = rig.issuer.token()
    assert rig.get(old).status_code == 200
    rig.issuer.rotate(drop=[], add=["rsa-2"])
    new = rig.issuer.token("rsa-2")
    # Not before the shortest time between two questions is over.
    await eventually(lambda: rig.get(new).status_code == 200)
    asked, began_s = rig.issuer.asked("/keys"), time.monotonic()
    made_up = rig.issuer.token().split(".")[1:]
    for number in range(300):
        answer = rig.get(".".join([_header(f"made up {number}"), *made_up]))
        assert answer.status_code == 401
    # Two workers, each at most once in five seconds.
    most = 2 * (1 + (time.monotonic() - began_s) / 5)
    assert rig.issuer.asked("/keys") - asked <= most
    fresh = rig.issuer.token(sub="grace")
    unknown = rig.issuer.token("rsa-2").split(".")[1:]
    rig.issuer.stop()
    assert rig.get(fresh).status_code == rig.get(old).status_code == 200
    token = ".".join([_header("of a new key"), *unknown])
    await eventually(lambda: rig.get(token).status_code == 503)
    assert rig.get(token).json()["code"] == "issuer_unavailable"
    assert rig.gateway.client.get("/login", follow_redirects=False).status_code in {302, 503}


def _header(kid: str) -> str:
    written = json.dumps({"alg": "RS256", "kid": kid}).encode()
    return base64.urlsafe_b64encode(written).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"OIDC_ISSUER": "https://issuer.example"}, "OIDC_AUDIENCE"),
        ({"OIDC_ISSUER": "https://issuer.example", "OIDC_AUDIENCE": "a"}, "OIDC_ROLES"),
        ({"OIDC_ISSUER": "http://issuer.example"}, "OIDC_ISSUER"),
        ({"OIDC_ISSUER": "http://localhost@issuer.example"}, "OIDC_ISSUER"),
        ({"OIDC_ISSUER": "https://issuer.example", "OIDC_ALGORITHMS": "HS256"}, "OIDC_ALGORITHMS"),
        ({"OIDC_ISSUER": "https://issuer.example", "OIDC_ALGORITHMS": "none"}, "OIDC_ALGORITHMS"),
        ({"OIDC_CLIENT_ID": "console"}, "OIDC_ISSUER"),
    ],
)
def test_settings_that_would_let_strangers_in_stop_the_start(
    settings: dict[str, Any], named: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Without an audience or roles, in the clear, or by a weak algorithm: one line that says it."""
    folder = tmp_path_factory.mktemp("refused")
    with (
        pytest.raises(AssertionError, match=named),
        running_gateway(folder, environment=settings),
    ):
        pass
