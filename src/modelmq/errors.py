"""Every error ModelMQ raises, with a stable code, whose fault it is and whether a retry can help.

    ModelMQError
    ├── RequestError             the definite answer to one request; `code` travels in the reply
    │   ├── InvalidRequest         invalid       caller's fault, a retry cannot help
    │   ├── NotFound               not_found     caller's fault, a retry cannot help
    │   ├── TooLarge               too_large     caller's fault, a retry cannot help
    │   ├── Unsupported            unsupported   caller's fault, a retry cannot help
    │   ├── Overloaded             overloaded    nobody's fault, retry after `retry_after_s`
    │   ├── ModelFailed            failed        the model's fault
    │   ├── DeadLettered           dead          the model's fault, the request is kept for inspection
    │   ├── Unavailable            unavailable   the system's fault, retry after `retry_after_s`
    │   ├── Expired                expired       its deadline passed
    │   └── Cancelled              cancelled     its caller withdrew it
    ├── BrokerError              the connection to RabbitMQ
    │   ├── ConnectFailed          no host could be reached
    │   │   └── AccessRefused      the broker refused the user, password or virtual host
    │   ├── ConnectionLost         an open connection ended
    │   ├── ChannelClosed          the broker closed one channel
    │   └── ProtocolViolation      the peer sent bytes that are not valid AMQP 0-9-1
    ├── ConfigError              a setting is unknown, malformed or contradictory
    ├── ModelLoadError           a model folder cannot be served
    ├── ProvisionError           the topology could not be applied
    ├── Retry                    a model's word, not an answer: these inputs again, after `after_s`
    ├── LettersError             dead letters could not be looked at, replayed or purged
    └── NodeError                the private RabbitMQ node could not be installed, started or stopped

Messages are one sentence: what happened, where, and what to do about it.
"""

from __future__ import annotations

import math


class ModelMQError(Exception):
    """The root of every error that ModelMQ raises on purpose."""

    code: str = "error"
    retryable: bool = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RequestError(ModelMQError):
    """One request ended without a result; `code` is the stable word of the message contract."""

    code = "failed"

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class InvalidRequest(RequestError):
    """The request is malformed or does not fit the model's inputs."""

    code = "invalid"


class NotFound(RequestError):
    """No such model or version."""

    code = "not_found"


class TooLarge(RequestError):
    """The request body is over the limit."""

    code = "too_large"


class Unsupported(RequestError):
    """The content type is not one this service reads."""

    code = "unsupported"


class Overloaded(RequestError):
    """The model's queue is full; the request was not accepted."""

    code = "overloaded"
    retryable = True


class ModelFailed(RequestError):
    """The model raised, or gave an output that cannot be a reply."""

    code = "failed"


class DeadLettered(RequestError):
    """The request was tried too often in vain, and was put into the dead-letter queue."""

    code = "dead"


class Unavailable(RequestError):
    """Nobody can serve the request now: no broker, or no worker for the model."""

    code = "unavailable"
    retryable = True


class Expired(RequestError):
    """The request's deadline passed before an answer came."""

    code = "expired"
    retryable = True


class Cancelled(RequestError):
    """The caller withdrew the request."""

    code = "cancelled"


class BrokerError(ModelMQError):
    """The connection to RabbitMQ failed; `reply_code` is AMQP's own number where the broker gave one."""

    code = "broker"
    retryable = True

    def __init__(self, message: str, *, reply_code: int = 0) -> None:
        super().__init__(message)
        self.reply_code = reply_code


class ConnectFailed(BrokerError):
    """No broker host could be reached."""

    code = "broker_unreachable"


class AccessRefused(ConnectFailed):
    """The broker refused the user, the password or the virtual host."""

    code = "broker_access_refused"
    retryable = False


class ConnectionLost(BrokerError):
    """An open connection ended: closed by the broker, reset, or silent for too long."""

    code = "broker_connection_lost"


class ChannelClosed(BrokerError):
    """The broker closed one channel; the connection and its other channels live on."""

    code = "broker_channel_closed"


class ProtocolViolation(BrokerError):
    """The peer sent bytes that are not valid AMQP 0-9-1."""

    code = "broker_protocol_violation"
    retryable = False


class ConfigError(ModelMQError):
    """A setting is unknown, malformed or contradicts another."""

    code = "config"


class ModelLoadError(ModelMQError):
    """A model folder cannot be served; the message names the file and the reason."""

    code = "model_load"


class ProvisionError(ModelMQError):
    """The topology could not be applied to the broker."""

    code = "provision"


class Retry(ModelMQError):
    """Raised by a model: it cannot answer these inputs now, and wants to see them again after `after_s` seconds.

    The request is put off by at least that, and by at most ten minutes; its caller goes on waiting until its deadline.
    `why` goes into the request's history, and to the caller should there be no later try. Raises ValueError for a delay
    that is no finite number above 0.
    """

    code = "retry"
    retryable = True

    def __init__(self, after_s: float, why: str = "") -> None:
        super().__init__(why)
        self.after_s = float(after_s)
        if not 0 < self.after_s < math.inf:
            raise ValueError(f"Retry(after_s={after_s!r}): the delay must be a finite number of seconds above 0.")


class LettersError(ModelMQError):
    """Dead letters could not be looked at, replayed or purged; those that were not are where they were."""

    code = "letters"


class NodeError(ModelMQError):
    """The private RabbitMQ node could not be installed, started or stopped."""

    code = "node"


REQUEST_ERRORS: dict[str, type[RequestError]] = {
    error.code: error
    for error in (
        InvalidRequest,
        NotFound,
        TooLarge,
        Unsupported,
        Overloaded,
        ModelFailed,
        DeadLettered,
        Unavailable,
        Expired,
        Cancelled,
    )
}
"""The codes of the message contract and the errors they become on the caller's side."""


def request_error(code: str, message: str) -> RequestError:
    """The error a reply's `status` header stands for; an unknown code is a failure of the model's side."""
    return REQUEST_ERRORS.get(code, ModelFailed)(message)
