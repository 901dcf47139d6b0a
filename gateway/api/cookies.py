"""
The cookies of people who signed in: for this host alone, for no script, and sent along from other
sites' pages only when a person follows a link.

Source: RFC 6265bis, 4.1 (`__Host-`, `SameSite`).
"""

from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie

from starlette.responses import Response

_SESSION, _SIGN_IN = "gateway-session", "gateway-sign-in"
Headers = Iterable[tuple[bytes, bytes]]


def session_cookie(headers: Headers, *, secure: bool) -> str | None:
    """Read the session of a request; None without one."""
    return _read(headers, _name(_SESSION, secure=secure))


def sign_in_cookie(headers: Headers, *, secure: bool) -> str | None:
    """Read what the browser kept while it was at the issuer; None without."""
    return _read(headers, _name(_SIGN_IN, secure=secure))


def keep_session(response: Response, value: str, for_s: float, *, secure: bool) -> None:
    """Have the browser keep a session, and forget the sign-in."""
    _set(response, _name(_SESSION, secure=secure), value, for_s, secure=secure)
    _set(response, _name(_SIGN_IN, secure=secure), "", 0, secure=secure)


def keep_sign_in(response: Response, value: str, for_s: float, *, secure: bool) -> None:
    """Have the browser keep what it has to show when it is back."""
    _set(response, _name(_SIGN_IN, secure=secure), value, for_s, secure=secure)


def forget_session(response: Response, *, secure: bool) -> None:
    """Have the browser forget its session."""
    _set(response, _name(_SESSION, secure=secure), "", 0, secure=secure)


def _name(name: str, *, secure: bool) -> str:
    # A browser takes this prefix only over HTTPS, and from the host itself.
    return f"__Host-{name}" if secure else name


def _set(response: Response, name: str, value: str, for_s: float, *, secure: bool) -> None:
    response.set_cookie(
        name, value, max_age=int(for_s), path="/", secure=secure, httponly=True, samesite="lax"
    )


def _read(headers: Headers, name: str) -> str | None:
    for header, value in headers:
        if header == b"cookie" and name.encode() in value:
            try:
                found = SimpleCookie(value.decode("latin-1")).get(name)
            except CookieError:
                return None
            return found.value if found is not None else None
    return None
