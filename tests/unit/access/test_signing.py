"""One token, and the keys of an issuer: what is taken, and every forgery that is known."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from gateway.access.signing import KeyUnknown, TokenRules, check_token, read_keys
from gateway.errors import Unauthenticated

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SMALL = rsa.generate_private_key(public_exponent=65537, key_size=1024)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
EVERY = frozenset({"RS256", "PS256", "ES256", "EdDSA"})
RULES = TokenRules("https://issuer.example", ("gateway", "other"), EVERY, 30.0)


def jwk(kid: str, key: Any, **more: Any) -> dict[str, Any]:
    """Write a public key as an issuer does."""
    public, written = key.public_key(), {}
    if isinstance(key, rsa.RSAPrivateKey):
        written = jwt.algorithms.RSAAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        written = jwt.algorithms.ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        written = jwt.algorithms.OKPAlgorithm.to_jwk(public, as_dict=True)
    return {**written, "kid": kid, **more}


KEYS = read_keys({"keys": [jwk("rsa", RSA), jwk("ec", EC), jwk("ed", ED)]})


def claims(**changed: Any) -> dict[str, Any]:
    now_s = int(time.time())
    made = {"iss": RULES.issuer, "aud": "gateway", "sub": "ada", "exp": now_s + 60, **changed}
    return {name: value for name, value in made.items() if value is not None}


def signed(key: Any = RSA, algorithm: str = "RS256", kid: str = "rsa", **changed: Any) -> str:
    return jwt.encode(claims(**changed), key, algorithm, {"kid": kid})


def forged(header: dict[str, Any], secret: bytes | None = None) -> str:
    """Make a token by hand: without a signature, or with an HMAC of some secret."""
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in (header, claims())
    ]
    text = b".".join(parts)
    signature = b"" if secret is None else hmac.digest(secret, text, hashlib.sha256)
    return (text + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def public_pem() -> bytes:
    return RSA.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"),
    [(RSA, "RS256", "rsa"), (RSA, "PS256", "rsa"), (EC, "ES256", "ec"), (ED, "EdDSA", "ed")],
)
def test_a_good_token_is_taken_until_its_end(key: Any, algorithm: str, kid: str) -> None:
    """By every listed algorithm; it is good until its `exp` and the skew."""
    checked = check_token(signed(key, algorithm, kid), RULES, KEYS)
    assert checked.claims["sub"] == "ada"
    assert checked.until_s == checked.claims["exp"] + 30.0
    assert checked.key.id == kid


FORGERIES: dict[str, Callable[[], str]] = {
    "none": lambda: forged({"alg": "none", "kid": "rsa"}),
    "None": lambda: forged({"alg": "None", "kid": "rsa"}),
    "no algorithm": lambda: forged({"kid": "rsa"}),
    "an algorithm that is no text": lambda: forged({"alg": ["RS256"], "kid": "rsa"}),
    "HS256 with the public key": lambda: forged({"alg": "HS256", "kid": "rsa"}, public_pem()),
    "HS256 with the key's JWK": lambda: forged(
        {"alg": "HS256", "kid": "rsa"}, json.dumps(jwk("rsa", RSA)).encode()
    ),
    "RS256 over an HMAC": lambda: forged({"alg": "RS256", "kid": "rsa"}, public_pem()),
    "an algorithm that is not listed": lambda: signed(RSA, "RS512"),
    "a stranger's key of the same name": lambda: signed(STRANGER),
    "its own key": lambda: jwt.encode(
        claims(), STRANGER, "RS256", {"kid": "rsa", "jwk": jwk("rsa", STRANGER)}
    ),
    "a header that must be understood": lambda: jwt.encode(
        claims(), RSA, "RS256", {"kid": "rsa", "crit": ["b64"], "b64": True}
    ),
    "another audience": lambda: signed(aud="elsewhere"),
    "no audience": lambda: signed(aud=None),
    "another issuer": lambda: signed(iss="https://issuer.example.evil"),
    "an issuer with a slash more": lambda: signed(iss="https://issuer.example/"),
    "no end": lambda: signed(exp=None),
    "an end that is no time": lambda: signed(exp="tomorrow"),
    "no subject": lambda: signed(sub=None),
    "not yet": lambda: signed(nbf=int(time.time()) + 90),
    "issued in the future": lambda: signed(iat=int(time.time()) + 90),
    "changed": lambda: signed()[:-10] + "AAAAAAAAAA",
    "not even a header": lambda: "eyJ.e30.",
    "nested beyond reason": lambda: f"{base64.urlsafe_b64encode(b'[' * 9000).decode()}.e30.",
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
def test_a_forgery_is_refused(forgery: Callable[[], str]) -> None:
    """Whatever it tries, and none is told what it tried wrongly."""
    with pytest.raises(Unauthenticated, match=r"token") as refused:
        check_token(forgery(), RULES, KEYS)
    assert refused.value.refusal == "token_wrong"


def test_the_skew_is_allowed_and_no_more() -> None:
    """An end, or a begin, that is off by less than the skew is none; by more it is."""
    now_s = int(time.time())
    check_token(signed(exp=now_s - 20), RULES, KEYS)
    check_token(signed(nbf=now_s + 20), RULES, KEYS)
    with pytest.raises(Unauthenticated) as refused:
        check_token(signed(exp=now_s - 40), RULES, KEYS)
    assert refused.value.refusal == "token_expired"


def test_a_key_that_is_not_known_is_no_wrong_token_yet() -> None:
    """The issuer may have a new one; only a token without a name takes the only key that fits."""
    with pytest.raises(KeyUnknown):
        check_token(signed(kid="new"), RULES, KEYS)
    with pytest.raises(KeyUnknown):
        check_token(signed(EC, "ES256", "rsa"), RULES, KEYS)
    check_token(jwt.encode(claims(), RSA, "RS256"), RULES, KEYS)
    two = read_keys({"keys": [jwk("rsa", RSA), jwk("stranger", STRANGER)]})
    with pytest.raises(KeyUnknown):
        check_token(jwt.encode(claims(), RSA, "RS256"), RULES, two)


def test_keys_that_cannot_check_a_token_are_left_out() -> None:
    """Secrets, keys to encrypt with, small ones and unreadable ones; the others are read."""
    secret = {"kty": "oct", "kid": "oct", "k": "c2VjcmV0"}
    broken = {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"}
    listed = [
        secret,
        broken,
        "no key",
        jwk("enc", RSA, use="enc"),
        jwk("small", SMALL),
        jwk("ps", RSA, alg="PS256"),
    ]
    read = {key.id: key.algorithms for key in read_keys({"keys": listed})}
    assert read == {"small": frozenset(), "ps": frozenset({"PS256"})}
    documents: list[object] = [[], {}, {"keys": {}}, None]
    for document in documents:
        with pytest.raises(ValueError, match="keys"):
            read_keys(document)
