"""One worker's life."""

import socket

from gateway.app import create_app
from gateway.server import serve
from gateway.telemetry.logging import configure_logging
from gateway.workers.child.connections import HandedConnections
from gateway.workers.child.control_plane import RemoteControlPlane
from gateway.workers.wire.channel import Channel
from gateway.workers.wire.messages import Hello, WorkerReady


async def serve_as_worker(number: int, channel: socket.socket, handover: socket.socket) -> None:
    """
    Be worker `number`, until the parent ends it or is gone.

    Args:
        number: From 1.
        channel, handover: This worker's ends of the two socket pairs.

    Raises:
        Whatever opening the worker's services raises.
    """
    parent = Channel(channel)
    await parent.start()
    # Answered once the parent is open: the database is migrated by then.
    settings = await parent.ask(Hello())
    configure_logging(settings.log_level, settings.log_format, worker=number)
    connections = HandedConnections(number, parent, handover)
    app = create_app(settings, plane=RemoteControlPlane(parent, connections), worker=number)
    await serve(app, settings, connections, on_started=lambda: parent.tell(WorkerReady()))
