"""Settings of OpenID Connect: whose tokens are taken, what they give, and how people sign in."""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode

from gateway.settings.lists import split_list

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]

_LOCAL = {"127.0.0.1", "localhost", "::1"}


class OidcSettings(BaseSettings):
    """A part of `gateway.settings.Settings`."""

    oidc_issuer: str | None = Field(
        None,
        description=(
            "OpenID Connect issuer whose tokens are taken, https://…, as tokens write it under "
            "`iss`. Needs the extra `oidc`."
        ),
    )
    oidc_audience: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Comma-separated audiences; a token must be for one of them (`aud`)."
    )
    oidc_roles: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description=(
            "Comma-separated VALUE=ROLE, or VALUE=ROLE:PATTERN|PATTERN for some models: what a "
            "value of the claim gives; `*` is every token of the issuer."
        ),
    )
    oidc_roles_claim: str = Field(
        "roles",
        min_length=1,
        description="Claim that OIDC_ROLES is about; `realm_access.roles` leads into objects.",
    )
    oidc_name_claim: str = Field(
        "sub", min_length=1, description="Claim that names the subject in the audit log."
    )
    oidc_algorithms: Annotated[tuple[Algorithm, ...], NoDecode] = Field(
        ("RS256", "ES256"), min_length=1, description="Signatures that are taken."
    )
    oidc_clock_skew_s: float = Field(
        30.0, ge=0, le=300, description="How far the issuer's clock may be off, in seconds."
    )
    oidc_jwks_url: str | None = Field(
        None, description="Where the issuer's keys are. Default: where its metadata says."
    )
    oidc_client_id: str | None = Field(
        None,
        description="With it people sign in by a browser at `/login`; the gateway's id there.",
    )
    oidc_client_secret: SecretStr | None = Field(
        None, description="The client's secret, if it has one; PKCE is used in any case."
    )
    oidc_client_secret_file: Path | None = Field(
        None, description="A file that holds OIDC_CLIENT_SECRET."
    )
    oidc_public_url: str | None = Field(
        None,
        description=(
            "How browsers reach this gateway, https://gateway.example.com; the issuer sends them "
            "back to `/login/callback` there."
        ),
    )
    oidc_scopes: str = Field("openid profile email", description="Scopes that a sign-in asks for.")
    oidc_session_s: float = Field(
        8 * 3600.0,
        ge=60,
        le=7 * 86400,
        description="How long a sign-in is good, in seconds; the issuer is not asked meanwhile.",
    )

    @field_validator("oidc_audience", "oidc_roles", "oidc_algorithms", mode="before")
    @classmethod
    def _split_oidc_lists(cls, value: object) -> object:
        return split_list(value)

    @field_validator("oidc_issuer", "oidc_jwks_url", "oidc_public_url")
    @classmethod
    def _not_in_the_clear(cls, value: str | None) -> str | None:
        """Over plain HTTP somebody on the way could give us keys of his own."""
        if value is not None:
            parts = urlsplit(value)
            local = parts.scheme == "http" and parts.hostname in _LOCAL
            if not parts.hostname or not (parts.scheme == "https" or local):
                raise ValueError("https://HOST, or http:// of this machine")
        return value
