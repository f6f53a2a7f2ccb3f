"""The one table from what can go wrong with the management API to a sentence for the user.

Stands between httpx and the rest of the program, which sees ProvisionError only. Sentences name the address and what
to do, never a password. Knows no call of the API.
"""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

import httpx
import msgspec

from modelmq.errors import ProvisionError
from modelmq.tls import TlsOptions, problem

# The first match counts, so the special ones stand first.
_TRANSPORT: tuple[tuple[type[Exception], str], ...] = (
    (httpx.ConnectTimeout, "did not accept a connection in time; is the host right, and is nothing blocking the port?"),
    (httpx.TimeoutException, "did not answer in time; RabbitMQ may be overloaded, try again"),
    (
        httpx.ConnectError,
        "cannot be reached; is RabbitMQ running with its management plugin, and is the address right?",
    ),
    (httpx.UnsupportedProtocol, "has an address that is not http:// or https://"),
    (httpx.ProxyError, "cannot be reached through the proxy"),
    (
        httpx.NetworkError,
        "closed the connection without a whole answer; is RabbitMQ restarting, and is this its management port?",
    ),
    (httpx.ProtocolError, "does not speak proper HTTP; is this really the management port?"),
    (httpx.DecodingError, "sent a compressed answer that cannot be read"),
    (httpx.TooManyRedirects, "redirects without end"),
)

# What the `reason` of a 401 begins with, in lower case, on RabbitMQ 3.10 to 4.3.
_REFUSALS: tuple[tuple[str, str], ...] = (
    ("not ", 'the user "{user}" lacks the tag "administrator"; add it with rabbitmqctl set_user_tags'),
    ("access", 'the user "{user}" may not do that in this virtual host: {reason}'),
    ("user can only log in via localhost", 'the user "{user}" may log in only on the machine of the broker'),
    ("", 'the user "{user}" or its password is wrong; see broker.admin_username and broker.admin_password_file'),
)


class ApiRefusal(msgspec.Struct):
    """The body of an error answer, as far as it can be read."""

    error: str = ""
    reason: str = ""


def transport_error(url: str, error: Exception, tls: TlsOptions) -> ProvisionError:
    """No answer at all."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            what = problem(cause, urlsplit(url).hostname or url, tls)
            return _at(url, what)
        cause = cause.__cause__ or cause.__context__
    what = next((text for kind, text in _TRANSPORT if isinstance(error, kind)), f"failed: {type(error).__name__}")
    return _at(url, what)


def _at(url: str, what: str) -> ProvisionError:
    return ProvisionError(f"The management API at {url} {what}" + ("" if what.endswith("?") else "."))


def answer_error(url: str, user: str, doing: str, status: int, body: bytes) -> ProvisionError:
    """An answer that is not a success. `doing` says what was asked, as in "declare queue x"."""
    refusal = _decode(body)
    reason = _one_line(refusal.reason or refusal.error)
    if status == httpx.codes.UNAUTHORIZED:
        text = next(text for start, text in _REFUSALS if reason.lower().startswith(start))
        return ProvisionError(f"RabbitMQ at {url} refused to {doing}: {text.format(user=user, reason=reason)}.")
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        detail = f" ({reason})" if reason else ""
        return ProvisionError(f"RabbitMQ at {url} failed to {doing}: HTTP {status}{detail}; see the broker's log.")
    if status == httpx.codes.NOT_FOUND and not refusal.error:
        return ProvisionError(f"There is no management API at {url}: it answered 404; check broker.management_url.")
    detail = reason or "no reason given"
    return ProvisionError(f"RabbitMQ at {url} refused to {doing}: HTTP {status}, {detail}.")


def is_missing(status: int, body: bytes) -> bool:
    """Whether RabbitMQ itself says that there is no such thing; a 404 of whatever else listens there is an error."""
    return status == httpx.codes.NOT_FOUND and bool(_decode(body).error)


def unreadable_answer(url: str, doing: str) -> ProvisionError:
    """A success whose body is not the JSON it should be."""
    return ProvisionError(f"The answer of {url} to {doing} cannot be read; is this really RabbitMQ's management API?")


def _decode(body: bytes) -> ApiRefusal:
    try:
        return msgspec.json.decode(body, type=ApiRefusal)
    except msgspec.DecodeError:
        return ApiRefusal()


def _one_line(text: str, limit: int = 300) -> str:
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= limit else line[: limit - 1] + "…"
