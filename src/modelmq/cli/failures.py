"""What a command says and with which status it ends when something goes wrong: one table, one sentence.

Exit statuses: 1 in general, 2 for wrong usage or settings; of a request that was answered with an error, 3 when it is
the request's fault, 4 when a retry may help, 5 when it is the model's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from modelmq.errors import (
    BrokerError,
    ConfigError,
    Expired,
    InvalidRequest,
    ModelMQError,
    NotFound,
    Overloaded,
    RequestError,
    TooLarge,
    Unavailable,
    Unsupported,
)

GENERAL, USAGE, REQUEST, RETRY, MODEL = 1, 2, 3, 4, 5
INTERRUPTED = 130

_STATUSES: tuple[tuple[tuple[type[ModelMQError], ...], int], ...] = (
    ((ConfigError,), USAGE),
    ((InvalidRequest, NotFound, TooLarge, Unsupported), REQUEST),
    ((Overloaded, Unavailable, Expired, BrokerError), RETRY),
    ((RequestError,), MODEL),
)


def status_of(error: ModelMQError) -> int:
    """The exit status of the first row of the table that fits."""
    return next((status for kinds, status in _STATUSES if isinstance(error, kinds)), GENERAL)


@contextmanager
def told(*, debug: bool) -> Iterator[None]:
    """Errors of ours leave as one line on standard error and an exit status; with `debug` as what they are."""
    try:
        yield
    except ModelMQError as error:
        if debug:
            raise
        print(f"modelmq: {error.message}", file=sys.stderr)  # noqa: T201 - this is the command's output
        raise SystemExit(status_of(error)) from error
    except KeyboardInterrupt:
        if debug:
            raise
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        # Somebody read only our first lines, as `head` does.
        sys.stderr.close()
        raise SystemExit(GENERAL) from None
