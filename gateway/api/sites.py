"""
Which pages a browser may send requests from, and which hosts a request may be meant for. Pure.

A page of any site can have a browser send this gateway a request, and a name of any site can be
made to lead here (DNS rebinding). So a request has to be meant for an address, for a name that no
stranger owns, or for one that is listed. A browser that changes something has to say that a page of
this gateway, or of a listed origin, asked for it. What is no browser sends neither `Origin` nor
`Sec-Fetch-Site`, and is let through as ever.

Source: Fetch Standard ("Origin", "simple" content types); W3C, Fetch Metadata Request Headers.
"""

import fnmatch
import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence

from gateway.errors import CrossSite, HostRefused, MediaTypeUnsupported

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, and values."""

_READS = {"GET", "HEAD", "OPTIONS"}
_SAME_SITE = {b"same-origin", b"none"}
# Any page may send these without asking, and they are no JSON. A form of several parts is read by
# routes that say so.
_SIMPLE_TYPES = (b"text/plain", b"application/x-www-form-urlencoded")
_MOST_KNOWN = 64
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+?)\.?)(?::[0-9]*)?")


class Sites:
    """
    What requests of browsers are checked against.

    Args:
        hosts: Names that this gateway is called by, with * as a wildcard; `*` alone is any name.
        origins: Origins whose pages may use it, `https://app.example.com`.
        listening: The address that it listens on.
    """

    def __init__(self, hosts: Iterable[str], origins: Iterable[str], listening: str = "") -> None:
        self._hosts = [name.lower() for name in hosts]
        self._own = {listening.lower(), socket.gethostname().lower()}
        self._origins = {origin.lower().rstrip("/").encode() for origin in origins}
        self._known: set[bytes] = set()

    def plain(self, headers: Headers) -> bool:
        """Whether a request is of no browser, and meant for this gateway."""
        for name, value in headers:
            if name == b"host":
                if not self._is_meant(value):
                    return False
            elif name == b"origin" or name.startswith(b"sec-fetch-"):
                return False
        return True

    def check(self, method: str, headers: Headers) -> None:
        """
        Check a request.

        Raises:
            HostRefused: It is meant for another host.
            CrossSite: A page of another site would change something by it.
            MediaTypeUnsupported: A browser sends a body of a type that needs nobody's leave.
        """
        hosts = [value for name, value in headers if name == b"host"]
        if not all(map(self._is_meant, hosts)):
            raise HostRefused("This gateway is not that host; see ALLOWED_HOSTS.")
        if method in _READS:
            return
        sent = dict(headers)
        origin, site = sent.get(b"origin"), sent.get(b"sec-fetch-site")
        if origin is None and site is None:
            return
        if origin is None or origin.lower() not in self._origins:
            own = origin is None or (bool(hosts) and _authority(origin) == hosts[0].lower())
            if not own or (site is not None and site not in _SAME_SITE):
                raise CrossSite("A page of another site may not do that; see CORS_ORIGINS.")
        self._check_type(sent)

    def _is_meant(self, host: bytes) -> bool:
        if host in self._known:
            return True
        if not self._is_own(_without_port(host.decode("latin-1").lower())):
            return False
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known.add(host)
        return True

    def _is_own(self, name: str) -> bool:
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in self._hosts):
            return True
        # A name without a dot is of this machine or its network.
        if name in self._own or "." not in name or name.endswith(".localhost"):
            return bool(name) and (":" not in name or _is_address(name))
        return _is_address(name)

    @staticmethod
    def _check_type(sent: dict[bytes, bytes]) -> None:
        has_body = sent.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in sent
        kind = sent.get(b"content-type", b"").lower().partition(b";")[0].strip()
        if has_body and (not kind or kind in _SIMPLE_TYPES):
            raise MediaTypeUnsupported("A browser has to say what it sends: application/json.")


def require_own_page(method: str, headers: Headers) -> None:
    """
    Check of a request that shows a browser's cookie, and was checked already, that it says where it
    comes from: only scripts may leave that out, and scripts have keys.

    Raises:
        CrossSite: It would change something, and does not say.
    """
    if method in _READS:
        return
    if not any(name in {b"origin", b"sec-fetch-site"} for name, _ in headers):
        raise CrossSite("With a cookie, a request has to say which page sent it.")


def _authority(origin: bytes) -> bytes:
    """Return the host and port of an origin; nothing of one that is no web page's."""
    scheme, _, authority = origin.lower().partition(b"://")
    return authority if scheme in {b"http", b"https"} else b""


def _without_port(host: str) -> str:
    """Return the name or the address of a `Host`; "" if it is none."""
    found = _HOST.fullmatch(host)
    return (found[1] or found[2]) if found else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
