"""The AMQP 0-9-1 client: a core that turns bytes into events and commands into bytes, and a thin asyncio shell.

The core (`wire`, `frames`, `tables`, `properties`, `confirms`, `acks`, `handshake`, `renewal`) does no I/O and reads no
clock; the shell (`connection`, `channel`, `connecting`, `link`) owns the socket. Frames that every message needs are
coded by hand, all others by pamqp. Nothing here knows of models.
"""

from __future__ import annotations

from modelmq.amqp.acks import AckTracker
from modelmq.amqp.channel import Channel
from modelmq.amqp.confirms import Settled
from modelmq.amqp.connecting import connect
from modelmq.amqp.connection import Connection
from modelmq.amqp.link import Link
from modelmq.amqp.options import ConnectionOptions, Credentials, Endpoint, options_from_url
from modelmq.amqp.properties import Properties
from modelmq.amqp.wire import Delivery
from modelmq.tls import TlsOptions

__all__ = [
    "AckTracker",
    "Channel",
    "Connection",
    "ConnectionOptions",
    "Credentials",
    "Delivery",
    "Endpoint",
    "Link",
    "Properties",
    "Settled",
    "TlsOptions",
    "connect",
    "options_from_url",
]
