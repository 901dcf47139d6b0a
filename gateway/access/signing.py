"""
The issuer's public keys, and the check of one token by them. Pure, and slow: run in a thread.

Only what the settings list is an algorithm, and only a key of that algorithm's own kind is used
with it. So no token chooses how it is checked: `none` and the HS family, whose key would be the
public one, cannot be listed at all. What a token says of where its key lies (`jwk`, `jku`, `x5u`)
is not read.

Source: RFC 7515, 7517, 7519; RFC 8725 (best current practices); OpenID Connect Core 1.0, 3.1.3.7.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gateway.errors import Unauthenticated

log = structlog.get_logger(__name__)

_LEAST_RSA_BITS = 2048
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_MOST_KEYS = 64
# What a library raises about text that somebody made up.
_UNREADABLE = (jwt.PyJWTError, ValueError, TypeError, KeyError, OverflowError, RecursionError)


class KeyUnknown(Exception):
    """No key of the issuer has the id that the token names."""


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key, and the algorithms that it may be used with."""

    id: str | None
    key: Any
    algorithms: frozenset[str]


@dataclass(frozen=True, slots=True)
class TokenRules:
    """
    What a token must be.

    Attributes:
        issuer: Its `iss`, to the letter.
        audiences: One of these is among its `aud`.
        algorithms: One of these signed it.
        skew_s: How far two clocks may be apart, in seconds.
    """

    issuer: str
    audiences: tuple[str, ...]
    algorithms: frozenset[str]
    skew_s: float


@dataclass(frozen=True, slots=True)
class Checked:
    """
    A token that is what it says.

    Attributes:
        claims: What it says.
        key: The key that signed it.
        until_s: When it ends, the skew included; UTC, in seconds since 1970.
    """

    claims: Mapping[str, Any]
    key: VerifyingKey
    until_s: float


def read_keys(jwks: object) -> tuple[VerifyingKey, ...]:
    """
    Read the keys of a JWKS document. Keys that cannot check a token are left out.

    Raises:
        ValueError: It is no such document.
    """
    listed = jwks.get("keys") if isinstance(jwks, Mapping) else None
    if not isinstance(listed, list):
        raise ValueError("no list of keys")  # noqa: TRY004 - one kind for all that is no document
    read = [_read_key(each) for each in listed[:_MOST_KEYS] if isinstance(each, Mapping)]
    return tuple(key for key in read if key is not None)


def _read_key(jwk: Mapping[str, Any]) -> VerifyingKey | None:
    if jwk.get("use", "sig") != "sig" or jwk.get("kty") == "oct":
        return None
    try:
        key = jwt.PyJWK(dict(jwk)).key
    except _UNREADABLE as error:
        log.warning("oidc_key_unreadable", kid=str(jwk.get("kid"))[:64], cause=repr(error)[:200])
        return None
    algorithms = _algorithms_of(key)
    stated = jwk.get("alg")
    if isinstance(stated, str):
        algorithms &= {stated}
    kid = jwk.get("kid")
    return VerifyingKey(kid if isinstance(kid, str) else None, key, algorithms)


def _algorithms_of(key: object) -> frozenset[str]:
    match key:
        case RSAPublicKey() if key.key_size >= _LEAST_RSA_BITS:
            return _RSA
        case EllipticCurvePublicKey() if key.curve.name in _CURVES:
            return frozenset({_CURVES[key.curve.name]})
        case Ed25519PublicKey():
            return frozenset({"EdDSA"})
        case _:
            return frozenset()


def check_token(token: str, rules: TokenRules, keys: Sequence[VerifyingKey]) -> Checked:
    """
    Check a token.

    Raises:
        Unauthenticated: It is wrong, or not in force; `refusal` says which.
        KeyUnknown: It names a key that is not among these.
    """
    try:
        header = jwt.get_unverified_header(token)
        algorithm = header.get("alg")
        if algorithm not in rules.algorithms or "crit" in header:
            raise Unauthenticated("The token is not signed as it has to be.", "token_wrong")
        key = _find(keys, header.get("kid"), algorithm)
        claims = jwt.decode(
            token,
            key.key,
            algorithms=[algorithm],
            audience=list(rules.audiences),
            issuer=rules.issuer,
            leeway=rules.skew_s,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
        return Checked(claims, key, float(claims["exp"]) + rules.skew_s)
    except jwt.ExpiredSignatureError as error:
        raise Unauthenticated("The token has expired.", "token_expired") from error
    except _UNREADABLE as error:
        # Which check failed is for the log: it is the cause.
        raise Unauthenticated("The token is wrong.", "token_wrong") from error


def _find(keys: Sequence[VerifyingKey], kid: str | None, algorithm: str) -> VerifyingKey:
    fitting = [key for key in keys if algorithm in key.algorithms]
    if kid is None and len(fitting) == 1:
        return fitting[0]
    found = next((key for key in fitting if key.id is not None and key.id == kid), None)
    if found is None:
        raise KeyUnknown
    return found
