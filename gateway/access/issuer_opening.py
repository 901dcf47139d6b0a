"""Opens the tokens and the sign-in of the settings. Imported only where there is an issuer."""

from gateway.access.grants import read_grants
from gateway.access.issuer import Client, Issuer
from gateway.access.keys import Pepper
from gateway.access.seals import Seals
from gateway.access.sign_in import SignIn
from gateway.access.signing import TokenRules
from gateway.access.tokens import Tokens
from gateway.settings import Settings

CALLBACK = "/login/callback"


def open_tokens(settings: Settings) -> Tokens:
    """
    Make what checks tokens; nobody is asked yet.

    Raises:
        ValueError: The settings contradict each other; the text names them.
    """
    if not settings.oidc_issuer:
        raise ValueError("OIDC_ISSUER: missing.")
    if not (settings.oidc_audience or settings.oidc_client_id):
        raise ValueError("OIDC_AUDIENCE: say whom tokens are for; any service's would be taken.")
    if not settings.oidc_roles:
        raise ValueError("OIDC_ROLES: say which role which value of the claim gives.")
    try:
        grants = read_grants(settings.oidc_roles)
    except ValueError as error:
        raise ValueError(f"OIDC_ROLES: {error}.") from error
    rules = TokenRules(
        issuer=settings.oidc_issuer,
        audiences=settings.oidc_audience,
        algorithms=frozenset(settings.oidc_algorithms),
        skew_s=settings.oidc_clock_skew_s,
    )
    return Tokens(
        Issuer(settings.oidc_issuer, settings.oidc_jwks_url),
        rules,
        grants,
        roles_claim=settings.oidc_roles_claim,
        name_claim=settings.oidc_name_claim,
    )


def open_sign_in(
    settings: Settings, tokens: Tokens, pepper: Pepper, secret: str | None
) -> SignIn | None:
    """
    Make what signs people in; None if the gateway is no client of the issuer.

    Args:
        settings: Of this process.
        tokens: Of the issuer.
        pepper: The cookies' seals are made of it, so that every process reads them.
        secret: The client's, if it has one.

    Raises:
        ValueError: A setting is missing.
    """
    if settings.oidc_client_id is None:
        return None
    if settings.oidc_public_url is None:
        raise ValueError("OIDC_PUBLIC_URL: say how browsers reach this gateway.")
    redirect = settings.oidc_public_url.rstrip("/") + CALLBACK
    return SignIn(
        tokens,
        Client(settings.oidc_client_id, secret, redirect),
        Seals(pepper.derived(b"cookies")),
        scopes=settings.oidc_scopes,
        session_s=settings.oidc_session_s,
    )
