"""Chooses a private node's ports on the loopback address: those asked for, else those of last time, else free ones.

A free port can be taken by somebody else before the node has bound it; whoever starts the node tries again then.
"""

from __future__ import annotations

import errno
import secrets
import socket

from modelmq.broker.node_config import LOOPBACK, Ports
from modelmq.errors import NodeError

_LOWEST, _HIGHEST = 20_000, 32_000


def choose(last: Ports | None, *, amqp: int = 0, management: int = 0, plain: bool = True, tls: bool = False) -> Ports:
    """`amqp` and `management` are what was asked for, 0 for any; where there are both, the `plain` listeners get them.

    Raises NodeError if one of them is taken.
    """
    chosen: set[int] = set()

    def pick(asked: int, before: int, what: str) -> int:
        if asked:
            _require_free(asked, what)
            port = asked
        elif before and before not in chosen and is_free(before):
            port = before
        else:
            port = _free_port(chosen)
        chosen.add(port)
        return port

    before = last or Ports(amqp=0, management=0, distribution=0, epmd=0)
    return Ports(
        amqp=pick(amqp, before.amqp, "AMQP") if plain else 0,
        management=pick(management, before.management, "the management API") if plain else 0,
        distribution=pick(0, before.distribution, ""),
        epmd=pick(0, before.epmd, ""),
        amqps=pick(0 if plain else amqp, before.amqps, "AMQP") if tls else 0,
        https=pick(0 if plain else management, before.https, "the management API") if tls else 0,
    )


def is_free(port: int) -> bool:
    """Whether a listener could be opened now, on IPv4's loopback address."""
    return _bind_error(port) == 0


def _require_free(port: int, what: str) -> None:
    error = _bind_error(port)
    if error == errno.EADDRINUSE:
        raise NodeError(f"Port {port} on {LOOPBACK}, wanted for {what}, is taken: end what uses it or choose another.")
    if error:
        reason = errno.errorcode.get(error, str(error))
        raise NodeError(f"Port {port} on {LOOPBACK}, wanted for {what}, cannot be opened ({reason}): choose another.")


def _bind_error(port: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Erlang does: closed connections do not count
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            return error.errno or errno.EINVAL
    return 0


def _free_port(taken: set[int]) -> int:
    # Below the range from which Linux serves outgoing connections, so that none of those takes it while we are down.
    for _ in range(200):
        port = _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST)
        if port not in taken and is_free(port):
            return port
    raise NodeError(f"There is no free port between {_LOWEST} and {_HIGHEST} on {LOOPBACK}.")
