"""About keys and callers: who may ask, and how often."""

from gateway.errors.base import GatewayError
from gateway.errors.request import RequestError
from gateway.errors.service import Overloaded
from gateway.errors.state import Conflict, NotFound


class KeyInvalid(RequestError):
    """A key that cannot be made like that: a name, a pattern, an expiry that makes no sense."""

    code = "key_invalid"


class KeyNotFound(NotFound):
    """No key has that name or id."""

    code = "key_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no key {name}.")


class KeyExists(Conflict):
    """A key of that name is in force."""

    code = "key_exists"


class LastAdminKey(Conflict):
    """Without this key nobody could manage keys any more."""

    code = "last_admin_key"


class Unauthenticated(GatewayError):
    """The caller showed no key, or one that is wrong, expired or revoked; `refusal` says which."""

    code = "unauthenticated"
    refusal = "no_key"

    def __init__(self, detail: str, refusal: str | None = None) -> None:
        super().__init__(detail)
        self.refusal = refusal or self.refusal


class Forbidden(GatewayError):
    """The caller is known, and may not do that."""

    code = "forbidden"
    refusal = "role"


class CrossSite(Forbidden):
    """A page of another site sent the request."""

    code = "cross_site"
    refusal = "cross_site"


class HostRefused(GatewayError):
    """The request is meant for a host that this gateway is not."""

    code = "host_not_allowed"
    refusal = "host"


class MediaTypeUnsupported(GatewayError):
    """A browser sent a body whose type every page may send."""

    code = "media_type_unsupported"
    refusal = "media_type"


class RateLimited(Overloaded):
    """The key's requests come faster than it allows."""

    code = "rate_limited"
    refusal = "rate"

    def __init__(self, detail: str, retry_after_s: float) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s  # type: ignore[misc]  # known only now
