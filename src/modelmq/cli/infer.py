"""`modelmq infer`: one request from a terminal, over HTTP through a gateway or straight over AMQP.

Prints the answer's JSON as it came. Which errors end with which status is in `failures`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import httpx
import msgspec

from modelmq.client.api import Client
from modelmq.demo import sample
from modelmq.errors import (
    ConfigError,
    Expired,
    InvalidRequest,
    ModelFailed,
    NotFound,
    Overloaded,
    RequestError,
    TooLarge,
    Unavailable,
    Unsupported,
)
from modelmq.messages import JSON, ReplyMode
from modelmq.protocol import error_message
from modelmq.settings import Settings
from modelmq.supervisor.addresses import http_url
from modelmq.tls import TlsOptions

_BY_STATUS: dict[int, type[RequestError]] = {
    400: InvalidRequest,
    404: NotFound,
    413: TooLarge,
    415: Unsupported,
    429: Overloaded,
    503: Unavailable,
    504: Expired,
}
_URL_VARIABLE = "MODELMQ_HTTP_URL"
_CA_VARIABLE = "MODELMQ_AMQP_CA_FILE"


class Question(msgspec.Struct, frozen=True):
    """What was asked on the command line."""

    model: str
    data: str | None
    url: str | None
    timeout_s: float


def run(settings: Settings, question: Question, environ: Mapping[str, str]) -> None:
    """Prints the answer. Raises ConfigError, RequestError, BrokerError."""
    body = body_of(question, Path(settings.models_dir))
    url = question.url or environ.get(_URL_VARIABLE) or http_url(settings)
    scheme = url.partition("://")[0]
    if scheme in ("amqp", "amqps"):
        broker = settings.broker
        tls = TlsOptions(broker.ca_file or environ.get(_CA_VARIABLE, ""), broker.cert_file, broker.key_file)
        answer = asyncio.run(over_amqp(url, question, body, tls, settings.topology.reply_mode))
    elif scheme in ("http", "https"):
        answer = over_http(url, question, body)
    else:
        raise ConfigError(f'--url takes http://…, https://…, amqp://… or amqps://…, not "{scheme}".')
    print(_readable(answer))  # noqa: T201 - this is the command's output


def body_of(question: Question, models_dir: Path) -> bytes:
    """The request: given itself, in a file, on standard input, or the model's own sample. Raises ConfigError."""
    data = question.data
    if data is None:
        found = sample(models_dir, _model(question.model)[0])
        if found is None:
            raise ConfigError(
                f"Give the request with --data: there is no sample question for {question.model} in {models_dir}."
            )
        return found.body
    if data == "-":
        return sys.stdin.buffer.read()
    if data.startswith("@"):
        try:
            return Path(data[1:]).read_bytes()
        except OSError as error:
            raise ConfigError(f"--data: the file {data[1:]} cannot be read: {error.strerror}.") from error
    return data.encode()


def over_http(url: str, question: Question, body: bytes) -> bytes:
    """Raises RequestError by the answer's HTTP status."""
    model, version = _model(question.model)
    path = f"/v2/models/{quote(model, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")
    try:
        response = httpx.post(
            f"{url.rstrip('/')}{path}/infer", content=body, headers={"content-type": JSON}, timeout=question.timeout_s
        )
    except httpx.TimeoutException as error:
        raise Expired(f"The gateway at {url} did not answer within {question.timeout_s:g} s.") from error
    except httpx.HTTPError as error:
        raise Unavailable(f"The gateway at {url} cannot be asked: {error}.") from error
    except httpx.InvalidURL as error:
        raise ConfigError(f"--url: {url} is no address: {error}.") from error
    if response.status_code != 200:
        raise _BY_STATUS.get(response.status_code, ModelFailed)(error_message(response.content))
    return response.content


async def over_amqp(url: str, question: Question, body: bytes, tls: TlsOptions, reply_mode: ReplyMode) -> bytes:
    """Without a gateway, as any program may ask. Raises RequestError, BrokerError, ConfigError."""
    model, version = _model(question.model)
    async with Client(
        url,
        **msgspec.structs.asdict(tls),
        timeout_s=question.timeout_s,
        name="modelmq-infer",
        reply_mode=reply_mode,
    ) as client:
        return await client.infer_json(model, body, version=version or None)


def _model(text: str) -> tuple[str, str]:
    """`name` or `name/version`."""
    name, _, version = text.partition("/")
    return name, version


def _readable(body: bytes) -> str:
    """Indented for people, as it came for programs."""
    text = body.decode("utf-8", "replace")
    if not sys.stdout.isatty():
        return text
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text
