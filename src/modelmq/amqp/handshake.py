"""Opening a connection: from the protocol header to open-ok, as a pure machine of methods in and methods out.

Login is SASL PLAIN, or EXTERNAL, where the broker takes the user from the client certificate. The limits both sides
live with afterwards are agreed on here.
"""

from __future__ import annotations

import math
import platform
from typing import Any

from pamqp import commands

from modelmq.amqp.frames import Method
from modelmq.amqp.options import ConnectionOptions, Credentials
from modelmq.amqp.wire import SMALLEST_FRAME_MAX
from modelmq.errors import AccessRefused, ConnectFailed, ProtocolViolation

_NO_LIMIT = 0
_MOST_CHANNELS = 65_535
"""What 16 bits can count, where neither side sets a limit."""
_REFUSED = (403, 530)
"""access-refused, not-allowed: wrong user, password or virtual host."""

_NOT_OFFERED = {
    "PLAIN": "PLAIN; allow it in its auth_mechanisms, or log in by client certificate",
    "EXTERNAL": "EXTERNAL; it needs the plugin rabbitmq_auth_mechanism_ssl, EXTERNAL in auth_mechanisms, and "
    "ssl_options.verify = verify_peer, to ask for the client certificate",
}


class Handshake:
    """One opening. Feed it the broker's methods; `done` says that the connection is open."""

    def __init__(self, options: ConnectionOptions, credentials: Credentials) -> None:
        self._options = options
        self._credentials = credentials
        self._expected: type[Method] = commands.Connection.Start
        self.done = False
        self.channel_max = options.channel_max
        self.frame_max = options.frame_max
        self.heartbeat_s = 0.0
        """Agreed interval; 0: none."""

    def receive(self, method: Method) -> list[Method]:
        """What to answer. Raises AccessRefused, ConnectFailed, ProtocolViolation."""
        if isinstance(method, commands.Connection.Close):
            raise self._refused(method)
        if not isinstance(method, self._expected):
            raise ProtocolViolation(f"The broker sent {method.name} where {self._expected.name} is due.")
        if isinstance(method, commands.Connection.Start):
            return self._start(method)
        if isinstance(method, commands.Connection.Tune):
            return self._tune(method)
        self.done = True
        return []

    def _start(self, start: commands.Connection.Start) -> list[Method]:
        external = self._options.external
        mechanism = "EXTERNAL" if external else "PLAIN"
        if mechanism not in str(start.mechanisms).split():
            raise ConnectFailed(f"offers the logins {start.mechanisms}, not {_NOT_OFFERED[mechanism]}")
        self._expected = commands.Connection.Tune
        response = "" if external else f"\0{self._credentials.username}\0{self._credentials.password}"
        return [commands.Connection.StartOk(_client_properties(self._options.name), mechanism, response, "en_US")]

    def _tune(self, tune: commands.Connection.Tune) -> list[Method]:
        options = self._options
        self.channel_max = _lower(tune.channel_max, options.channel_max) or _MOST_CHANNELS
        self.frame_max = _lower(tune.frame_max, options.frame_max)
        if self.frame_max < SMALLEST_FRAME_MAX:
            raise ProtocolViolation(f"The broker takes frames of {self.frame_max} bytes, fewer than AMQP allows.")
        heartbeat_s = _lower(tune.heartbeat, math.ceil(options.heartbeat_s))
        self.heartbeat_s = float(heartbeat_s)
        self._expected = commands.Connection.OpenOk
        return [
            commands.Connection.TuneOk(self.channel_max, self.frame_max, heartbeat_s),
            commands.Connection.Open(options.vhost),
        ]

    def _refused(self, close: commands.Connection.Close) -> ConnectFailed:
        code, text = int(close.reply_code or 0), str(close.reply_text)
        if code in _REFUSED:
            who = f'user "{self._credentials.username}"'
            if self._options.external:
                who = "user that the client certificate names (by default its whole subject; see ssl_cert_login_from)"
            return AccessRefused(
                f'refused the {who} or the virtual host "{self._options.vhost}": {text}', reply_code=code
            )
        return ConnectFailed(f"closed the connection while it was opened: {code} {text}", reply_code=code)


def _lower(offered: int | None, wanted: int) -> int:
    """The stricter of two limits, of which zero is none."""
    return min((limit for limit in (offered or _NO_LIMIT, wanted) if limit != _NO_LIMIT), default=_NO_LIMIT)


def _client_properties(name: str) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "product": "ModelMQ",
        "platform": f"Python {platform.python_version()}",
        "capabilities": {
            "publisher_confirms": True,
            "basic.nack": True,
            "consumer_cancel_notify": True,
            "connection.blocked": True,
            "authentication_failure_close": True,
        },
    }
    return properties | {"connection_name": name} if name else properties
