"""
A small OpenID Connect issuer for tests: a process of its own, with real keys and real HTTP.

    python -m testbed.oidc_issuer PORT      prints its URL, and serves until it is ended

It signs in whoever comes, as the subject `ada`, and checks what a good issuer checks: the redirect,
that a code is used once, PKCE, the client's secret. Beside that, `POST /test/…` does what an issuer
or an attacker might do: signs any claims with any header, rotates the keys, counts questions.
"""

import base64
import contextlib
import hashlib
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

CLIENT_ID, CLIENT_SECRET = "console", "a secret of the client"
AUDIENCE = "onnx-gateway"


def _b64(number: int) -> str:
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class _State:
    """Keys, codes, and what was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: dict[str, Any] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.asked: dict[str, int] = {}
        self.groups = ["ml-admins"]
        self.add("rsa-1")
        self.keys["ec-1"] = ec.generate_private_key(ec.SECP256R1())

    def add(self, kid: str) -> None:
        self.keys[kid] = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def jwks(self) -> dict[str, Any]:
        listed = []
        for kid, key in self.keys.items():
            public = key.public_key().public_numbers()
            if isinstance(key, rsa.RSAPrivateKey):
                jwk = {"kty": "RSA", "n": _b64(public.n), "e": _b64(public.e)}
            else:
                jwk = {"kty": "EC", "crv": "P-256", "x": _b64(public.x), "y": _b64(public.y)}
            listed.append({"kid": kid, "use": "sig", **jwk})
        return {"keys": listed}

    def sign(self, claims: dict[str, Any], kid: str) -> str:
        algorithm = "RS256" if isinstance(self.keys[kid], rsa.RSAPrivateKey) else "ES256"
        return jwt.encode(claims, self.keys[kid], algorithm, {"kid": kid})

    def id_token(self, nonce: str) -> str:
        now_s = int(time.time())
        claims = {"iss": self.url, "aud": CLIENT_ID, "sub": "ada", "nonce": nonce, "iat": now_s}
        claims |= {"exp": now_s + 300, "email": "ada@example.com", "groups": self.groups}
        return self.sign(claims, next(iter(self.keys)))


class _Handler(BaseHTTPRequestHandler):
    state: _State

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""

    def _answer(self, body: object, status: int = 200, **headers: str) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        state, url = self.state, urlsplit(self.path)
        state.asked[url.path] = state.asked.get(url.path, 0) + 1
        if url.path == "/.well-known/openid-configuration":
            self._answer(
                {
                    "issuer": state.url,
                    "jwks_uri": f"{state.url}/keys",
                    "authorization_endpoint": f"{state.url}/authorize",
                    "token_endpoint": f"{state.url}/token",
                }
            )
        elif url.path == "/keys":
            self._answer(state.jwks())
        elif url.path == "/authorize":
            asked = {name: values[0] for name, values in parse_qs(url.query).items()}
            assert asked["response_type"] == "code"
            assert asked["code_challenge_method"] == "S256"
            assert asked["client_id"] == CLIENT_ID
            code = secrets.token_urlsafe(16)
            state.codes[code] = asked
            back = urlencode({"code": code, "state": asked["state"]})
            self._answer({}, 302, Location=f"{asked['redirect_uri']}?{back}")
        elif url.path == "/test/asked":
            self._answer(state.asked)
        else:
            self._answer({}, 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        match self.path:
            case "/token":
                self._exchange({name: each[0] for name, each in parse_qs(body.decode()).items()})
            case "/test/sign":
                asked = json.loads(body)
                self._answer({"token": self.state.sign(asked["claims"], asked["kid"])})
            case "/test/rotate":
                asked = json.loads(body)
                for kid in asked["drop"]:
                    del self.state.keys[kid]
                for kid in asked["add"]:
                    self.state.add(kid)
                self._answer({})
            case "/test/groups":
                self.state.groups = json.loads(body)
                self._answer({})
            case _:
                self._answer({}, 404)

    def _exchange(self, form: dict[str, str]) -> None:
        asked = self.state.codes.pop(form.get("code", ""), None)
        if asked is None or form.get("client_secret") != CLIENT_SECRET:
            self._answer({"error": "invalid_grant"}, 400)
            return
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (challenge, form["redirect_uri"]) != (asked["code_challenge"], asked["redirect_uri"]):
            self._answer({"error": "invalid_grant"}, 400)
            return
        self._answer({"id_token": self.state.id_token(asked["nonce"]), "token_type": "Bearer"})


class OidcIssuer:
    """A running issuer."""

    def __init__(self, port: int = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "testbed.oidc_issuer", str(port)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self._client = httpx.Client(base_url=self.url, trust_env=False, timeout=30.0)

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Return the claims of a good token, with some changed; None leaves one out."""
        now_s = int(time.time())
        claims = {"iss": self.url, "aud": AUDIENCE, "sub": "ada", "iat": now_s, "exp": now_s + 300}
        claims |= {"groups": ["ml-admins"], **changed}
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, kid: str = "rsa-1", **changed: Any) -> str:
        """Have a token signed."""
        asked = {"claims": self.claims(**changed), "kid": kid}
        token: str = self._client.post("/test/sign", json=asked).json()["token"]
        return token

    def jwks(self) -> dict[str, Any]:
        found: dict[str, Any] = self._client.get("/keys").json()
        return found

    def asked(self, path: str) -> int:
        """Count the questions to a path."""
        return int(self._client.get("/test/asked").json().get(path, 0))

    def rotate(self, *, drop: list[str], add: list[str]) -> None:
        self._client.post("/test/rotate", json={"drop": drop, "add": add}).raise_for_status()

    def groups(self, *groups: str) -> None:
        """Say which groups whoever signs in is in."""
        self._client.post("/test/groups", json=list(groups)).raise_for_status()

    def stop(self) -> None:
        self._client.close()
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def running_issuer(port: int = 0) -> Iterator[OidcIssuer]:
    """Run an issuer for the length of a block."""
    issuer = OidcIssuer(port)
    try:
        yield issuer
    finally:
        if issuer.process.poll() is None:
            issuer.stop()


def main() -> None:
    state = _State()
    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    sys.stdout.write(f"{state.url}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
