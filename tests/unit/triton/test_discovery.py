"""TRITON_URLS: what can be written there."""

import pytest

from gateway.triton.discovery import Discovery, TritonUrl, TritonUrlInvalid, parse_triton_url
from gateway.triton.reconciler import Reconciler
from tests.watching import watching


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://a", TritonUrl("a", 8000, 8001, 8002, by_dns=False)),
        ("http://a:9000", TritonUrl("a", 9000, 9001, 9002, by_dns=False)),
        ("http://[::1]:8000", TritonUrl("::1", 8000, 8001, 8002, by_dns=False)),
        (
            "http://a:1?grpc_port=7&metrics_port=9",
            TritonUrl("a", 1, 7, 9, by_dns=False),
        ),
        ("dns+http://triton.internal:8000", TritonUrl("triton.internal", 8000, 8001, 8002, True)),
    ],
)
def test_a_url_is_read(text: str, expected: TritonUrl) -> None:
    """Ports left out follow Triton's order."""
    assert parse_triton_url(text) == expected


@pytest.mark.parametrize(
    "text", ["", "a:8000", "https://a", "http://", "http://a:b", "http://a?port=1", "grpc://a"]
)
def test_what_is_no_url_is_refused_by_name(text: str) -> None:
    """A mistake names the setting and what was written."""
    with pytest.raises(TritonUrlInvalid, match="TRITON_URLS"):
        parse_triton_url(text)


def test_an_ipv6_address_is_written_in_brackets() -> None:
    """The endpoint of an IPv6 replica can be dialled."""
    endpoint = parse_triton_url("http://[::1]:8000").endpoint("::1", None)
    assert (endpoint.http_url, endpoint.grpc_url) == ("[::1]:8000", "[::1]:8001")


async def test_a_name_that_is_not_found_changes_nothing_about_the_others() -> None:
    """The addresses of one name never stand in for those of another."""
    urls = [
        parse_triton_url(text)
        for text in ("dns+http://localhost:8000", "dns+http://nobody.invalid:9000", "http://a:7000")
    ]
    async with watching(Reconciler(dict, load_timeout_s=1), poll_s=60) as (monitor, replicas):
        discovery = Discovery(urls, monitor, None)
        for _ in range(2):
            await discovery.refresh()
            assert {replica.name.rpartition(":")[2] for replica in replicas} == {"8000", "7000"}
