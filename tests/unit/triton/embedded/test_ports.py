import socket

from gateway.triton.embedded.ports import LOOPBACK, Ports, free_ports


def test_free_ports_stay() -> None:
    """Ports that are still free are taken again, so that a restart does not move the endpoint."""
    first = free_ports(Ports())
    assert len(set(first.all())) == 3
    assert free_ports(first) == first


def test_taken_ports_are_left() -> None:
    """A port with a listener, or asked for twice, is replaced; the others stay."""
    first = free_ports(Ports())
    with socket.create_server((LOOPBACK, first.grpc)):
        second = free_ports(first)
    assert second.grpc != first.grpc
    assert (second.http, second.metrics) == (first.http, first.metrics)
    doubled = free_ports(Ports(first.http, first.http, first.http))
    assert len(set(doubled.all())) == 3
