"""Pages of other sites, and names that lead here."""

import pytest

from gateway.api.sites import Sites
from gateway.errors import CrossSite, HostRefused, MediaTypeUnsupported

CHANGES = ("POST", "PUT", "DELETE", "PATCH")
SITES = Sites(["gateway.example.com", "*.models.test"], ["https://app.example.com"], "10.0.0.7")


def headers(host: str = "127.0.0.1:3000", **others: str) -> list[tuple[bytes, bytes]]:
    sent = {"host": host, **{name.replace("_", "-"): value for name, value in others.items()}}
    return [(name.encode(), value.encode()) for name, value in sent.items()]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:3000",
        "127.0.0.1",
        "[::1]:3000",
        "10.0.0.7:80",
        "192.168.1.5:3000",
        "localhost:3000",
        "LocalHost",
        "gateway:3000",
        "a.localhost",
        "gateway.example.com",
        "GATEWAY.example.com:443",
        "gateway.example.com.",
        "one.models.test:3000",
    ],
)
def test_hosts_that_this_gateway_may_be(host: str) -> None:
    """An address, a name without a dot, and what is listed: for reading and for changing."""
    for method in ("GET", *CHANGES):
        SITES.check(method, headers(host))
    assert SITES.plain(headers(host))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:3000",
        "127.0.0.1.evil.example",
        "gateway.example.com.evil.example",
        "models.test",
        "localhost.evil.example",
        "a:b:c",
        "[evil.example]",
        "1.2.3",
    ],
)
def test_names_of_strangers(host: str) -> None:
    """A name that somebody else may own is refused, whatever is asked, and never becomes known."""
    for method in ("GET", *CHANGES):
        with pytest.raises(HostRefused):
            SITES.check(method, headers(host))
        assert not SITES.plain(headers(host))


def test_any_name_can_be_let_in() -> None:
    """`*` is every name."""
    Sites(["*"], []).check("POST", headers("evil.example"))


@pytest.mark.parametrize("method", CHANGES)
@pytest.mark.parametrize(
    "others",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://127.0.0.1:3001"},
        {"origin": "http://localhost:3000"},
        {"origin": "file://127.0.0.1:3000"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"origin": "http://127.0.0.1:3000", "sec_fetch_site": "cross-site"},
    ],
)
def test_pages_of_others_change_nothing(method: str, others: dict[str, str]) -> None:
    """Whatever says that another page asks is refused where something would change."""
    with pytest.raises(CrossSite):
        SITES.check(method, headers(**others))
    SITES.check("GET", headers(**others))
    assert not SITES.plain(headers(**others))


@pytest.mark.parametrize(
    "others",
    [
        {},
        {"origin": "http://127.0.0.1:3000", "sec_fetch_site": "same-origin"},
        {"origin": "https://127.0.0.1:3000"},
        {"sec_fetch_site": "none"},
        {"origin": "https://app.example.com", "sec_fetch_site": "cross-site"},
    ],
)
def test_own_pages_listed_ones_and_scripts_go_on(others: dict[str, str]) -> None:
    """A page of this gateway, of a listed origin, and what is no browser may change things."""
    for method in CHANGES:
        SITES.check(method, headers(**others))


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded;a=b"])
def test_a_browser_says_that_it_sends_json(kind: str) -> None:
    """Of a browser no type that every page may send is taken for JSON; of a script it is."""
    body = {"content_length": "5", **({"content_type": kind} if kind else {})}
    SITES.check("POST", headers(**body))
    with pytest.raises(MediaTypeUnsupported):
        SITES.check("POST", headers(origin="http://127.0.0.1:3000", **body))
    SITES.check(
        "POST",
        headers(
            origin="http://127.0.0.1:3000", content_length="5", content_type="application/json"
        ),
    )
    SITES.check("POST", headers(origin="http://127.0.0.1:3000"))
