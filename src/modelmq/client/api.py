"""The Python client: asks a model over RabbitMQ with numpy arrays, and is answered with arrays or one typed error.

For programs and the command line; a thin face over `requester` and the protocol's codec. Knows nothing of HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from math import isfinite
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import numpy as np

from modelmq.amqp import ConnectionOptions, Credentials, connect, options_from_url
from modelmq.broker.secrets import read_secret
from modelmq.client.replies import Rights
from modelmq.client.request import Request
from modelmq.client.requester import Requester
from modelmq.errors import ConfigError, InvalidRequest, TooLarge
from modelmq.events import ignore
from modelmq.messages import BODY_LIMIT_BYTES, REPLY_PATHS, Lane, ReplyMode
from modelmq.protocol import Parameters
from modelmq.protocol.json_codec import decode_response, encode_request
from modelmq.tls import TlsOptions

SERVICE = "client"


class Client:
    """`async with modelmq.Client("amqp://user:password@host/vhost") as client: …`; any number of requests at a time.

    The URL may name several hosts (`@a:5672,b:5672/vhost`). `amqps://` verifies the broker, against `ca_file` or the
    system's authorities, and shows the certificate of `cert_file` and `key_file` to a broker that asks for one; a URL
    without user and password logs in by it. The user needs no more than the right to publish to `ml-model-exchange`;
    with that to `ml-control-exchange` too, what nobody waits for any more is not computed.
    """

    def __init__(  # noqa: PLR0913 - keywords, each with a default
        self,
        url: str,
        *,
        ca_file: str = "",
        cert_file: str = "",
        key_file: str = "",
        password_file: str | PathLike[str] = "",
        timeout_s: float = 60.0,
        connections: int = 1,
        name: str = "modelmq-client",
        reply_mode: ReplyMode = "direct",
    ) -> None:
        """`timeout_s` is each request's unless it has its own; `name` is shown by RabbitMQ. Raises ConfigError.

        `password_file` holds what the URL then leaves out: the password, or user and password on two lines. When it
        changes, a new connection takes over and no request is lost. `reply_mode` is the installation's
        `topology.reply_mode`; with another, nothing is answered.
        """
        if reply_mode not in REPLY_PATHS:
            raise ConfigError(f'reply_mode must be "direct" or "queue", not "{reply_mode}".')
        if connections < 1:
            raise ConfigError(f"connections must be 1 or more, not {connections}.")
        options = options_from_url(url, name=name, tls=TlsOptions(ca_file, cert_file, key_file))
        self._options = _with_file(options, password_file) if password_file else options
        self._timeout_s = timeout_s
        self._connections = connections
        self._rights = Rights(reply_mode)
        self._requester: Requester | None = None

    async def __aenter__(self) -> Client:
        """Connect. Raises AccessRefused, ConnectFailed."""
        # A requester keeps trying, as services must; who opens a client wants to hear at once what is wrong.
        connection = await connect(self._options)
        await connection.close()
        requester = Requester(
            self._options, service=SERVICE, emit=ignore, connections=self._connections, rights=self._rights
        )
        await requester.start()
        self._requester = requester
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect; requests that still wait raise Unavailable."""
        if self._requester is not None:
            await self._requester.stop()

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        version: str | None = None,
        outputs: Iterable[str] = (),
        timeout_s: float | None = None,
        lane: Lane = "interactive",
        parameters: Parameters | None = None,
    ) -> dict[str, np.ndarray[Any, Any]]:
        """The model's outputs by name; `inputs` are arrays, or what numpy makes arrays of.

        `outputs` names those wanted; none asks for all. Raises RequestError: InvalidRequest, NotFound, Overloaded,
        Unavailable, Expired, ModelFailed …, of which `retryable` and `retry_after_s` say whether to ask again.
        """
        body = encode_request(inputs, outputs=outputs, parameters=parameters)
        reply = await self.infer_json(model, body, version=version, timeout_s=timeout_s, lane=lane)
        return decode_response(reply).outputs

    async def infer_json(
        self,
        model: str,
        body: bytes,
        *,
        version: str | None = None,
        timeout_s: float | None = None,
        lane: Lane = "interactive",
    ) -> bytes:
        """The same with bodies as they are sent: JSON of the Open Inference Protocol V2 in both directions."""
        if self._requester is None:
            raise ConfigError("The client is not connected: use it inside `async with`.")
        patience_s = self._timeout_s if timeout_s is None else timeout_s
        if not isfinite(patience_s) or patience_s <= 0:
            raise InvalidRequest(f"timeout_s must be a number of seconds above 0, not {patience_s}.")
        if len(body) > BODY_LIMIT_BYTES:
            raise TooLarge(f"The request has {len(body)} bytes; the limit is {BODY_LIMIT_BYTES}.")
        request = Request(model, body, time.time() + patience_s, version=version, lane=lane)
        return await self._requester.ask(request)


def _with_file(options: ConnectionOptions, password_file: str | PathLike[str]) -> ConnectionOptions:
    """The same with the login of a file. Raises ConfigError."""
    told = options.credentials()
    if told.password:
        raise ConfigError("The URL has a password and there is a password_file: leave one of them out.")

    def credentials() -> Credentials:
        secret = read_secret("", Path(password_file))
        return Credentials(secret.username or told.username, secret.password)

    return msgspec.structs.replace(options, external=False, credentials=credentials)
