"""The socket that the gateway listens on."""

import socket

from gateway.settings import Settings


class PortTaken(Exception):
    """The gateway's own port is in use."""


def bind(settings: Settings) -> socket.socket:
    """
    Bind the gateway's address.

    Raises:
        PortTaken: Somebody listens there; the text says how to choose another port.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise PortTaken(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. "
            "Choose another port, for example PORT=3001."
        ) from error
    listener.set_inheritable(False)
    return listener
